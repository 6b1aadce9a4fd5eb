"""Updates that a fusion needs all at once, kept on disk: methods that are not additive, with more clients than memory.

Arrays lie in unnamed temporary files, mapped into memory: the system writes them out and fetches them as needed, so
they take room on disk (TMPDIR says which) rather than in memory.
"""

from __future__ import annotations

import mmap
import tempfile
from typing import Any

import numpy as np

from fusionlearn.arrays import Arrays

CHUNK = 2**26  # bytes of a file: few maps, for a system allows some tens of thousands
ALIGN = 64  # bytes at which arrays begin


class Spool:
    """Takes arrays and gives the same back, on disk once those before fill `room` bytes of memory."""

    def __init__(self, room: int = 2**28) -> None:
        self.room, self.taken = room, 0
        self._map: mmap.mmap | None = None
        self._free = self._place = 0

    def keep(self, arrays: Arrays) -> dict[str, Any]:
        """The same names and values, read-only."""
        self.taken += sum(array.nbytes for array in arrays.values())
        if self.taken <= self.room:
            return dict(arrays)
        return {name: self._on_disk(np.asarray(array)) for name, array in arrays.items()}

    def _on_disk(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.nbytes == 0:
            return array
        size = -(-array.nbytes // ALIGN) * ALIGN
        if size > self._free:
            self._begin(max(CHUNK, size))
        assert self._map is not None
        view = np.frombuffer(self._map, array.dtype, array.size, self._place).reshape(array.shape)
        view[...] = array
        view.flags.writeable = False
        self._place, self._free = self._place + size, self._free - size
        return view

    def _begin(self, length: int) -> None:
        """Another file. The one before is let go of from memory, and lives as long as its arrays do."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.flush()
            self._map.madvise(mmap.MADV_DONTNEED)
        with tempfile.TemporaryFile() as file:
            file.truncate(length)
            self._map = mmap.mmap(file.fileno(), length)
        self._place, self._free = 0, length
