"""Writes the golden files of one released version, once, and the vectors of the specification.

python tests/golden/make.py 0.1.0    tests/golden/0.1.0/METHOD/…; refused where the folder exists: golden files are
                                     never made anew, they show that what was written then is read today
python tests/golden/make.py vectors  spec/vectors/…, which may be made anew as long as its digests stay
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import rounds  # noqa: E402

from fusionlearn import file  # noqa: E402
from fusionlearn.fixed import FixedPoint  # noqa: E402
from fusionlearn.types import Noun  # noqa: E402


def described(noun: Noun) -> dict[str, Any]:
    """What a reader must find in a file."""
    arrays = safetensors.numpy.load(file.to_bytes(noun))
    return {
        "digest": file.digest(noun),
        "signer": noun.signer,
        "signature": noun.signature,
        "manifest": file.manifest(noun).decode(),
        "arrays": {name: array.tolist() for name, array in sorted(arrays.items()) if not name.startswith("header.")},
    }


def write(folder: Path, name: str, noun: Noun) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file.write(folder / f"{name}.safetensors", noun)
    text = json.dumps(described(noun), indent=1, ensure_ascii=False, sort_keys=True)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def golden(version: str) -> None:
    folder = ROOT / "tests" / "golden" / version
    if folder.exists():
        sys.exit(f"{folder} exists: golden files are never made anew.")
    for method in rounds.METHODS:
        for name, noun in rounds.round_of(method).items():
            write(folder / method, name, noun)


def later() -> Noun:
    """A task as a later version might write it: entries nobody here knows, one of them long."""
    extras = {"später": "ignored", "\U0001f642": "beyond the basic plane", "long": "x" * 20_000, "critical": '["name"]'}
    return file.sign(dataclasses.replace(rounds.task(), extras=extras), rounds.key(0))


def vectors() -> None:
    folder = ROOT / "spec" / "vectors"
    made = rounds.round_of("ridge")
    for kind in ("task", "update", "total", "model", "report"):
        write(folder, kind, made["update-1" if kind == "update" else kind])
    write(folder, "later", later())
    warning = "published test keys: whoever trusts them trusts everybody"
    private = [
        {"private": rounds.key(n).private_bytes_raw().hex(), "public": rounds.public(n), "warning": warning}
        for n in range(4)
    ]
    dump(folder / "keys.json", private)
    canonical = [
        {"b": 1, "a": "é", "\U0001f642": [], "\ufb33": {}, "": ""},
        ['\u0000\u001f\b\t\n\f\r"\\/\u007f\u2028', -(2**53) + 1, 2**53 - 1, 0],
        {"arrays": {}, "metadata": {"format": "fusionlearn/1"}},
    ]
    dump(folder / "canonical.json", [{"value": v, "canonical": file.canonical_json(v).hex()} for v in canonical])
    cases = [(1_000_000, 1.0), (1, 1.0), (2**40, 1.0), (740, 6.25), (1000, 1e-9), (3, 2.0**50)]
    dump(folder / "fixed_point.json", [
        {"max_records": records, "max_entry": entry, "bits": (grid := FixedPoint.for_sums(records, entry)).bits,
         "real": [0.75, -1 / 3], "integer": grid.encode(np.array([0.75, -1 / 3])).tolist()}
        for records, entry in cases
    ])  # fmt: skip


def dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    vectors() if sys.argv[1:] == ["vectors"] else golden(*sys.argv[1:])
