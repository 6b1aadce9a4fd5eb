"""The file format against its specification: vectors, golden files, a reader of its own, and whole or nothing."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import rfc8785
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import rounds
from tests.attacks import hostile

from fusionlearn import Model, Task, Update, errors, file, run
from fusionlearn.fixed import FixedPoint
from fusionlearn.problem import Category, Number, NumberLabel, Schema, Vector

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


@pytest.mark.parametrize("missing", ["refuse", "drop", "center", "indicator"])
def test_a_schema_comes_back_as_it_went(missing: str):
    """A number for a label, every kind of column, every setting a column may have, every rule."""
    columns = {
        "plain": Number(0.1, 0.7),
        "full": Number(-1.0, 3.0, center=0.5, scale=1e-3, unit="mg/dL", missing="drop"),
        "block": Vector(3, 0.0, 255.0),
        "kind": Category(("a", "ß", "")),
    }
    label = NumberLabel("days", -3.0, 30.0, center=1.0, scale=7.0, unit="d")
    for schema in (Schema(columns, label, missing, "clip"), Schema(columns, rounds.CLASSES, missing, "refuse")):
        assert file.schema_from_json(json.loads(json.dumps(file.schema_to_json(schema)))) == schema
        task = dataclasses.replace(rounds.task(signed=False), schema=schema)
        assert file.from_bytes(file.to_bytes(task), Task).schema == schema


def test_a_number_comes_back_through_the_whole_round():
    task = rounds.task(regression=True)
    model, _ = run.fuse(file.from_bytes(file.to_bytes(task), Task), rounds.updates(task, 3))
    back = file.from_bytes(file.to_bytes(model), Model)
    rows = rounds.records(9)
    assert np.array_equal(run.predict(back, rows)["value"], run.predict(model, rows)["value"])
    assert np.abs(run.predict(back, rows)["value"] - rows["days"]).mean() < 3


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


def test_long_entries_travel_as_arrays_and_come_back(tmp_path: Path):
    extras = {"edge": "é" * 8192, "beyond": "é" * 8193, "note": "x"}
    noun = file.sign(dataclasses.replace(rounds.task(signed=False), extras=extras), rounds.key(0))
    content = file.to_bytes(noun)
    back = file.from_bytes(content, Task)
    assert back.extras == extras and file.digest(back) == file.digest(noun)
    assert [name for name in safetensors.numpy.load(content) if name.startswith("header.")] == ["header.beyond"]
    assert file.describe(back)["header"]["beyond"] == "é" * 8193
    with pytest.raises(errors.FileError, match="'beyond' is longer than the 1048576 bytes allowed"):
        file.to_bytes(dataclasses.replace(noun, extras={"beyond": "x" * (2**20 + 1)}))
    assert file.from_bytes(file.to_bytes(rounds.task(extras={"most": "x" * 2**20}))).extras["most"]


def test_entries_of_a_later_version_are_kept_signed_and_may_be_critical():
    extras = {"later": "[1]", "critical": '["name", "later"]'}
    noun = file.sign(dataclasses.replace(rounds.task(signed=False), extras=extras), rounds.key(0))
    with pytest.raises(errors.FileError, match="needs a later version of fusionlearn: it relies on 'later'"):
        file.from_bytes(file.to_bytes(noun))
    fine = file.sign(dataclasses.replace(noun, extras={**extras, "critical": '["name"]'}), rounds.key(0))
    back = file.from_bytes(file.to_bytes(fine))
    assert back.extras == fine.extras and file.digest(back) == file.digest(fine)
    plain = file.sign(dataclasses.replace(noun, extras={}), rounds.key(0))
    assert file.digest(plain) != file.digest(fine)


@pytest.mark.parametrize("wanted", file.KINDS)
def test_another_kind_than_needed_is_told(wanted: str):
    for kind, noun in rounds.round_of("ridge").items():
        kind = kind.removesuffix("-1").removesuffix("-2").removesuffix("-3")
        content = file.to_bytes(noun)
        if kind == wanted:
            assert isinstance(file.from_bytes(content, file.KINDS[wanted]), file.KINDS[wanted])
        else:
            told = f"is an? {kind}, but an? {wanted} is needed"
            with pytest.raises(errors.FileError, match=told) as caught:
                file.from_bytes(content, file.KINDS[wanted])
            assert not re.search(r"\ban (task|total|model|report)|\ba update", str(caught.value))


def test_sizes_are_told_rightly():
    for noun in rounds.round_of("ridge").values():
        size = len(file.to_bytes(noun))
        assert size - 1500 < file.num_bytes(noun) <= size
    update = rounds.round_of("ridge")["update-1"]
    entries = {"format": "fusionlearn/1", "kind": "update", "task": update.task, "guarantee": '{"mode":"none"}'}
    entries |= {"signer": update.signer, "signature": update.signature}
    exact = sum(len(name) + len(text) for name, text in entries.items())
    assert file.num_bytes(update) == exact + sum(array.nbytes for array in update.arrays.values())


def test_describe_shows_what_a_file_holds():
    update = rounds.round_of("ridge")["update-1"]
    told = file.describe(update)
    assert (told["kind"], told["digest"], told["signer"]) == ("update", file.digest(update), update.signer)
    assert told["header"] == {"format": "fusionlearn/1", "task": update.task, "guarantee": {"mode": "none"}}
    assert told["arrays"].keys() == update.arrays.keys()
    gram = update.arrays["gram"]
    assert told["arrays"]["gram"] == {
        "dtype": "int64",
        "shape": list(gram.shape),
        "bytes": gram.nbytes,
        "sha256": hashlib.sha256(gram.astype("<i8").tobytes()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array([1 + 2j]), "dtype complex128 cannot travel"),
        (np.array(["a"]), "cannot travel"),
        (np.array([1.0, np.inf]), "holds NaN or infinity"),
    ],
)
def test_what_could_not_be_read_is_not_written(array: np.ndarray, told: str, tmp_path: Path):
    update = dataclasses.replace(rounds.round_of("ridge")["update-1"], arrays={"a": array})
    with pytest.raises(errors.FileError, match=told):
        file.write(tmp_path / "u", update)
    assert not list(tmp_path.iterdir())


def test_a_name_that_could_not_be_read_is_not_written():
    update = dataclasses.replace(rounds.round_of("ridge")["update-1"], arrays={"Gram": np.zeros(1)})
    with pytest.raises(errors.FileError, match="a name or an entry that is not allowed"):
        file.to_bytes(update)


def test_arrays_of_every_type_and_layout_come_back():
    made = {name: np.array([[0, 1, 1], [1, 0, 1]], name) for name in file.DTYPES.values()}
    made |= {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(4, dtype=">i4"),
        "scalar": np.array(7),
    }
    made |= {"empty": np.zeros((0, 3)), "strided": np.arange(10)[::3]}
    update = dataclasses.replace(rounds.round_of("ridge")["update-1"], arrays=made, signer="", signature="")
    back = file.from_bytes(file.to_bytes(update), Update)
    assert file.digest(back) == file.digest(update)
    for name, array in made.items():
        assert np.array_equal(back.arrays[name], array) and back.arrays[name].shape == array.shape
        assert back.arrays[name].dtype == array.dtype.newbyteorder("=")


# --- signatures -----------------------------------------------------------------------------------------------------


def test_signing_names_the_signer_and_the_digest_changes_with_it():
    unsigned = rounds.task(signed=False)
    one, two = file.sign(unsigned, rounds.key(1)), file.sign(unsigned, rounds.key(2))
    assert one.signer == rounds.public(1) and len({file.digest(noun) for noun in (unsigned, one, two)}) == 3
    file.verify(one)
    assert file.digest(file.sign(two, rounds.key(1))) == file.digest(one)
    with pytest.raises(errors.SignatureError, match="my task is not signed"):
        file.verify(unsigned, "my task")
    forged = dataclasses.replace(two, signer=one.signer)
    with pytest.raises(errors.SignatureError, match="mine: the signature is wrong"):
        file.verify(forged, "mine")


def test_any_altered_bit_of_a_signed_update_is_seen():
    """Every bit of the arrays and every bit of the header's text."""
    noun = rounds.round_of("ridge")["update-2"]
    content = file.to_bytes(noun)
    for bit in range(64, 8 * len(content), 7):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            back = file.from_bytes(bytes(changed))
        except errors.FileError:
            continue
        pytest.fail(f"bit {bit} of {back.signer[:4]} was altered unseen")


