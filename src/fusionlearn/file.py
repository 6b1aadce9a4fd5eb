"""Files: every noun as one safetensors file with a signed manifest. The format is specified in spec/FORMAT.md.

What is signed is a *manifest*, not the bytes: canonical JSON (RFC 8785) of the header without its signature, plus
each array's dtype, shape and SHA-256. The manifest's own SHA-256 is the file's *digest*, its name everywhere, so a
copy is recognised and a signature survives re-packing.

Every cap is checked before anything is parsed; nothing in a file names code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fusionlearn import encoder, keys, method
from fusionlearn.arrays import NAME, Arrays, as_numpy
from fusionlearn.errors import FileError, FusionlearnError, SettingsError, SignatureError
from fusionlearn.problem import (
    Category,
    ClassLabel,
    Column,
    Label,
    Number,
    NumberLabel,
    Schema,
    Text,
    TextLabel,
    Vector,
)
from fusionlearn.types import MAX_ENCODERS, Guarantee, Member, Model, Noun, Privacy, Report, Task, Total, Update

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = "fusionlearn/1"
MAX_HEADER = 2**20  # bytes of the safetensors header
MAX_ARRAYS = 4096
MAX_DIMENSIONS = 8
MAX_FILE = 2**34  # bytes, where the reader knows no tighter bound
MAX_MARKS = 2**18  # of { [ and , in one piece of JSON: what parsing it costs
LONG_ENTRY = 16 * 1024  # a header entry longer than this travels as a uint8 array
LONG_PREFIX = "header."  # … of this name
MAX_ENTRY = 2**20  # bytes of a header entry, however it travels
MAX_ENTRIES = {"members": 2**26, "findings": 2**24}  # … of those that grow with the number of clients
RESERVED = frozenset({"format", "kind", "signer", "signature", "critical"})  # these are never arrays
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
_SHORT = {name: short for short, name in DTYPES.items()}
KINDS: Mapping[str, type[Noun]] = {"task": Task, "update": Update, "total": Total, "model": Model, "report": Report}

N = TypeVar("N", bound=Noun)


# --- digest and signature -------------------------------------------------------------------------------------------


def manifest(noun: Noun) -> bytes:
    """What is signed: canonical JSON of the header without `signature`, and dtype, shape, SHA-256 of each array."""
    known = noun.__dict__.get("_manifest")
    if known is None:
        known = _manifest(*_parts(noun))
        noun.__dict__["_manifest"] = known  # nouns are frozen: computed once, kept beside the fields
    return cast(bytes, known)


def digest(noun: Noun) -> str:
    """SHA-256 of the manifest, in hex: the file's name everywhere."""
    return hashlib.sha256(manifest(noun)).hexdigest()


def sign(noun: N, key: Ed25519PrivateKey) -> N:
    """A copy signed with the key; an update loses its nonce, as its signer names it now."""
    fresh = {"nonce": ""} if isinstance(noun, Update) else {}
    named = dataclasses.replace(cast(Any, noun), signer=keys.public_hex(key), signature="", **fresh)
    signed = dataclasses.replace(named, signature=key.sign(manifest(named)).hex())
    signed.__dict__["_manifest"] = manifest(named)  # the signature is no part of it
    return cast(N, signed)


def verify(noun: Noun, place: str = "file") -> None:
    """Raise SignatureError unless the noun is signed and the signature is right."""
    if not noun.signer:
        raise SignatureError(f"{place} is not signed. Ask its maker to sign it, or allow it with --allow-unsigned.")
    known = noun.__dict__.get("_verified", False)  # by `from_bytes`, over the very manifest that is kept beside it
    if not known and not keys.verify_bytes(noun.signer, noun.signature, manifest(noun)):
        raise SignatureError(
            f"{place}: the signature is wrong: the file was altered after {keys.fingerprint(noun.signer)} signed it. "
            f"Ask for it again."
        )


def _manifest(metadata: Mapping[str, str], arrays: Arrays) -> bytes:
    listed = {
        name: {"dtype": _dtype_name(array), "shape": list(array.shape), "sha256": _sha256(array)}
        for name, array in arrays.items()
    }
    unsigned = {name: value for name, value in metadata.items() if name != "signature"}
    return canonical_json({"arrays": listed, "metadata": unsigned})


