"""30,000 random mutations of valid files: refused with a sentence or equal, never a traceback, nothing ever run.

Blind mutations change bytes of a signed file; shaped ones change what the JSON says, or the arrays, and take the
signature away, so that they get behind it: into the builders, the gate, the fusion and the prediction.
"""

import json

import numpy as np
import pytest
from tests import rounds
from tests.attacks import hostile
from tests.attacks.watch import watched

from fusionlearn import Model, Report, Task, Total, Update, errors, file, run

BLIND, SHAPED = 20_000, 10_000
FILES = [(method, name) for method in ("ridge", "forest") for name in ("task", "update-1", "total", "model", "report")]
FILES.remove(("forest", "total"))

JUNK = (
    None, True, -1, 0, 1, 2**31, 2**53, 2**63, 2**64, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "x", "\0",
    "\x1b[2J", "../../x", "é" * 50, "9" * 30, [], {}, [[]], [None], {"name": "table"}, "x" * 5000,
)  # fmt: skip


def blind(content: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, bytes set, pieces cut out, doubled, moved or filled: one to four times."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        # half of them in the header, which is the smaller part
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 1200)
        start, length = int(rng.integers(end)), int(rng.geometric(0.1))
        what = rng.integers(7)
        if what == 0:
            changed[start] ^= 1 << int(rng.integers(8))
        elif what == 1:
            changed[start] = int(rng.choice(np.frombuffer(b'\0\xff"{}[]:,0-9\\ ', np.uint8)))
        elif what == 2:
            del changed[start : start + length]
        elif what == 3:
            changed[start:start] = changed[start : start + length]
        elif what == 4:
            changed[start:start] = rng.bytes(length)
        elif what == 5:
            changed[start : start + length] = bytes(length)
        else:
            del changed[start:]
    return bytes(changed)


def shaped(content: bytes, rng: np.random.Generator) -> bytes:
    """Somewhere in the entries or the arrays another value, another shape, or something gone or added."""
    entries, bodies = hostile.taken_apart(content)
    entries, bodies = dict(entries), dict(bodies)
    what = rng.integers(6)
    name = str(rng.choice(sorted(entries)))
    junk = JUNK[int(rng.integers(len(JUNK)))]
    if what == 0:
        entries.pop(name)
    elif what == 1 or (what > 3 and not bodies):
        entries[name] = junk if isinstance(junk, str) else json.dumps(junk)
    elif what in (2, 3):
        entries[name] = json.dumps(_within(entries[name], junk, rng), ensure_ascii=bool(rng.integers(2)))
    else:
        key = str(rng.choice(sorted(bodies)))
        bodies[key] = _array(bodies[key], rng)
        if rng.random() < 0.1:
            bodies[str(rng.choice(["count", "gram", "prior.x", "header.note", key + "x"]))] = bodies.pop(key)
    return hostile.build(entries, bodies)


def _within(text: str, junk: object, rng: np.random.Generator) -> object:
    """The JSON of an entry with one value in it replaced, doubled or taken out."""
    try:
        whole = json.loads(text)
    except ValueError:
        return junk
    target, path = whole, []
    while isinstance(target, dict | list) and len(target) and (not path or rng.random() < 0.8):
        path.append(target)
        keys = list(target) if isinstance(target, dict) else range(len(target))
        chosen = keys[int(rng.integers(len(keys)))]
        holder, target = target, target[chosen]
    if not path:
        return junk
    how = rng.integers(4)
    if how == 0:
        del holder[chosen]
    elif how == 1 and isinstance(holder, list):
        holder.append(target)
    elif how == 2 and isinstance(target, int | float) and not isinstance(target, bool):
        holder[chosen] = target * float(rng.choice([-1, 0, 0.5, 2, 1e10, 1e-10]))
    else:
        holder[chosen] = junk
    return whole


def _array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = array.reshape(-1).copy()
    what = rng.integers(5)
    if what == 0:
        flat = flat[: int(rng.integers(len(flat) + 1))]
    elif what == 1:
        with np.errstate(all="ignore"):
            return flat.astype(str(rng.choice(["int64", "float64", "float32", "uint8", "int32", "bool"])), copy=True)
    elif what == 2:
        return np.zeros((0, *array.shape), array.dtype)
    elif len(flat):
        info = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        ends = [info.min, info.max, info.max // 2, 0, 1] if info else [0, 1, -1, 1e-300, 1e300]
        with np.errstate(all="ignore"):
            flat[int(rng.integers(len(flat)))] = np.asarray(ends[int(rng.integers(5))]).astype(array.dtype)
        return flat.reshape(array.shape)
    return flat


def used(noun: object, method: str) -> str:
    """What an honest program does next with a file it read; "" when it went well, else the sentence."""
    files = rounds.round_of(method)
    try:
        if isinstance(noun, Task):
            update = run.summarize(noun, rounds.records(1), rng=np.random.default_rng(0))
            assert file.from_bytes(file.to_bytes(update), Update)
        elif isinstance(noun, Update | Total):
            others = [] if isinstance(noun, Total) else [files["update-2"]]
            model, report = run.fuse(files["task"], [noun, *others])
            assert all(np.isfinite(array).all() for array in model.arrays.values())
            assert file.from_bytes(file.to_bytes(report), Report)
        elif isinstance(noun, Model):
            found = run.predict(noun, rounds.records(2))
            assert np.isfinite(found.get("probability", found.get("value"))).all()
        file.describe(noun)
    except errors.FusionlearnError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("method", "name"), FILES)
def test_blind_mutations(method: str, name: str):
    rng = np.random.default_rng([1, *map(ord, method + name)])
    noun = rounds.round_of(method)[name]
    content = file.to_bytes(noun)
    assert file.digest(file.from_bytes(content)) == file.digest(noun)
    refused = 0
    with watched() as ran:
        for _ in range(BLIND // len(FILES) + 1):
            mutant = blind(content, rng)
            try:
                read = file.from_bytes(mutant)
            except errors.FileError as error:
                refused += str(error).isprintable()
            else:  # what the signature does not cover: the order of the header, its spaces
                assert file.digest(read) == file.digest(noun) and read.signature == noun.signature
    assert not ran
    assert refused > BLIND // len(FILES) * 0.9


@pytest.mark.parametrize(("method", "name"), FILES)
def test_shaped_mutations(method: str, name: str):
    rng = np.random.default_rng([2, *map(ord, method + name)])
    content = file.to_bytes(rounds.round_of(method)[name])
    used(file.from_bytes(content), method)  # what is loaded on first use is loaded now
    told = {"refused": 0, "badly refused": 0, "of no use": 0, "used": 0}
    with watched() as ran:
        for _ in range(SHAPED // len(FILES) + 1):
            mutant = shaped(content, rng)
            try:
                read = file.from_bytes(mutant)
            except errors.FileError as error:
                told["refused" if str(error).isprintable() and len(str(error)) < 1000 else "badly refused"] += 1
                continue
            again = file.from_bytes(file.to_bytes(read))
            assert file.digest(again) == file.digest(read)
            sentence = used(read, method)
            told["of no use" if sentence else "used"] += 1
    assert not ran
    assert not told["badly refused"] and told["refused"] and told["refused"] < sum(told.values()), told
