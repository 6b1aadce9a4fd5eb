"""Named arrays, the only payload there is, and what may be promised about them.

`Arrays` travel; `Data` stay at home. Both are mappings from a name to an array of any library that follows the
array API standard (NumPy, torch, …); files always hold NumPy arrays.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import UpdateError

Array: TypeAlias = Any  # what `array_api_compat.array_namespace` accepts
Arrays: TypeAlias = Mapping[str, Array]
Data: TypeAlias = Mapping[str, Array]  # columns sharing one leading axis: one row a record

NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")  # names of arrays, in files too
# No entry of a fixed-point sum passes these, so adding two never overflows.
INTEGER_LIMITS = {np.dtype(np.int64): 2**62, np.dtype(np.int32): 2**30}


@dataclass(frozen=True)
class UpTo:
    """A length along one axis that may be anything from 0 to `most` (trees, for one, vary in size)."""

    most: int


@dataclass(frozen=True)
class ArraySpec:
    """What a method declares about one array of its update, before any data is seen."""

    dtype: str  # NumPy's name: "int64", "float64", …
    shape: tuple[int | UpTo, ...]
    low: float | None = None  # every entry is >= low
    high: float | None = None  # every entry is <= high

    @property
    def max_bytes(self) -> int:
        """The most bytes such an array takes."""
        size = np.dtype(self.dtype).itemsize
        for length in self.shape:
            size *= length.most if isinstance(length, UpTo) else length
        return size

    def fault(self, array: NDArray[Any]) -> str | None:
        """What is wrong with `array`, as a clause, or None."""
        if str(array.dtype) != self.dtype:
            return f"has dtype {array.dtype}, the task says {self.dtype}"
        fits = len(array.shape) == len(self.shape) and all(
            have <= want.most if isinstance(want, UpTo) else have == want
            for have, want in zip(array.shape, self.shape, strict=True)
        )
        if not fits:
            return f"is {_shape(array.shape)}, the task says {_shape(self.shape)}"
        if array.size == 0:
            return None
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return "holds NaN or infinity"
        if self.low is not None and array.min() < self.low:
            return f"holds entries below {self.low:g}, the least the task allows"
        if self.high is not None and array.max() > self.high:
            return f"holds entries above {self.high:g}, the most the task allows"
        return None


def _shape(shape: tuple[Any, ...]) -> str:
    lengths = [f"≤{n.most}" if isinstance(n, UpTo) else str(n) for n in shape]
    return "(" + ", ".join(lengths) + ("," if len(lengths) == 1 else "") + ")"


def check(arrays: Arrays, specs: Mapping[str, ArraySpec], place: str) -> None:
    """Raise UpdateError unless `arrays` are exactly those that `specs` declare."""
    missing, extra = sorted(set(specs) - set(arrays)), sorted(set(arrays) - set(specs))
    if missing or extra:
        told = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(extra)}"] * bool(extra)
        raise UpdateError(f"{place} {' and '.join(told)}: the task's method declares {', '.join(sorted(specs))}.")
    for name, spec in specs.items():
        fault = spec.fault(arrays[name])
        if fault:
            raise UpdateError(f"{place}: array '{name}' {fault}. Was it made with an older task file?")


def add(left: Arrays, right: Arrays) -> dict[str, NDArray[Any]]:
    """The sum, name by name, of integer arrays; refused where it could overflow.

    Errors: UpdateError when the names, shapes or dtypes differ, or an entry passes 2^62.
    """
    return _combine(left, right, np.add)


def total(summaries: Sequence[Arrays]) -> Arrays:
    """The sum of some clients' summaries, one at least. Errors: as `add`."""
    return functools.reduce(add, summaries)


def subtract(left: Arrays, right: Arrays) -> dict[str, NDArray[Any]]:
    """The difference, name by name: the exact inverse of `add`."""
    return _combine(left, right, np.subtract)


def largest(array: NDArray[Any]) -> Any:
    """The size of the largest entry, whatever its sign, as a Python number; 0 of none."""
    return max(array.max(initial=0).item(), -array.min(initial=0).item())


def _combine(left: Arrays, right: Arrays, operation: np.ufunc) -> dict[str, NDArray[Any]]:
    if set(left) != set(right):
        raise UpdateError(f"cannot add {sorted(left)} and {sorted(right)}: the arrays have different names.")
    result = {}
    for name in left:
        a, b = left[name], right[name]
        limit = INTEGER_LIMITS.get(a.dtype)
        if limit is None or a.dtype != b.dtype or a.shape != b.shape:
            raise UpdateError(f"array '{name}': only arrays of one kind of integers and one shape can be added.")
        for side in (a, b):
            if largest(side) > limit:
                raise UpdateError(f"array '{name}': the sum would overflow; are there more records than max_records?")
        result[name] = np.asarray(operation(a, b))
    return result


def as_numpy(array: Array) -> NDArray[Any]:
    """A contiguous NumPy array with the same content, from whichever library and device it was on."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    return np.asarray(array, order="C")


def num_rows(data: Data) -> int:
    """The length of the leading axis that all columns share."""
    return int(next(iter(data.values())).shape[0]) if data else 0
