"""How often short rows of numbers occur: counted, merged, and coded compactly to travel.

Rows are sorted as in a dictionary, so a row mostly begins like the one before it, and only what differs travels:

    NAME.shared  (n,)      uint8   entries a row has in common with the one before it, from its first on
    NAME.length  (n,)      uint8   entries of the row up to its last one that is not 0
    NAME.rest    (total,)  uint16  the entries of every row from `shared` to `length`, one row after another
    NAME.count   (n,)      uint32  how often it occurs, 1 or more
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Arrays, ArraySpec, UpTo
from fusionlearn.errors import UpdateError

PARTS = ("shared", "length", "rest", "count")
MOST = 2**31 - 1  # the largest count: two of them fit in one number of 64 bits

Rows = NDArray[np.uint16]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Distinct rows in ascending order, and how often each occurs."""

    rows: Rows  # (n, width); a row shorter than that ends with zeros
    count: Counts  # (n,)

    def kept(self, where: NDArray[Any]) -> Table:
        """Some of its rows."""
        return Table(self.rows[where], self.count[where])

    def capped(self, most: int) -> Table:
        """The rows that occur most often, `most` of them; among equals the first."""
        if len(self.count) <= most:
            return self
        order = np.argsort(-self.count, kind="stable")[:most]
        return self.kept(np.sort(order))


def empty(width: int) -> Table:
    """A table without rows."""
    return Table(np.zeros((0, width), np.uint16), np.zeros(0, np.int64))


def tally(rows: Rows, count: Counts | None = None) -> Table:
    """The table of rows (n, width) in any order, each as often as `count` says, or once."""
    columns = words(rows)
    order = np.lexsort(columns.T[::-1]) if len(rows) else np.zeros(0, np.int64)
    columns = columns[order]
    first = np.ones(len(rows), bool)
    first[1:] = (columns[1:] != columns[:-1]).any(axis=1)
    starts = np.flatnonzero(first)
    each = np.ones(len(rows), np.int64) if count is None else np.asarray(count, np.int64)[order]
    summed = np.add.reduceat(each, starts) if len(starts) else np.zeros(0, np.int64)
    return Table(rows[order[starts]], summed)


def words(rows: Rows) -> NDArray[np.uint64]:
    """Four entries in one number, (n, ⌈width / 4⌉), so that rows compare as these do, from left to right."""
    padded = np.zeros((len(rows), -(-rows.shape[1] // 4) * 4), ">u2")
    padded[:, : rows.shape[1]] = rows
    return padded.view(">u8").astype(np.uint64)


def merged(tables: Sequence[Table]) -> Table:
    """One table, its counts the sums."""
    if len(tables) == 1:
        return tables[0]
    return tally(np.concatenate([table.rows for table in tables]), np.concatenate([table.count for table in tables]))


def declare(name: str, width: int, size: int, most: int) -> dict[str, ArraySpec]:
    """What a coded table of at most `most` rows of `width` numbers below `size` looks like."""
    return {
        f"{name}.shared": ArraySpec("uint8", (UpTo(most),), 0, width - 1),
        f"{name}.length": ArraySpec("uint8", (UpTo(most),), 1, width),
        f"{name}.rest": ArraySpec("uint16", (UpTo(most * width),), 0, size - 1),
        f"{name}.count": ArraySpec("uint32", (UpTo(most),), 1, MOST),
    }


def encode(name: str, table: Table) -> dict[str, NDArray[Any]]:
    """The arrays that travel."""
    rows = table.rows
    width = rows.shape[1]
    same = np.zeros(rows.shape, bool)
    same[1:] = rows[1:] == rows[:-1]
    shared = np.logical_and.accumulate(same, axis=1).sum(axis=1)
    length = width - (rows[:, ::-1] != 0).argmax(axis=1)
    at = np.arange(width)
    inside = (at >= shared[:, None]) & (at < length[:, None])
    return {
        f"{name}.shared": shared.astype(np.uint8),
        f"{name}.length": length.astype(np.uint8),
        f"{name}.rest": rows[inside].astype(np.uint16),
        f"{name}.count": np.minimum(table.count, MOST).astype(np.uint32),
    }


def decode(name: str, arrays: Arrays, width: int, place: str) -> Table:
    """The table that was coded. Errors: UpdateError when the arrays are not those of sorted, distinct rows."""
    shared, length, rest, count = (np.asarray(arrays[f"{name}.{part}"]) for part in PARTS)
    shared, length = shared.astype(np.int64), length.astype(np.int64)
    if not len(shared) == len(length) == len(count) or int((length - shared).sum()) != len(rest):
        raise UpdateError(f"{place}: the arrays of '{name}' have lengths that do not fit. Ask the client to redo it.")
    if len(shared) and (shared[0] != 0 or (length <= shared).any() or length.max() > width):
        raise UpdateError(f"{place}: '{name}' holds rows that end before they begin. Ask the client to redo it.")
    at = np.arange(width)
    inside = (at >= shared[:, None]) & (at < length[:, None])
    rows = np.zeros((len(shared), width), np.uint16)
    rows[inside] = rest
    for column in range(width):  # what is shared was last written in some row before
        own = np.where(shared <= column, np.arange(len(rows)), 0)
        rows[:, column] = rows[np.maximum.accumulate(own), column]
    keys = words(rows)
    if not _ascending(keys):
        raise UpdateError(f"{place}: '{name}' holds rows that are not in ascending order. Ask the client to redo it.")
    return Table(rows, count.astype(np.int64))


def _ascending(keys: NDArray[np.uint64]) -> bool:
    """Whether each row is greater than the one before it."""
    above = np.zeros(max(len(keys) - 1, 0), bool)
    for column in keys.T[::-1]:
        above = (column[1:] > column[:-1]) | ((column[1:] == column[:-1]) & above)
    return bool(above.all())
