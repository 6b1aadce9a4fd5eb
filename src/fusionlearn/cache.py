"""Features a client computed once, kept on its own disk: a backbone over many images takes minutes, reading seconds.

An entry is a safetensors file named by the SHA-256 of everything it depends on: the encoder, its settings and prior
arrays, and the data itself. It can therefore never be out of date, and an interrupted run goes on where it stopped.
Entries lie in `features` under $FUSIONLEARN_CACHE (default: `fusionlearn` in the user's cache folder), readable by
this user alone; nothing here ever travels. They may be deleted at any time. When they take more than
$FUSIONLEARN_CACHE_BYTES (default 8 GB; 0 keeps none) the oldest go. A disk that is full or read-only costs time, not
the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Array, as_numpy
from fusionlearn.errors import SettingsError

FOLDER, LIMIT = "FUSIONLEARN_CACHE", "FUSIONLEARN_CACHE_BYTES"
MOST_BYTES = 8_000_000_000


def folder() -> Path:
    """Where features are kept: $FUSIONLEARN_CACHE/features, else under the user's cache folder."""
    chosen = os.environ.get(FOLDER)
    if chosen:
        return Path(chosen) / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusionlearn" / "features"


def limit() -> int:
    """The most bytes all entries may take. Errors: SettingsError when the variable holds no number of bytes."""
    told = os.environ.get(LIMIT, "").strip()
    if told and not (told.isascii() and told.isdigit()):
        raise SettingsError(f"{LIMIT} is set to something that is no number of bytes: correct it or unset it.")
    return int(told) if told else MOST_BYTES


def key(settings: str, *groups: Mapping[str, Array]) -> str:
    """The name of what is computed from these settings and named arrays: 64 hex digits."""
    digest = hashlib.sha256(f"fusionlearn features 1\n{len(settings)}\n{settings}".encode())
    for group in groups:
        digest.update(f"\ngroup {len(group)}".encode())
        for name in sorted(group):
            array = as_numpy(group[name])
            if array.dtype.kind == "O":  # texts: their bytes, and where each ends, rather than addresses in memory
                texts = [str(cell).encode("utf-8", "surrogatepass") for cell in array]
                ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
                digest.update(f"\n{len(name)} {name} texts {len(texts)}\n".encode() + ends.tobytes() + b"".join(texts))
                continue
            digest.update(f"\n{len(name)} {name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load(name: str) -> NDArray[Any] | None:
    """The features kept under that name; None when there are none, or the file is not whole."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder() / f"{name}.safetensors"
    try:
        found = load_file(path)["x"]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the oldest go first: this one was just of use
    return found


def store(name: str, features: Array) -> None:
    """Keep features under a name, whole or not at all. Without room or permission nothing is kept."""
    array = as_numpy(features)
    if array.nbytes > limit():
        return
    with contextlib.suppress(OSError):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder() / f"{name}.safetensors", array)
        _forget_oldest()


def _write(path: Path, array: NDArray[Any]) -> None:
    from safetensors.numpy import save

    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)  # readable by this user alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save({"x": np.ascontiguousarray(array)}))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _forget_oldest() -> None:
    entries = []
    for path in folder().glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process may have removed it
            told = path.stat()
            entries.append((told.st_mtime_ns, told.st_size, path))
    excess = sum(size for _, size, _ in entries) - limit()
    for _, size, path in sorted(entries):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