def canonical_json(value: Any) -> bytes:
    """RFC 8785 for strings, integers, lists and objects: keys in UTF-16 order, no spaces, UTF-8."""
    return _ENCODER.encode(_canonical(value)).encode()


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # writes keys in the order they have


def _canonical(value: Any) -> Any:
    """The same value, its keys in order; refused where it holds what a manifest may not."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        names = sorted(value)
        if not all(map(str.isascii, names)):  # else both orders are the same
            names.sort(key=lambda name: name.encode("utf-16-be"))
        return {name: _canonical(value[name]) for name in names}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if type(value) is not int or abs(value) >= 2**53:
        raise FileError("a manifest holds strings and integers below 2^53 only.")
    return value


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(_little(array).data).hexdigest()


def _little(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))


def _dtype_name(array: NDArray[Any]) -> str:
    short = _SHORT.get(array.dtype.name)  # whatever its byte order
    if short is not None:
        return short
    raise FileError(f"arrays of dtype {array.dtype} cannot travel: use one of {', '.join(DTYPES.values())}.")


# --- writing --------------------------------------------------------------------------------------------------------


def write(path: str | Path, noun: Noun) -> int:
    """Write the noun, whole or not at all; returns the number of bytes.

    The bytes go to a temporary name in the same folder, reach the disk, and only then take the name.
    """
    content = to_bytes(noun)
    with replacing(Path(path)) as file:
        file.write(content)
    return len(content)


def to_bytes(noun: Noun) -> bytes:
    """The file's content, the same whenever it is asked for. Errors: FileError if it could not be read.

    A safetensors file with the header as `__metadata__`. It is put together here: safetensors' own writer gives the
    entries of the header another order in every process, and a client that sends twice should send the same bytes.
    """
    metadata, arrays = _parts(noun)
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    chunks = []
    end = 0
    # Widest entries first: every array then begins at a multiple of its entries' size.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        header[name] = {
            "dtype": _dtype_name(array),
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        _check_values(name, array, metadata, "the file")
        chunks.append(_little(array).tobytes())
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = b"".join([len(text).to_bytes(8, "little"), text, *chunks])
    _layout(content, "the file")
    return content


def num_bytes(noun: Noun) -> int:
    """The bytes of a noun's arrays and header entries: a little less than its file has."""
    metadata, arrays = _parts(noun)
    return sum(array.nbytes for array in arrays.values()) + sum(
        len(name) + len(value.encode()) for name, value in metadata.items()
    )


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb", *, private: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """A file that takes its name only when the block ends well: interrupted, the old file stays whole.

    private  for its owner alone, whatever the user's umask says
    """
    try:
        if not path.parent.is_dir():
            raise FileError(f"cannot write {path}: the folder {path.parent} does not exist.")
        if path.is_dir():
            raise FileError(f"cannot write {path}: it is a folder.")
        if path.exists() and not path.is_file():  # taking the name of /dev/null leaves the machine without it
            raise FileError(f"cannot write {path}: it is not a plain file. Choose another name.")
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}.") from error
    except ValueError as error:
        raise FileError("cannot write: a file's name cannot hold a zero byte.") from error
    try:
        with os.fdopen(handle, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not private:
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        _forget(temporary)
        raise FileError(f"cannot write {path}: {error.strerror}.") from error
    except BaseException:
        _forget(temporary)
        raise
    _sync_folder(path.parent)


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


@functools.cache
def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- reading --------------------------------------------------------------------------------------------------------


def read(path: str | Path, kind: type[N] | None = None, *, max_bytes: int = MAX_FILE) -> N:
    """The noun in a file, its signature (if it has one) verified.

    kind       the class expected, such as Task; None for any
    max_bytes  refused unread beyond
    Errors: FileError for anything that is not a valid file, SignatureError for a wrong signature.
    """
    return from_bytes(read_bytes(Path(path), max_bytes), kind, place=str(path))


def read_bytes(path: Path, max_bytes: int = MAX_FILE) -> bytes:
    """A file's bytes, its size checked first."""
    try:
        if not path.is_file():
            raise FileError(f"there is no file {path}.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise FileError(f"{path} has {size} bytes, {max_bytes} are allowed. Is it the right file?")
            return file.read(size)  # not max_bytes: as many would be allocated
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}.") from error


