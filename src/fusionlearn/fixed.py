"""Fixed point: sums of real numbers as integers, so that order, grouping and removal change nothing.

A floating sum depends on the order of its terms; an integer sum does not. Every sum over records therefore leaves
a client as int64 with a public number of fraction bits,

    q = 62 - ceil(log2(max_records · max_entry)),

chosen so that the sum over *all* clients stays below 2^62. Rounding happens once for each block of rows, and the
blocks are cut at public places, so the same rows give the same integers with any number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Array
from fusionlearn.errors import SettingsError

Word: TypeAlias = Literal[64, 32]

FEWEST_BITS = {64: 8, 32: 0}  # fraction bits; a word of 32 is chosen to save bytes, and rounds to ones if it must
# Steps of the grid up to which a spread is taken for rounding. Words of 64 bits promise the same model for any split;
# words of 32 bits, whose steps are large, do not.
FAINT = {64: 2**16, 32: 2**4}
MOST_BITS = 50  # beyond float64's own precision there is nothing left to keep
TILE = 64  # rows and columns of a matrix mirrored at a time: 32 KiB of float64


@dataclass(frozen=True)
class FixedPoint:
    """Integers that stand for multiples of 2^-bits."""

    bits: int  # fraction bits
    word: Word = 64  # bits of an integer

    @classmethod
    def for_sums(cls, max_records: int, max_entry: float, word: Word = 64) -> FixedPoint:
        """The finest grid on which a sum of `max_records` entries of size ≤ `max_entry` stays below 2^(word - 2)."""
        bits = word - 2 - math.ceil(math.log2(max_records * max(max_entry, 2.0**-20)))
        if bits < FEWEST_BITS[word]:
            raise SettingsError(
                f"sums over {max_records} records with entries up to {max_entry:g} leave {bits} fraction bits of "
                f"{word}, {FEWEST_BITS[word]} are needed: declare narrower ranges, a larger scale, or a smaller "
                f"max_records."
            )
        return cls(min(bits, MOST_BITS), word)

    @property
    def faint(self) -> float:
        """A column whose squares about its mean sum to no more than this is constant: the rest is rounding."""
        return FAINT[self.word] * 2.0**-self.bits

    @property
    def dtype(self) -> str:
        """NumPy's name of the integers."""
        return f"int{self.word}"

    def encode(self, values: Array) -> Array:
        """Round to the grid: float array → array of integers of the same shape and library."""
        scaled = values * 2.0**self.bits
        if isinstance(scaled, np.ndarray):
            return np.rint(scaled, out=scaled).astype(self.dtype)  # one temporary less than below: these are large
        xp = array_api_compat.array_namespace(values)
        return xp.astype(xp.round(scaled), getattr(xp, self.dtype))

    def decode(self, integers: NDArray[Any]) -> NDArray[np.float64]:
        """The real numbers the integers stand for."""
        values = np.asarray(integers.astype(np.float64))
        return np.ldexp(values, -self.bits, out=values)

    def bound(self, max_records: int, max_entry: float) -> float:
        """The largest integer a valid sum can hold."""
        return math.ceil(max_records * max_entry * 2.0**self.bits) + max_records


def sum_blocks(num_rows: int, width: int, block: Callable[[slice], dict[str, Array]]) -> dict[str, Array]:
    """Σ block(rows) over consecutive blocks of rows, each block in one thread with one BLAS thread.

    `block` maps a slice of rows to named arrays of integers. `width` is the number of columns of the widest matrix it
    multiplies: with `num_rows` it alone decides where blocks are cut, so the result does not depend on threads.
    """
    length = block_rows(width)
    blocks = [slice(start, min(start + length, num_rows)) for start in range(0, num_rows, length)] or [slice(0, 0)]

    def some(part: list[slice]) -> dict[str, Array]:
        total = block(part[0])
        for rows in part[1:]:
            more = block(rows)
            total = {name: total[name] + more[name] for name in total}
        return total

    with one_blas_thread() as threads:
        workers = min(threads, len(blocks))
        if workers == 1:
            return some(blocks)
        from concurrent.futures import ThreadPoolExecutor  # 5 ms, spent only where it is needed

        with ThreadPoolExecutor(workers) as pool:
            totals = list(pool.map(some, (blocks[i::workers] for i in range(workers))))
    first, *others = totals
    for other in others:
        first = {name: first[name] + other[name] for name in first}
    return first


def block_rows(width: int) -> int:
    """Rows a block: a power of two, about 32 MiB of float64 of that width, between 256 and 65,536."""
    return int(min(65_536, max(256, 2 ** int(math.log2(2**22 / max(width, 1))))))


@contextlib.contextmanager
def one_blas_thread() -> Iterator[int]:
    """Within the block every BLAS call runs on one thread; yields how many threads BLAS had been given before.

    One thread, because a threaded product may round differently with each number of threads, and the digest of a
    model must not depend on how a machine is set up.
    """
    controller = _controller()
    threads = max((lib["num_threads"] for lib in controller.info() if lib["user_api"] == "blas"), default=1)
    with controller.limit(limits=1, user_api="blas"):
        yield threads


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # finding the loaded libraries takes a millisecond: do it once

    return ThreadpoolController()


@functools.lru_cache(maxsize=4)
def upper_triangle(size: int) -> NDArray[np.int64]:
    """Flat indices of the upper triangle of a (size, size) matrix, row by row, diagonal included."""
    rows, columns = np.triu_indices(size)
    return np.asarray(rows * size + columns, dtype=np.int64)


def pack(matrix: Array) -> Array:
    """(m, m) symmetric → (m(m+1)/2,): the upper triangle, row by row."""
    xp = array_api_compat.array_namespace(matrix)
    if isinstance(matrix, np.ndarray):
        return np.concatenate([row[i:] for i, row in enumerate(matrix)])
    indices = xp.asarray(upper_triangle(int(matrix.shape[0])), device=array_api_compat.device(matrix))
    return xp.take(xp.reshape(matrix, (-1,)), indices, axis=0)


@functools.lru_cache(maxsize=16)
def _mirrored(size: int) -> NDArray[np.int64]:
    """Where each entry of a small symmetric matrix lies among the packed ones."""
    where = np.empty((size, size), np.int64)
    upper = np.triu_indices(size)
    where[upper] = where.T[upper] = np.arange(len(upper[0]))
    return where


def unpack(packed: NDArray[Any]) -> NDArray[Any]:
    """(m(m+1)/2,) → (m, m) symmetric: the inverse of `pack`."""
    size = (math.isqrt(8 * len(packed) + 1) - 1) // 2
    if size <= 2 * TILE:
        return np.asarray(packed[_mirrored(size)])
    matrix = np.empty((size, size), packed.dtype)
    start = 0
    for i, row in enumerate(matrix):
        row[i:] = packed[start : start + size - i]
        start += size - i
    # The other triangle tile by tile: a tile and its mirror image stay in the cache together.
    for i in range(0, size, TILE):
        upper = matrix[i : i + TILE]
        own = upper[:, i : i + TILE]
        np.copyto(own, own.T.copy(), where=np.tri(len(own), k=-1, dtype=np.bool_))
        for j in range(i + TILE, size, TILE):
            matrix[j : j + TILE, i : i + TILE] = upper[:, j : j + TILE].T
    return matrix
