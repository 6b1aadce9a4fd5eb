"""The file format against its specification: vectors, golden files, a reader of its own, and whole or nothing."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rfc8785
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import rounds

from fusionlearn import errors, file
from fusionlearn.fixed import FixedPoint

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "spec" / "vectors"
GOLDEN = sorted((ROOT / "tests" / "golden").rglob("*.safetensors"))
KINDS = ("task", "update", "total", "model", "report")


def vector(name: str) -> dict:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


# --- the specification ----------------------------------------------------------------------------------------------


def from_the_page(content: bytes) -> dict:
    """A reader written from spec/FORMAT.md and nothing else: no code of ours."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entries, body = header.pop("__metadata__"), content[8 + length :]
    parts = {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}
    listed = {
        name: {"dtype": entry["dtype"], "sha256": hashlib.sha256(parts[name]).hexdigest(), "shape": entry["shape"]}
        for name, entry in header.items()
    }
    unsigned = {name: value for name, value in entries.items() if name != "signature"}
    manifest = rfc8785.dumps({"arrays": listed, "metadata": unsigned})
    signer, signature = entries.get("signer", ""), entries.get("signature", "")
    if signer:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(bytes.fromhex(signature), manifest)
    return {
        "digest": hashlib.sha256(manifest).hexdigest(),
        "signer": signer,
        "signature": signature,
        "manifest": manifest.decode(),
        "arrays": {
            name: array.tolist()
            for name, array in safetensors.numpy.load(content).items()
            if not name.startswith("header.")
        },
    }


@pytest.mark.parametrize(
    "path", [*sorted(VECTORS.glob("*.safetensors")), *GOLDEN], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_recorded_files_read_as_recorded(path: Path):
    """Files written by a released version, and those of the specification, are read for ever."""
    wanted = json.loads(path.with_suffix(".json").read_text("utf-8"))
    content = path.read_bytes()
    noun = file.read(path)
    assert from_the_page(content) == wanted
    assert file.digest(noun) == wanted["digest"] and file.manifest(noun).decode() == wanted["manifest"]
    assert (noun.signer, noun.signature) == (wanted["signer"], wanted["signature"])
    again = file.to_bytes(noun)
    assert from_the_page(again) == wanted
    assert again == content, "the bytes we write have changed"


def test_there_are_golden_files_of_every_method_and_kind():
    assert {(path.parent.name, path.stem.split("-")[0]) for path in GOLDEN} >= {
        (method, kind)
        for method in rounds.METHODS
        for kind in KINDS
        if kind != "total" or method in ("ridge", "gaussian")
    }


def test_what_we_write_today_is_what_the_specification_shows():
    made = rounds.round_of("ridge")
    for kind in ("task", "update"):
        noun = made["update-1" if kind == "update" else kind]
        assert file.digest(noun) == vector(kind)["digest"]


def test_canonical_json():
    for case in vector("canonical"):
        assert file.canonical_json(case["value"]).hex() == case["canonical"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    TEXT | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_canonical_json_is_that_of_another_writer(value):
    assert file.canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [1.5, True, None, 2**53, -(2**53), [{"a": 0.0}]])
def test_a_manifest_holds_text_and_integers_only(value):
    with pytest.raises(errors.FileError, match="strings and integers below"):
        file.canonical_json(value)


def test_fixed_point():
    for case in vector("fixed_point"):
        grid = FixedPoint.for_sums(case["max_records"], case["max_entry"])
        assert grid.bits == case["bits"]
        assert grid.encode(np.array(case["real"])).tolist() == case["integer"]


def test_the_page_says_what_the_code_says():
    """The caps of spec/FORMAT.md, and that it stays one page."""
    page = (ROOT / "spec" / "FORMAT.md").read_text("utf-8")
    assert len(page.splitlines()) <= 80
    assert file.MAX_HEADER == 2**20 and "N > 2²⁰" in page
    assert file.MAX_MARKS == 2**18 and "more than 2¹⁸ of the characters" in page
    assert file.MAX_ARRAYS == 4096 and "4,096 arrays" in page
    assert file.MAX_DIMENSIONS == 8 and "more than 8\n  dimensions" in page
    assert file.MAX_FILE == 2**34 and "0 to 2³⁴" in page
    assert file.LONG_ENTRY == 16 * 1024 and "longer than 16 KiB" in page
    assert file.MAX_ENTRY == 2**20 and "No entry passes 2²⁰ bytes" in page
    assert file.MAX_ENTRIES == {"findings": 2**24, "members": 2**26} and "(`findings` 2²⁴, `members` 2²⁶)" in page
    assert file.NAME.pattern == "[a-z][a-z0-9_.]{0,63}" and file.NAME.pattern in page
    assert " ".join(file.DTYPES) in page.replace(
        "`BOOL U8 I8 I16 U16 I32 U32 I64 U64 F16 F32 F64`", "BOOL U8 I8 I16 U16 I32 U32 I64 U64 F16 F32 F64"
    )
    assert file.FORMAT == "fusionlearn/1" and all(f"`{kind}`" in page for kind in file.KINDS)


# --- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", rounds.METHODS)
def test_every_noun_comes_back_as_it_went(method: str, tmp_path: Path):
    for name, noun in rounds.round_of(method).items():
        size = file.write(tmp_path / name, noun)
        back = file.read(tmp_path / name, type(noun))
        assert size == (tmp_path / name).stat().st_size
        assert type(back) is type(noun) and file.digest(back) == file.digest(noun)
        assert (back.signer, back.signature) == (noun.signer, noun.signature)
        for part in ("schema", "encoder", "method", "privacy", "clients", "members", "findings", "guarantee", "task"):
            if part != "findings":
                assert getattr(back, part, None) == getattr(noun, part, None)
            else:
                assert getattr(back, part, None) == json.loads(json.dumps(getattr(noun, part, None)))
        for field in ("arrays", "prior"):
            for key, array in getattr(noun, field, {}).items():
                found = getattr(back, field)[key]
                assert found.dtype == np.asarray(array).dtype and np.array_equal(found, array)
                assert not found.flags.writeable, "what was verified is what is used"


def test_the_same_noun_gives_the_same_bytes_in_every_process():
    """safetensors' own writer shuffles the header's entries: a retry would send other bytes."""
    noun = rounds.round_of("ridge")["model"]
    code = "import sys; from tests import rounds; from fusionlearn import file; "
    code += "sys.stdout.buffer.write(file.to_bytes(rounds.round_of('ridge')['model']))"
    found = {
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout for _ in range(2)
    }
    assert found == {file.to_bytes(noun)}
    assert file.to_bytes(file.from_bytes(file.to_bytes(noun))) == file.to_bytes(noun)
