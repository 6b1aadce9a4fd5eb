"""Files made to hurt whoever reads them: each with its name, its bytes, and what the refusal must say.

They are made here and not kept as files: the lines that make one are its description.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from tests import rounds

from fusionlearn import file

Entries = dict[str, str]
Bodies = dict[str, np.ndarray]

SHORT = {np.dtype(name): short for short, name in file.DTYPES.items()}
HEX = "0123456789abcdef" * 4


def pack(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A container as it stands: `header` is written as JSON unless it is text or bytes already."""
    text = header if isinstance(header, bytes | str) else json.dumps(header, ensure_ascii=False)
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def parts(name: str = "update-1", method: str = "ridge") -> tuple[Entries, Bodies]:
    """Entries and arrays of a good file, unsigned, to be spoiled."""
    return taken_apart(file.to_bytes(rounds.round_of(method)[name]))


def taken_apart(content: bytes) -> tuple[Entries, Bodies]:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entries = {key: text for key, text in header.pop("__metadata__").items() if key not in ("signer", "signature")}
    bodies = {}
    for key, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        bodies[key] = np.frombuffer(content[begin:end], file.DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return entries, bodies


def build(entries: Any, bodies: Bodies, **changes: Any) -> bytes:
    """A container of these parts; `changes` replaces fields of the first array's entry."""
    header: dict[str, Any] = {"__metadata__": entries}
    body = b""
    for key, array in bodies.items():
        raw = array.tobytes()
        header[key] = {
            "dtype": SHORT.get(array.dtype, "C64"),
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    if changes:
        header[next(iter(bodies))] |= changes
    return pack(header, body)


def entry(name: str = "update-1", /, **changes: str | None) -> bytes:
    """A good file with header entries set, or with None taken out."""
    entries, bodies = parts(name)
    changed = {key: text for key, text in {**entries, **changes}.items() if text is not None}
    return build(changed, bodies)


def settings(**changes: Any) -> bytes:
    """A good task with parts of its schema, its encoder or its method replaced: name__field=value."""
    entries, bodies = parts("task")
    for place, value in changes.items():
        name, *path = place.split("__")
        inner = json.loads(entries[name]) if path else None
        target = inner
        for step in path[:-1]:
            target = target[int(step) if step.isdigit() else step]
        if path:
            last = path[-1]
            target[int(last) if last.isdigit() else last] = value
        entries[name] = json.dumps(inner if path else value)
    return build(entries, bodies)


def one(array: np.ndarray, **changes: Any) -> bytes:
    """The entries of a good update around one array."""
    return build(parts()[0], {"gram": array}, **changes)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _signed(name: str, **changes: str) -> bytes:
    content = file.to_bytes(rounds.round_of("ridge")[name])
    for old, new in changes.items():
        content = content.replace(old.encode(), new.encode())
    return content


def _half() -> bytes:
    entries, bodies = parts()
    return build({**entries, "note": "@"}, bodies).replace(b'"@"', b'"\\ud800"')


def _twice(where: str) -> bytes:
    """A header in which a key stands twice: two readers might see two files."""
    content = build(*parts())
    old, new = {
        "array": (b'"gram": {', b'"count": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}, "gram": {'),
        "entry": (b'"kind":', b'"kind": "total", "kind":'),
        "metadata": (b'"__metadata__":', b'"__metadata__": {}, "__metadata__":'),
    }[where]
    length = int.from_bytes(content[:8], "little")
    assert old in content
    text = content[8 : 8 + length].replace(old, new, 1)
    return pack(text, content[8 + length :])


def _holes(gap: int) -> bytes:
    entries, _ = parts()
    first, second = {"dtype": "U8", "shape": [8]}, {"dtype": "U8", "shape": [8]}
    first["data_offsets"], second["data_offsets"] = [0, 8], [8 + gap, 16 + gap]
    return pack({"__metadata__": entries, "a": first, "b": second}, bytes(16 + gap))


def _crowd() -> bytes:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    return pack({"__metadata__": parts()[0], **{f"a{i}": empty for i in range(4097)}})


def _members(text: str) -> bytes:
    return entry("total", members=text)


def _long(name: str, text: str, dtype: str = "uint8") -> bytes:
    entries, bodies = parts()
    return build(entries, {**bodies, f"header.{name}": np.frombuffer(text.encode(), np.uint8).astype(dtype)})


GRAM = np.zeros(4, np.int64)

# name -> (how it is made, what the refusal says)
ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    # --- the container
    "empty": (lambda: b"", "too short"),
    "eight bytes": (lambda: bytes(8), "too short"),
    "header larger than the file": (lambda: pack("{}", length=2**20), "cut"),
    "header of 2^63 bytes": (lambda: pack("{}", bytes(64), length=2**63), "are allowed"),
    "header of 1 MiB and one byte": (lambda: pack("{" + " " * (2**20 - 1) + "}"), "are allowed"),
    "a zip bomb's beginning": (lambda: b"PK\x03\x04" + bytes(100), "is not|claims|readable"),
    "a pickle": (lambda: b"\x80\x04\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.", "claims"),
    "a pickle in the header": (lambda: pack(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."), "not readable"),
    "a header that is no text": (lambda: pack(b"\xff\xfe{}" * 10), "not readable"),
    "a header that is a list": (lambda: pack("[1, 2]" * 1), "not readable"),
    "a header that is a number": (lambda: pack("12345678"), "not readable"),
    "a header followed by more": (lambda: pack('{"__metadata__": {}} {}'), "not readable"),
    "a deep header": (lambda: pack(nested(100_000)), "not readable"),
    "a very deep header": (lambda: pack('{"a":' * 60_000 + "1" + "}" * 60_000), "not readable"),
    "a header of many values": (lambda: pack("[" + "0," * 300_000 + "0]"), "not readable"),
    "NaN in the header": (lambda: one(GRAM).replace(b"[4]", b"NaN"), "not readable|cut|shape"),
    "Infinity in the header": (lambda: pack('{"__metadata__": {}, "a": Infinity}'), "not readable"),
    "a number beyond float64": (lambda: pack('{"__metadata__": {}, "a": 1e999}'), "not readable"),
    "an integer of 5,000 digits": (lambda: pack('{"a": ' + "9" * 5000 + "}"), "not readable"),
    "half a character": (_half, "not readable"),
    "an array twice": (lambda: _twice("array"), "not readable"),
    "an entry twice": (lambda: _twice("entry"), "not readable"),
    "entries twice": (lambda: _twice("metadata"), "not readable"),
    "entries that are no table": (lambda: build(["a"], {"gram": GRAM}), "not all text"),
    "entries that are no text": (lambda: build({"format": 1}, {"gram": GRAM}), "not all text"),
    "4,097 arrays": (_crowd, "4096 are allowed"),
    # --- the arrays' places
    "overlapping arrays": (lambda: _holes(-4), "overlap or leave gaps"),
    "a hole between arrays": (lambda: _holes(8), "overlap or leave gaps"),
    "a hole before the arrays": (lambda: one(GRAM, data_offsets=[8, 40]), "overlap or leave gaps|cut or padded"),
    "bytes after the arrays": (lambda: one(GRAM) + b"x", "cut or padded"),
    "a byte less": (lambda: one(GRAM)[:-1], "cut or padded"),
    "offsets the wrong way round": (lambda: one(GRAM, data_offsets=[32, 0]), "does not fill its place"),
    "three offsets": (lambda: one(GRAM, data_offsets=[0, 32, 32]), "shape or place"),
    "a negative offset": (lambda: one(GRAM, data_offsets=[-32, 0]), "shape or place"),
    "an offset that is true": (lambda: one(GRAM[:0], data_offsets=[False, False]), "shape or place"),
    "a fractional offset": (lambda: one(GRAM, data_offsets=[0.0, 32.0]), "shape or place"),
    "a length of 2^40": (lambda: one(GRAM, shape=[2**40]), "shape or place"),
    "lengths whose product wraps to 4": (lambda: one(GRAM, shape=[2**33, 2**33, 4]), "too large"),
    "an empty array with huge lengths": (lambda: one(GRAM[:0], shape=[0, 2**33, 2**33]), "too large"),
    "a negative length": (lambda: one(GRAM, shape=[-4]), "shape or place"),
    "a fractional length": (lambda: one(GRAM, shape=[4.0]), "shape or place"),
    "nine dimensions": (lambda: one(GRAM, shape=[4, *[1] * 8]), "shape or place"),
    "a thousand dimensions": (lambda: one(GRAM, shape=[4, *[1] * 1000]), "shape or place"),
    "a shape that is text": (lambda: one(GRAM, shape="4"), "shape or place"),
    "a shape of another size": (lambda: one(GRAM, shape=[3]), "does not fill its place"),
    "a wider type": (lambda: one(GRAM, dtype="F32"), "does not fill its place"),
    "an unknown type": (lambda: one(GRAM, dtype="BF16"), "of a type that is not allowed"),
    "a type of objects": (lambda: one(GRAM, dtype="O"), "of a type that is not allowed"),
    "a type that is a list": (lambda: one(GRAM, dtype=["I64"]), "of a type that is not allowed"),
    "one more field": (lambda: one(GRAM, strides=[8]), "a name or an entry"),
    "a field less": (lambda: one(GRAM).replace(b'"dtype": "I64", ', b" " * 16), "a name or an entry"),
    "an entry that is a list": (lambda: pack({"__metadata__": {}, "gram": [1]}), "a name or an entry"),
    "a path for a name": (lambda: build(parts()[0], {"../../etc/passwd": GRAM}), "a name or an entry"),
    "a name in capitals": (lambda: build(parts()[0], {"Gram": GRAM}), "a name or an entry"),
    "a name of 65 letters": (lambda: build(parts()[0], {"a" * 65: GRAM}), "a name or an entry"),
    "a name with a line's end": (lambda: build(parts()[0], {"gram\n": GRAM}), "a name or an entry"),
    "an empty name": (lambda: build(parts()[0], {"": GRAM}), "a name or an entry"),
    "NaN in an array": (lambda: one(np.array([0.0, np.nan])), "NaN or infinity"),
    "infinity in a half-width array": (lambda: one(np.array([np.inf], np.float16)), "NaN or infinity"),
    "a truth value of 2": (lambda: one(np.array([0, 2], np.uint8), dtype="BOOL"), "neither true nor false"),
    # --- the entries
    "no format": (lambda: entry(format=None), "not of format"),
    "a later format": (lambda: entry(format="fusionlearn/2"), "not of format"),
    "no kind": (lambda: entry(kind=None), "unknown kind"),
    "an unknown kind": (lambda: entry(kind="pickle"), "unknown kind"),
    "an update that calls itself a report": (lambda: entry(kind="report"), "no place in a report"),
    "a report that calls itself an update": (lambda: entry("report", kind="update"), "lacks 'guarantee'"),
    "no task": (lambda: entry(task=None), "lacks 'task'"),
    "a task in capitals": (lambda: entry(task=HEX.upper()), "not a digest"),
    "a task that is a path": (lambda: entry(task="../" * 21 + "x"), "not a digest"),
    "a task of other digits": (lambda: entry(task="١" * 64), "not a digest"),
    "a nonce that is none": (lambda: entry(nonce="12"), "not a digest"),
    "a replacement of nothing": (lambda: entry(replaces="x"), "not a digest"),
    "a guarantee nobody knows": (lambda: entry(guarantee='{"mode":"local"}'), "guarantee is not one"),
    "a guarantee with more": (lambda: entry(guarantee='{"mode":"none","epsilon":1}'), "guarantee is not one"),
    "a guarantee twice": (lambda: entry(guarantee='{"mode":"local","mode":"none"}'), "not readable"),
    "a deep guarantee": (lambda: entry(guarantee=nested(50_000)), "not readable"),
    "a guarantee of one huge number": (lambda: entry(guarantee="9" * 100_000), "not readable"),
    "a signature without signer": (lambda: entry(signature="0" * 128), "names no signer"),
    "a signer without signature": (lambda: entry(signer=rounds.public(1)), "signature is wrong"),
    "a signer that is no key": (lambda: entry(signer="zz", signature="0" * 128), "signature is wrong"),
    "a signer of order one": (lambda: entry(signer="01" + "00" * 31, signature="00" * 64), "signature is wrong"),
    "a signature of nothing": (lambda: entry(signer=rounds.public(1), signature=""), "signature is wrong"),
    "another's signature": (lambda: _signed("update-1", **{rounds.public(1): rounds.public(2)}), "signature is wrong"),
    "a signature in capitals": (
        lambda: _signed("task", **{rounds.round_of("ridge")["task"].signature: "AB" * 64}),
        "signature is wrong",
    ),
    "an altered entry": (lambda: _signed("task", wards="w4rds"), "signature is wrong"),
    "a critical entry of a later version": (lambda: entry(critical='["noise"]', noise="1"), "a later version"),
    "a critical entry to obey": (lambda: entry(critical='["\\u001b[2Jgone"]'), r"on '\?\[2Jgone'"),
    "critical entries that are no list": (lambda: entry(critical='"task"'), "not a list of names"),
    "critical entries that are no text": (lambda: entry(critical="[1]"), "not a list of names"),
    "an array for an entry that is there": (lambda: _long("task", HEX), "cannot stand for a header entry"),
    "an array for the signer": (lambda: _long("signer", HEX), "cannot stand for a header entry"),
    "an array for the kind": (lambda: _long("kind", "task"), "cannot stand for a header entry"),
    "a wide array for an entry": (lambda: _long("note", "abc", "uint16"), "cannot stand for a header entry"),
    "an entry of more than 1 MiB": (lambda: _long("note", "x" * (2**20 + 1)), "longer than the 1048576 bytes"),
    "members in another spelling": (lambda: _members(f'[ ["{HEX}",""]]'), "not a list of digests"),
    "members twice": (lambda: _members(f'[["{HEX}",""],["{HEX}",""]]'), "rising order"),
    "no members": (lambda: _members("[]"), "at least one"),
    "members that are numbers": (lambda: _members("[1,2]"), "not a list of digests"),
    "deep members": (lambda: _members(nested(10_000)), "not a list of digests"),
    "findings that are a list": (lambda: entry("report", findings="[]"), "not a table"),
    "findings with NaN": (lambda: entry("report", findings='{"a":NaN}'), "not readable"),
    "more entries in a report": (lambda: build(parts("report")[0], {"gram": GRAM}), "no place in a report"),
    "an array of no meaning in a task": (lambda: build(parts("task")[0], {"gram": GRAM}), "no place in a file"),
    # --- the task's settings
    "code for a method": (lambda: settings(method__name="os.system"), "no method is called"),
    "a module's path for a method": (lambda: settings(method__name="fusionlearn.cli:main"), "no method is called"),
    "a method of another revision": (lambda: settings(method__revision=99), "revision 99"),
    "an unknown setting": (lambda: settings(method__settings={"command": "rm"}), "has no setting"),
    "a setting of another type": (lambda: settings(method__settings={"confidence": "x"}), "setting 'confidence'"),
    "a method that is a list": (lambda: settings(method=[]), "keys name, revision, settings"),
    "code for an encoder": (lambda: settings(encoder__0__name="builtins.eval"), "no encoder is called"),
    "no encoder": (lambda: settings(encoder=[]), "at least one encoder"),
    "17 encoders": (
        lambda: settings(encoder=[{"name": "identity", "revision": 1, "settings": {}}] * 17),
        "list of at most 16",
    ),
    "2^40 random features": (
        lambda: settings(encoder=[{"name": "random_features", "revision": 1, "settings": {"dim": 2**40}}]),
        "dim|features|setting",
    ),
    "a vector of 2^60 numbers": (
        lambda: settings(schema__columns__0={"kind": "vector", "name": "v", "length": 2**60, "low": 0, "high": 1}),
        "1 to 1048576",
    ),
    "a column twice": (
        lambda: settings(schema__columns=[{"kind": "number", "name": "a", "low": 0, "high": 1}] * 2),
        "name of its own",
    ),
    "a column of unknown kind": (
        lambda: settings(schema__columns=[{"kind": "code", "name": "a"}]),
        "does not describe a valid file",
    ),
    "a column with a private attribute": (
        lambda: settings(schema__columns=[{"kind": "number", "name": "a", "__class__": "b"}]),
        "must be text|does not describe",
    ),
    "a range of text": (
        lambda: settings(schema__columns=[{"kind": "number", "name": "a", "low": "0", "high": 1}]),
        "must be a number",
    ),
    "an endless range": (
        lambda: settings(schema__columns=[{"kind": "number", "name": "a", "low": -1e308, "high": 1e308}]),
        "the scale is inf",
    ),
    "a name to obey": (lambda: settings(schema__columns__0__name="\x1b[2J"), "control characters"),
    "a task without a name": (lambda: entry("task", name=""), "needs a name"),
    "a name of 300 letters": (lambda: entry("task", name="n" * 300), "needs a name"),
    "records beyond counting": (lambda: entry("task", max_records=str(2**62)), "max_records"),
    "records that are a fraction": (lambda: entry("task", max_records="1e6"), "not a whole number"),
    "records that are true": (lambda: entry("task", max_records="true"), "not a whole number"),
    "no bytes": (lambda: entry("task", max_bytes="1"), "max_bytes is 1"),
    "bytes without end": (lambda: entry("task", max_bytes=str(2**60)), "max_bytes"),
    "clients that are no keys": (lambda: entry("task", clients='["me"]'), "not a list of public keys"),
    "no clients": (lambda: entry("task", clients="[]"), "at least one public key"),
    "a privacy nobody offers": (lambda: entry("task", privacy='{"mode":"two_servers"}'), "not available yet"),
    "a privacy of another kind": (lambda: entry("task", privacy='{"mode":["none"]}'), "not known|valid file"),
    "no privacy": (lambda: entry("task", privacy="{}"), "does not describe a valid file"),
}
