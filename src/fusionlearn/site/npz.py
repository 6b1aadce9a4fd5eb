"""Columns saved with numpy.savez: streamed from the archive, never unpickled, never larger in memory than a batch.

An array is read through the archive's own decompression as far as its header says and no further, so a small file that
unpacks to terabytes costs no memory.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fusionlearn.site.cells import Cells
from fusionlearn.site.table import Batch, broken

BATCH = 2**23  # bytes of one column held at a time
WIDEST_ROW = 2**20  # bytes of one row of one column: 65,536 float64 numbers take half of it
LARGEST_TURNED = 2**28  # bytes of an array in Fortran order, which cannot be read by rows
MOST_MEMBERS = 2**16
KINDS = "fiubUSM"
LAST_CHARACTER = 0x10FFFF  # of Unicode
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Header:
    """What an array's own header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    turned: bool  # Fortran order

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])


class NpzTable:
    """An .npz file: one array for each column, rows along the first axis. Errors: DataError."""

    def __init__(self, path: Path) -> None:
        self.path, self.fraction, self.takes_numbers = path, 0.0, False
        with self._archive() as archive:
            members = archive.namelist()
        if len(members) > MOST_MEMBERS:
            raise broken(path, f"holds more than {MOST_MEMBERS} arrays")
        self.names = tuple(name.removesuffix(".npy") for name in members)
        if not members:
            raise broken(path, "is empty: it holds no arrays", "save the columns by name with numpy.savez")

    @contextlib.contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except BROKEN:
            hint = "write it again with numpy.savez"
            raise broken(self.path, "is not a whole npz file: it is cut, altered or of another kind", hint) from None

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """All rows in order; see `Table`."""
        if not wanted:
            return
        with self._archive() as archive, contextlib.ExitStack() as stack:
            columns: dict[str, _Rows] = {}
            for name in dict.fromkeys(wanted):
                member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
                if archive.getinfo(member).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise broken(self.path, f"column '{name}' is packed in a way NumPy does not write")
                stream = stack.enter_context(archive.open(member))
                columns[name] = _Rows(stream, self._header(name, stream))
            rows = self._length({name: column.header for name, column in columns.items()})
            size = max(1, min(2**16, BATCH // max(1, *(column.header.row_bytes for column in columns.values()), 1)))
            for start in range(0, rows, size):
                count = min(size, rows - start)
                batch: dict[str, Cells] = {name: column.take(count) for name, column in columns.items()}
                self.fraction = (start + count) / rows
                yield Batch(batch, np.arange(start + 1, start + count + 1))

    def _header(self, name: str, stream: IO[bytes]) -> _Header:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise broken(self.path, f"column '{name}' is written in a version of npy that is not known")
        shape, turned, dtype = read(stream)
        if dtype.hasobject:
            raise broken(
                self.path, f"column '{name}' holds Python objects, which are never loaded", "save plain arrays"
            )
        header = _Header(shape, dtype, turned and len(shape) > 1)
        if dtype.kind not in KINDS or dtype.names or not shape:
            raise broken(self.path, f"column '{name}' is not one array of numbers, texts or dates")
        if header.row_bytes > WIDEST_ROW:
            raise broken(self.path, f"column '{name}' has rows of {header.row_bytes} bytes, {WIDEST_ROW} are the most")
        if header.turned and header.row_bytes * shape[0] > LARGEST_TURNED:
            raise broken(self.path, f"column '{name}' is in Fortran order", "save numpy.ascontiguousarray of it")
        return header

    def _length(self, headers: dict[str, _Header]) -> int:
        lengths = {name: header.shape[0] for name, header in headers.items()}
        first = next(iter(lengths))
        for name, length in lengths.items():
            if length != lengths[first]:
                told = f"column '{name}' has {length} rows, '{first}' has {lengths[first]}"
                raise broken(self.path, told, "save columns of one length")
        return lengths[first]


class _Rows:
    """An array that is read from the archive by rows, or held whole where it lies in Fortran order."""

    def __init__(self, stream: IO[bytes], header: _Header) -> None:
        self.stream, self.header, self.done = stream, header, 0
        self.whole: NDArray[Any] | None = None
        if header.turned:
            data = _exactly(stream, header.row_bytes * header.shape[0])
            self.whole = _safe(np.frombuffer(data, header.dtype)).reshape(header.shape[::-1]).T

    def take(self, count: int) -> NDArray[Any]:
        """The next `count` rows."""
        self.done += count
        if self.whole is not None:
            return self.whole[self.done - count : self.done]
        data = _exactly(self.stream, count * self.header.row_bytes)
        return _safe(np.frombuffer(data, self.header.dtype)).reshape(count, *self.header.shape[1:])


def _safe(array: NDArray[Any]) -> NDArray[Any]:
    """The array, dates as days. Errors: ValueError, OverflowError for texts and dates there are not."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        points = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if points.max() > LAST_CHARACTER:
            raise ValueError
    return array.astype("datetime64[D]") if array.dtype.kind == "M" else array


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
