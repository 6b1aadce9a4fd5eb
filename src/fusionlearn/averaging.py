"""Weighted means of networks, from sums of integers.

Client k holds the weights w_k of a network, n_k rows and n_kc rows of class c. The fused weights are
Σ n_k w_k / Σ n_k; those of the head, row by row, Σ n_kc w_kc / Σ n_kc, because a client that never saw a class has
learned nothing about it but to say no. Batch statistics are means over rows too: of means Σ n_k μ_k, and of squares
Σ n_k (σ²_k + μ²_k), whose fused variance E[x²] − E[x]² holds what separates the clients from each other, which a mean
of variances loses.

    network.NAME  as the weights  int64   n · w, fixed point; of the head's rows n_c · w_c (or int32)
    count         ()              int64   rows
    class_count   (c,)            int64   rows of each class; not for regression
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, network
from fusionlearn.arrays import Arrays, ArraySpec
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import FixedPoint, Word
from fusionlearn.network import HEAD, MEAN, PREFIX, VARIANCE, Weights
from fusionlearn.problem import Problem

LARGEST: Mapping[Word, float] = {64: 2.0**16, 32: 2.0**7}  # of any weight or batch statistic, by bits of a sum
NEVER = -30.0  # the score of a class that no client holds


@dataclass(frozen=True)
class WeightSums:
    """The integers that stand for sums of one network's weights."""

    network: str
    problem: Problem
    word: Word = 64  # bits of a sum

    @property
    def grid(self) -> FixedPoint:
        return FixedPoint.for_sums(self.problem.max_records, self.largest, self.word)

    @property
    def largest(self) -> float:
        return LARGEST[self.word]

    def declare(self) -> dict[str, ArraySpec]:
        """What the sums of any clients look like."""
        top, dtype = self.grid.bound(self.problem.max_records, self.largest), self.grid.dtype
        shapes = network.shapes(self.network, self.problem)
        return declare_counts(self.problem) | {
            PREFIX + name: ArraySpec(dtype, shape, -top, top) for name, shape in shapes.items()
        }

    def encode(self, weights: Weights, counts: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """One client's weights and counts as a summary. Errors: SettingsError when a weight is out of bounds."""
        summed = {}
        for name, value in moments_of(weights).items():
            if arrays.largest(value) > self.largest:
                raise SettingsError(
                    f"training went astray: weights '{name}' passed {self.largest:g}. Lower the rate, or scale the "
                    f"columns."
                )
            summed[PREFIX + name] = self.grid.encode(value * _share(name, value, counts))
        return {**counts, **summed}

    def mean(self, total: Arrays, names: Iterable[str]) -> Weights:
        """The fused weights; rows of the head for classes that nobody holds never win."""
        counts = {name: total[name] for name in ("count", "class_count") if name in total}
        means = {}
        for name in names:
            value = self.grid.decode(total[PREFIX + name])
            means[name] = value / np.maximum(_share(name, value, counts), 1.0)
        return finished(means, counts)

    def check(self, summary: Arrays, place: str) -> None:
        """Refuse sums that no weights within bounds gave. Errors: UpdateError."""
        arrays.check(summary, self.declare(), place)
        check_counts(summary, place)
        top = float(self.grid.bound(int(summary["count"]), self.largest))
        for name in network.shapes(self.network, self.problem):
            if arrays.largest(summary[PREFIX + name]) > top:
                raise UpdateError(f"{place}: the weights '{name}' are larger than its number of rows allows.")


def declare_counts(problem: Problem) -> dict[str, ArraySpec]:
    """Rows, and rows of each class."""
    counts = {"count": ArraySpec("int64", (), 1, problem.max_records)}
    if problem.labels:
        counts["class_count"] = ArraySpec("int64", (problem.num_classes,), 0, problem.max_records)
    return counts


def counts_of(y: NDArray[Any], problem: Problem) -> dict[str, NDArray[np.int64]]:
    """A client's numbers of rows."""
    counts = {"count": np.asarray(len(y), np.int64)}
    if problem.labels:
        counts["class_count"] = np.bincount(y, minlength=problem.num_classes).astype(np.int64)
    return counts


def seen(y: NDArray[Any], problem: Problem) -> NDArray[np.bool_] | None:
    """(c,) which classes a client holds; None for regression."""
    return counts_of(y, problem)["class_count"] > 0 if problem.labels else None


def check_counts(summary: Arrays, place: str) -> None:
    """Errors: UpdateError when the classes' rows are not the rows."""
    if "class_count" in summary and int(summary["class_count"].sum()) != int(summary["count"]):
        raise UpdateError(f"{place}: the class counts do not sum to the rows; ask the client to redo it.")


def check_classes(total_count: NDArray[Any] | None) -> None:
    """Errors: UpdateError when fewer than two classes are there."""
    if total_count is not None and int((total_count > 0).sum()) < 2:
        raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")


def moments_of(weights: Weights) -> dict[str, NDArray[np.float64]]:
    """Weights with each variance replaced by the mean square, which can be averaged."""
    result = {name: value.astype(np.float64) for name, value in weights.items()}
    for name in weights:
        if name.endswith(VARIANCE):
            result[name] = result[name] + result[name.removesuffix(VARIANCE) + MEAN] ** 2
    return result


def finished(means: Mapping[str, NDArray[np.float64]], counts: Mapping[str, NDArray[np.int64]]) -> Weights:
    """Averaged moments as weights again: mean squares become variances, absent classes lose."""
    result = {name: np.array(value) for name, value in means.items()}
    for name in means:
        if name.endswith(VARIANCE):
            result[name] = np.maximum(means[name] - means[name.removesuffix(VARIANCE) + MEAN] ** 2, 0.0)
    weights = {name: value.astype(np.float32) for name, value in result.items()}
    return without_absent(weights, counts["class_count"] > 0) if "class_count" in counts else weights


def without_absent(weights: Weights, held: NDArray[np.bool_] | None) -> Weights:
    """A network whose head never answers a class that nobody holds; held (c,), None for regression."""
    result = {name: np.array(value) for name, value in weights.items()}
    if held is not None:
        result[HEAD + "weight"][~held] = 0.0
        if HEAD + "bias" in result:
            result[HEAD + "bias"][~held] = NEVER
    return result


def mean_of(
    students: Sequence[Weights], counts: Sequence[Mapping[str, NDArray[np.int64]]]
) -> tuple[Weights, dict[str, NDArray[np.int64]]]:
    """The weighted mean of separate networks, and the counts of all clients together."""
    total = {name: np.asarray(sum(part[name] for part in counts)) for name in counts[0]}
    parts = [moments_of(student) for student in students]
    means = {}
    for name, value in parts[0].items():
        summed = sum(part[name] * _share(name, value, count) for part, count in zip(parts, counts, strict=True))
        means[name] = np.asarray(summed) / np.maximum(_share(name, value, total), 1.0)
    return finished(means, total), total


def _share(name: str, value: NDArray[Any], counts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """What weights are multiplied by: the rows, or for the head the rows of each class, as a column."""
    if not name.startswith(HEAD) or "class_count" not in counts:
        return np.asarray(counts["count"], np.float64)
    return counts["class_count"].astype(np.float64).reshape(-1, *[1] * (value.ndim - 1))