def test_a_repacked_file_keeps_digest_and_signature():
    """Another program may order and space the header otherwise, and pad it."""
    for noun in rounds.round_of("gaussian").values():
        entries, bodies = hostile.taken_apart(file.to_bytes(noun))
        entries |= {"signer": noun.signer, "signature": noun.signature}
        backwards = hostile.build(dict(reversed(entries.items())), dict(reversed(bodies.items())))
        assert backwards != file.to_bytes(noun)
        back = file.from_bytes(backwards)
        assert file.digest(back) == file.digest(noun) and back.signature == noun.signature


# --- whole or not at all --------------------------------------------------------------------------------------------

OLD, NEW = (rounds.task(signed=False, max_records=n) for n in (1000, 2000))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod", "fdopen"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch, call: str, number: int):
    path = tmp_path / "task"
    file.write(path, OLD)

    def broken(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(errors.FileError, match=f"cannot write {re.escape(str(path))}: {os.strerror(number)}"):
            file.write(path, NEW)
    assert file.digest(file.read(path)) == file.digest(OLD)
    assert left(tmp_path) == ["task"]
    file.write(path, NEW)
    assert file.digest(file.read(path)) == file.digest(NEW)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path: Path, interrupt: type[BaseException]):
    path = tmp_path / "task"
    file.write(path, OLD)

    def write_half() -> None:
        with file.replacing(path) as out:
            out.write(b"half")
            raise interrupt

    with pytest.raises(interrupt):
        write_half()
    assert file.digest(file.read(path)) == file.digest(OLD) and left(tmp_path) == ["task"]


