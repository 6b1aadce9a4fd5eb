"""How many features fit into an upload: what a task with `max_bytes` may ask of its last encoder.

The size of an update is public, known from the method and the number of features before any data is seen. So a limit
is met or refused when the task is made, never at a client.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fusionlearn.arrays import Arrays
from fusionlearn.method import Method
from fusionlearn.problem import Problem

MOST = 65_536  # features


def declared_bytes(method: Method, problem: Problem, prior: Arrays) -> int:
    """The most bytes the arrays of an update take."""
    return sum(spec.max_bytes for spec in method.declare(problem, prior).values())


def narrowed(problem: Problem, num_features: int) -> Problem:
    """The same question about so many features, each as large as the largest may be."""
    names = tuple(f"feature[{i}]" for i in range(num_features))
    return replace(problem, feature_names=names, feature_bounds=(max(problem.feature_bounds),) * num_features)


def most_rows(method: Any, problem: Problem, prior: Arrays, max_bytes: int) -> tuple[int, int]:
    """The largest setting `most` of a method of tables with which an update stays within max_bytes; 0 when none does.

    Second, the bytes with most = 1.
    """
    least, two = (declared_bytes(replace(method, most=most), problem, prior) for most in (1, 2))
    rows = 1 + (max_bytes - least) // (two - least)
    return max(0, min(int(rows), method.most)), least


def most_features(method: Method, problem: Problem, prior: Arrays, max_bytes: int) -> int:
    """The most features with which an update stays within max_bytes; 0 when even one is too many."""

    def fits(count: int) -> bool:
        return declared_bytes(method, narrowed(problem, count), prior) <= max_bytes

    low, high = 0, MOST + 1  # low fits (or is 0), high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