def from_bytes(content: bytes, kind: type[N] | None = None, *, place: str = "file") -> N:
    """The noun in these bytes; see `read`."""
    metadata, arrays = _unpack(content, place)
    if metadata.get("format") != FORMAT:
        raise FileError(f"{place} is not of format {FORMAT}: it was made by another program or a later version.")
    name = metadata.get("kind", "")
    if name not in KINDS:
        raise FileError(f"{place} is of an unknown kind; there are {', '.join(KINDS)}.")
    if kind is not None and KINDS[name] is not kind:
        wanted = next(known for known, cls in KINDS.items() if cls is kind)
        article = "an" if name[0] in "aeiou" else "a"
        raise FileError(f"{place} is {article} {name}, but {'an' if wanted[0] in 'aeiou' else 'a'} {wanted} is needed.")
    content_listed = _manifest(metadata, arrays)
    if "signer" in metadata:
        if not keys.verify_bytes(metadata["signer"], metadata.get("signature", ""), content_listed):
            raise SignatureError(
                f"{place}: the signature is wrong, so the file was altered after it was signed. Ask for it again."
            )
    elif "signature" in metadata:
        raise SignatureError(f"{place} has a signature but names no signer. Ask for it again.")
    noun = _build(name, metadata, arrays, place)
    noun.__dict__["_parts"] = (metadata, arrays)  # as they came: another program may write the same header otherwise
    noun.__dict__["_manifest"] = content_listed
    noun.__dict__["_verified"] = "signer" in metadata
    return cast(N, noun)


def _unpack(content: bytes, place: str) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Header and arrays of a safetensors file, after checking every cap."""
    metadata, spans = _layout(content, place)
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, (dtype, shape, begin, end) in spans.items():
        count = (end - begin) // dtype.itemsize
        flat = np.frombuffer(content, dtype.newbyteorder("<"), count, start + begin) if count else np.empty(0, dtype)
        flat = flat.astype(dtype, copy=not flat.flags.aligned)  # in place, where another program's header allows it
        array = flat.reshape(shape)
        _check_values(name, array, metadata, place)
        array.flags.writeable = False  # what was verified is what is used
        arrays[name] = array
    return metadata, arrays


Span: TypeAlias = tuple[np.dtype[Any], list[int], int, int]  # dtype, shape, where the array begins and ends


def _check_values(name: str, array: NDArray[Any], metadata: Mapping[str, str], place: str) -> None:
    """Refuse NaN, infinity and arrays that only look like a header entry."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileError(f"{place}: array '{name}' holds NaN or infinity.")
    if array.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise FileError(f"{place}: array '{name}' holds bytes that are neither true nor false.")
    if name.startswith(LONG_PREFIX):
        entry = name.removeprefix(LONG_PREFIX)
        if array.dtype != np.uint8 or array.ndim != 1 or entry in metadata or entry in RESERVED:
            raise FileError(f"{place}: array '{name}' cannot stand for a header entry.")
        if array.size > _most_bytes(entry):
            raise FileError(f"{place}: header entry '{entry}' is longer than the {_most_bytes(entry)} bytes allowed.")


def _most_bytes(entry: str) -> int:
    return MAX_ENTRIES.get(entry, MAX_ENTRY)


def _layout(content: bytes, place: str) -> tuple[dict[str, str], dict[str, Span]]:
    """The header's entries and where the arrays lie, once every cap on header and arrays is checked."""
    header = _header(content, place)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileError(f"{place}: the header's entries are not all text.")
    if len(header) > MAX_ARRAYS:
        raise FileError(f"{place} has {len(header)} arrays, {MAX_ARRAYS} are allowed.")
    spans = {name: _span(name, entry, place) for name, entry in header.items()}
    start = 8 + int.from_bytes(content[:8], "little")
    end = 0
    for begin, stop in sorted(span[2:] for span in spans.values()):
        if begin != end:
            raise FileError(f"{place}: its arrays overlap or leave gaps.")
        end = stop
    if start + end != len(content):
        raise FileError(
            f"{place} holds {len(content) - start} bytes of arrays, its header says {end}: it was cut or padded."
        )
    return metadata, spans