def test_bytes_reach_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file is synced, then named, then the folder is synced: no power cut leaves a name without its bytes."""
    done = []
    real = {"fsync": os.fsync, "replace": os.replace}

    def fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes"
        done.append(f"sync {kind}")
        real["fsync"](handle)

    def replace(source: str, target: Path) -> None:
        done.append("name")
        real["replace"](source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    size = file.write(tmp_path / "task", NEW)
    assert done == [f"sync {size} bytes", "name", "sync folder"]


def child(code: str, *arguments: object) -> subprocess.Popen:
    head = "import os, sys, time; from pathlib import Path; from tests import rounds; from fusionlearn import file\n"
    head += "OLD, NEW = (rounds.task(signed=False, max_records=n) for n in (1000, 2000)); path = Path(sys.argv[1])\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_a_process_killed_in_the_middle_leaves_the_old_file(tmp_path: Path, call: str):
    path = tmp_path / "task"
    file.write(path, OLD)
    code = f"""
        def stop(*_): print("there", flush=True); time.sleep(60)
        os.{call} = stop
        file.write(path, NEW)
    """
    with child(code, path) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert file.digest(file.read(path)) == file.digest(OLD)
    assert all(name == "task" or name.startswith(".task.") for name in left(tmp_path))
    file.write(path, NEW)
    assert file.digest(file.read(path)) == file.digest(NEW)


def test_a_process_killed_at_any_moment_leaves_one_of_the_two(tmp_path: Path):
    path = tmp_path / "task"
    known = {file.digest(OLD), file.digest(NEW)}
    code = """
        print("there", flush=True)
        while True:
            file.write(path, OLD); file.write(path, NEW)
    """
    for moment in np.random.default_rng(0).uniform(0.001, 0.02, 6):
        file.write(path, OLD)
        with child(code, path) as process:
            process.stdout.readline()
            time.sleep(moment)
            process.kill()
        assert file.digest(file.read(path)) in known


def test_a_full_disk_is_one_sentence_and_nothing_changes(tmp_path: Path):
    """A real limit of the system, on the size of files."""
    path = tmp_path / "task"
    file.write(path, OLD)
    code = """
        import resource, signal
        from fusionlearn.errors import FileError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try: file.write(path, NEW)
        except FileError as error: print(error)
    """
    with child(code, path) as process:
        said = process.stdout.read()
    assert said == f"cannot write {path}: File too large.\n"
    assert file.digest(file.read(path)) == file.digest(OLD) and left(tmp_path) == ["task"]


def test_a_written_file_has_the_usual_rights(tmp_path: Path):
    file.write(tmp_path / "task", NEW)
    (tmp_path / "other").write_text("x")
    assert (tmp_path / "task").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no/folder", "the folder .* does not exist"),
        ("", "it is a folder"),
        ("x" * 300, "File name too long"),
        ("a\0b", "zero byte"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, name: str, told: str):
    with pytest.raises(errors.FileError, match=told):
        file.write(tmp_path / name, NEW)
    assert not list(tmp_path.iterdir())