def _header(content: bytes, place: str) -> dict[str, Any]:
    if len(content) < 10:
        raise FileError(
            f"{place} is too short to be a file of ours ({len(content)} bytes): it was cut or never written."
        )
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER:
        raise FileError(f"{place}: its header claims {length} bytes, {MAX_HEADER} are allowed. Is it a file of ours?")
    if 8 + length > len(content):
        raise FileError(f"{place} ends inside its header: it was cut.")
    try:
        header = _loads(content[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{place}: its header is not readable.") from error
    if not isinstance(header, dict):
        raise FileError(f"{place}: its header is not readable.")
    return header


def _loads(text: str, most: int = MAX_MARKS) -> Any:
    """JSON without repeated keys, infinite numbers or half characters; refused unparsed beyond `most` marks.

    Errors: ValueError, RecursionError.
    """
    if text.count("{") + text.count("[") + text.count(",") > most:
        raise ValueError("too many values")
    value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_refuse, parse_float=_finite)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # an escaped half of a surrogate pair is no character
    return value


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), -float("inf")):
        raise ValueError("a number is too large")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _span(name: str, entry: Any, place: str) -> Span:
    """Where an array lies, its entry checked."""
    if not NAME.fullmatch(name) or not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FileError(f"{place}: an array has a name or an entry that is not allowed.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FileError(f"{place}: array '{name}' is of a type that is not allowed.")
    if not _lengths(shape) or len(shape) > MAX_DIMENSIONS or not _lengths(offsets) or len(offsets) != 2:
        raise FileError(f"{place}: array '{name}' has a shape or place that is not allowed.")
    kind = np.dtype(DTYPES[dtype])
    item = kind.itemsize
    if item * math.prod(max(length, 1) for length in shape) > MAX_FILE:  # NumPy refuses such shapes, empty or not
        raise FileError(f"{place}: array '{name}' has a shape that is too large.")
    if item * math.prod(shape) != offsets[1] - offsets[0]:
        raise FileError(f"{place}: array '{name}' does not fill its place.")
    return kind, shape, offsets[0], offsets[1]


def _lengths(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MAX_FILE for n in value)


# --- nouns and their parts ------------------------------------------------------------------------------------------


def _parts(noun: Noun) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Header entries and arrays of a noun: what a file of it holds."""
    if "_parts" in noun.__dict__:
        return cast(tuple[dict[str, str], dict[str, NDArray[Any]]], noun.__dict__["_parts"])
    kind = next(name for name, cls in KINDS.items() if isinstance(noun, cls))
    header, arrays = _TO_PARTS[kind](noun)
    metadata = {name: value if isinstance(value, str) else _json(value) for name, value in header.items()}
    metadata = dict(noun.extras) | metadata
    result = {name: as_numpy(array) for name, array in arrays.items()}
    for name in [name for name, value in metadata.items() if len(value.encode()) > LONG_ENTRY]:
        result[LONG_PREFIX + name] = np.frombuffer(metadata.pop(name).encode(), np.uint8)
    metadata |= {"format": FORMAT, "kind": kind}
    if noun.signer:
        metadata |= {"signer": noun.signer}
    if noun.signature:
        metadata |= {"signature": noun.signature}
    return metadata, result


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        text.encode()  # half a surrogate pair, as a file's name can hold, is no text
        return text
    except (TypeError, ValueError) as error:
        raise SettingsError("settings must be text, numbers that are finite, lists and tables of them.") from error


def _build(kind: str, metadata: Mapping[str, str], arrays: Mapping[str, NDArray[Any]], place: str) -> Noun:
    """The noun that a header and arrays describe."""
    with _as_file_error(place):
        long = {
            name.removeprefix(LONG_PREFIX): array.tobytes().decode("utf-8")
            for name, array in arrays.items()
            if name.startswith(LONG_PREFIX)
        }
        own = {name: array for name, array in arrays.items() if not name.startswith(LONG_PREFIX)}
        reader = _Entries({**metadata, **long}, place)
        fields = _FROM_PARTS[kind](reader, own)
        known = reader.used | RESERVED
        if "critical" in metadata:
            critical = reader.json("critical")
            if not isinstance(critical, list) or not all(isinstance(name, str) for name in critical):
                raise FileError(f"{place}: header entry 'critical' is not a list of names.")
            unknown = [name for name in critical if name not in known]
            if unknown:
                name = _shown(unknown[0])
                raise FileError(f"{place} needs a later version of fusionlearn: it relies on '{name}'.")
        extras = {name: value for name, value in reader.entries.items() if name not in known or name == "critical"}
        signed = {"signer": metadata.get("signer", ""), "signature": metadata.get("signature", "")}
        noun: Any = KINDS[kind]
        built: Noun = noun(**fields, **signed, extras=extras)
        return built


@contextlib.contextmanager
def _as_file_error(place: str) -> Iterator[None]:
    """Whatever a hostile header makes the builders stumble over is one sentence."""
    try:
        yield
    except FileError:
        raise
    except FusionlearnError as error:
        raise FileError(f"{place}: {_shown(str(error))}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise FileError(f"{place}: its header does not describe a valid file of this kind.") from error


def _shown(text: str, most: int = 300) -> str:
    """A stranger's text as it may stand in a message: short, and nothing a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most]) + "…" * (len(text) > most)


class _Entries:
    """Header entries, remembering which were asked for."""

    def __init__(self, entries: Mapping[str, str], place: str) -> None:
        self.entries, self.place, self.used = entries, place, set[str]()

    def text(self, name: str, default: str | None = None) -> str:
        self.used.add(name)
        value = self.entries.get(name, default)
        if value is None:
            raise FileError(f"{self.place}: its header lacks '{name}'.")
        return value

    def json(self, name: str) -> Any:
        try:
            return _loads(self.text(name), _most_bytes(name) if name in MAX_ENTRIES else MAX_MARKS)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{self.place}: header entry '{name}' is not readable.") from error

    def digest(self, name: str, default: str | None = None) -> str:
        value = self.text(name, default)
        if value != default and not keys.is_signer(value):
            raise FileError(f"{self.place}: header entry '{name}' is not a digest of 64 hex digits.")
        return value


def _task_parts(task: Task) -> tuple[dict[str, Any], Arrays]:
    header = {
        "name": task.name,
        "schema": schema_to_json(task.schema),
        "encoder": encoder.chain_to_json(task.encoder),
        "method": method.to_json(task.method),
        "privacy": dataclasses.asdict(task.privacy),
        "clients": task.clients if task.clients == "open" else list(task.clients),
        "max_records": task.max_records,
        "max_bytes": task.max_bytes,
    }
    return header, {f"prior.{name}": array for name, array in task.prior.items()}


def _task_fields(header: _Entries, arrays: Arrays) -> dict[str, Any]:
    _only_prior(header, arrays)
    clients: Any = "open"
    if header.text("clients") != "open":
        listed = header.json("clients")
        if not isinstance(listed, list) or not all(isinstance(key, str) and keys.is_signer(key) for key in listed):
            raise FileError(f"{header.place}: 'clients' is not a list of public keys.")
        clients = tuple(listed)
    return {
        "name": header.text("name"),
        "schema": schema_from_json(header.json("schema")),
        "encoder": _chain(header),
        "method": method.from_json(_plugin(header.json("method"))),
        "privacy": Privacy(**header.json("privacy")),
        "clients": clients,
        "max_records": _whole(header, "max_records"),
        "max_bytes": _whole(header, "max_bytes"),
        "prior": _prior(arrays),
    }


def _chain(header: _Entries) -> encoder.Chain:
    parts = header.json("encoder")
    if not isinstance(parts, list) or len(parts) > MAX_ENCODERS:
        raise SettingsError(f"encoders are written as a list of at most {MAX_ENCODERS}.")
    return encoder.chain_from_json([_plugin(part) for part in parts])


def _plugin(value: Any) -> Any:
    """A plug-in as a file speaks of it; a key we do not know could change what the others mean."""
    return _only(value, "name", "revision", "settings")


def _only(value: Any, *allowed: str) -> Any:
    if not isinstance(value, dict) or not set(value) <= set(allowed):
        raise SettingsError(f"a table with the keys {', '.join(allowed)} is expected.")
    return value


def _only_prior(header: _Entries, arrays: Arrays) -> None:
    strange = [name for name in arrays if not name.startswith("prior.")]
    if strange:
        raise FileError(f"{header.place} holds array '{strange[0]}', which has no place in a file of this kind.")


def _prior(arrays: Arrays) -> dict[str, Any]:
    return {name.removeprefix("prior."): array for name, array in arrays.items() if name.startswith("prior.")}


def _whole(header: _Entries, name: str) -> int:
    value = header.json(name)
    if type(value) is not int:
        raise FileError(f"{header.place}: header entry '{name}' is not a whole number.")
    return value


def _guarantee(header: _Entries) -> Guarantee:
    value = header.json("guarantee")
    if value != {"mode": "none"}:
        raise FileError(f"{header.place}: its guarantee is not one this version knows.")
    return Guarantee(**value)


def _update_parts(update: Update) -> tuple[dict[str, Any], Arrays]:
    header = {"task": update.task, "guarantee": dataclasses.asdict(update.guarantee)}
    optional = {"replaces": update.replaces, "nonce": update.nonce}
    return header | {name: value for name, value in optional.items() if value}, update.arrays


def _update_fields(header: _Entries, arrays: Arrays) -> dict[str, Any]:
    return {
        "task": header.digest("task"),
        "guarantee": _guarantee(header),
        "replaces": header.digest("replaces", ""),
        "nonce": header.digest("nonce", ""),
        "arrays": arrays,
    }


def _total_parts(total: Total) -> tuple[dict[str, Any], Arrays]:
    header = {"task": total.task, "guarantee": dataclasses.asdict(total.guarantee), "members": _listed(total.members)}
    return header, total.arrays


def _total_fields(header: _Entries, arrays: Arrays) -> dict[str, Any]:
    return {
        "task": header.digest("task"),
        "guarantee": _guarantee(header),
        "members": _members(header),
        "arrays": arrays,
    }


def _listed(members: tuple[Member, ...]) -> list[list[str]]:
    return [list(member) for member in members]


def _members(header: _Entries) -> tuple[Member, ...]:
    """The members, which are written in one way only: no parser need be trusted with a list that may be long."""
    text = header.text("members")
    members = tuple(_MEMBER.findall(text))
    if _json(_listed(members)) != text:
        raise FileError(f"{header.place}: header entry 'members' is not a list of digests and signers.")
    return members


_MEMBER = re.compile(r'\["([0-9a-f]{64})","([0-9a-f]{64}|)"\]')


def _model_parts(model: Model) -> tuple[dict[str, Any], Arrays]:
    header = {
        "task": model.task,
        "name": model.name,
        "schema": schema_to_json(model.schema),
        "encoder": encoder.chain_to_json(model.encoder),
        "method": method.to_json(model.method),
        "max_records": model.max_records,
        "guarantee": dataclasses.asdict(model.guarantee),
    }
    return header, {**model.arrays, **{f"prior.{name}": array for name, array in model.prior.items()}}


def _model_fields(header: _Entries, arrays: Arrays) -> dict[str, Any]:
    return {
        "task": header.digest("task"),
        "name": header.text("name"),
        "schema": schema_from_json(header.json("schema")),
        "encoder": _chain(header),
        "method": method.from_json(_plugin(header.json("method"))),
        "max_records": _whole(header, "max_records"),
        "guarantee": _guarantee(header),
        "arrays": {name: array for name, array in arrays.items() if not name.startswith("prior.")},
        "prior": _prior(arrays),
    }


def _report_parts(report: Report) -> tuple[dict[str, Any], Arrays]:
    header = {
        "task": report.task,
        "model": report.model,
        "members": _listed(report.members),
        "findings": report.findings,
    }
    return header, {}


def _report_fields(header: _Entries, arrays: Arrays) -> dict[str, Any]:
    if arrays:
        raise FileError(f"{header.place} holds arrays, which have no place in a report.")
    if not isinstance(header.json("findings"), dict):
        raise FileError(f"{header.place}: header entry 'findings' is not a table.")
    return {
        "task": header.digest("task"),
        "model": header.digest("model"),
        "members": _members(header),
        "findings": header.json("findings"),
    }


_TO_PARTS: Mapping[str, Callable[[Any], tuple[dict[str, Any], Arrays]]] = {
    "task": _task_parts, "update": _update_parts, "total": _total_parts, "model": _model_parts, "report": _report_parts,
}  # fmt: skip
_FROM_PARTS: Mapping[str, Callable[[_Entries, Arrays], dict[str, Any]]] = {
    "task": _task_fields, "update": _update_fields, "total": _total_fields, "model": _model_fields,
    "report": _report_fields,
}  # fmt: skip

_COLUMN_KINDS: Mapping[str, type[Column]] = {
    "number": Number, "vector": Vector, "category": Category, "text": Text,
}  # fmt: skip


_LABEL_KINDS: Mapping[type[Label], str] = {NumberLabel: "number", TextLabel: "text"}


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """What a file says of a schema; columns are a list, because their order is the features' order."""
    kinds = {cls: kind for kind, cls in _COLUMN_KINDS.items()}
    columns = [{"name": name, "kind": kinds[type(column)], **_set(column)} for name, column in schema.columns.items()]
    label: dict[str, Any] = {"kind": _LABEL_KINDS.get(type(schema.label), "class"), **_set(schema.label)}
    if isinstance(schema.label, ClassLabel):
        groups = [{"name": name, "values": list(values)} for name, values in schema.label.classes]
        label = {"kind": "class", "column": schema.label.column, "groups": groups}
    return {"columns": columns, "label": label, "missing": schema.missing, "out_of_range": schema.out_of_range}


def _set(value: Any) -> dict[str, Any]:
    """Fields that say something, as JSON values."""
    fields = dataclasses.asdict(value)
    return {
        name: list(item) if isinstance(item, tuple) else item for name, item in fields.items() if item not in (None, "")
    }


def schema_from_json(value: Any) -> Schema:
    """The schema a file speaks of. Errors: SettingsError or those of malformed input, for the caller to name."""
    value = _only(value, "columns", "label", "missing", "out_of_range")
    columns: dict[str, Column] = {}
    for entry in value["columns"]:
        settings = {name: _typed(name, item) for name, item in entry.items() if name not in ("name", "kind")}
        name = _typed("name", entry["name"])
        if name in columns:
            raise SettingsError("every column needs a name of its own.")
        columns[name] = _COLUMN_KINDS[entry["kind"]](**settings)
    described = dict(value["label"])
    label: Label
    kind = described.pop("kind")
    if kind == "class":
        _only(described, "column", "groups")
        groups = tuple(
            (_typed("name", group["name"]), _typed("values", group["values"]))
            for group in (_only(group, "name", "values") for group in described["groups"])
        )
        label = ClassLabel(_typed("column", described["column"]), groups)
    elif kind not in _LABEL_KINDS.values():
        raise SettingsError("the label is of an unknown kind.")
    else:
        make: Any = NumberLabel if kind == "number" else TextLabel
        label = make(**{name: _typed(name, item) for name, item in described.items()})
    return Schema(columns, label, value["missing"], value["out_of_range"])


def _typed(name: str, value: Any) -> Any:
    """A column's setting, its type checked: what comes from a file is not believed."""
    if name in ("low", "high", "center", "scale"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"'{name}' of a column must be a number.")
        return float(value)
    if name == "length":
        if type(value) is not int or not 1 <= value <= 2**20:
            raise SettingsError("the length of a vector column may be 1 to 1048576.")
        return value
    if name == "longest":
        if type(value) is not int:
            raise SettingsError("'longest' of a text column must be a whole number.")
        return value
    if name == "values":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SettingsError("the values of a category are a list of texts.")
        return tuple(value)
    if not isinstance(value, str):
        raise SettingsError(f"'{name}' of a column must be text.")
    return value


def describe(noun: Noun) -> dict[str, Any]:
    """Kind, digest, signer, header entries and arrays (dtype, shape, bytes, SHA-256), for people to look at."""
    metadata, arrays = _parts(noun)
    entries = {name: value for name, value in metadata.items() if name not in ("signer", "signature", "kind")}
    entries |= {
        name.removeprefix(LONG_PREFIX): array.tobytes().decode("utf-8", "replace")
        for name, array in arrays.items()
        if name.startswith(LONG_PREFIX)
    }
    header = {name: _parsed(value) for name, value in sorted(entries.items())}
    listed = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape), "bytes": array.nbytes, "sha256": _sha256(array)}
        for name, array in arrays.items()
        if not name.startswith(LONG_PREFIX)
    }
    return {"kind": metadata["kind"], "digest": digest(noun), "signer": noun.signer, "header": header, "arrays": listed}


def _parsed(text: str) -> Any:
    """A header entry as JSON where it is a list or table, else as it is."""
    if text[:1] in "[{":
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text
