"""A linear model: softmax regression, or linear regression.

Takes    (n, d)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fusionlearn import layers
from fusionlearn.network import Module, Network
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class Linear(Network):
    name: ClassVar[str] = "linear"

    def widths(self, problem: Problem) -> tuple[int, ...]:
        return (problem.num_features, problem.num_classes)

    def build(self, problem: Problem) -> Module:
        return layers.network([], problem.num_features, problem)
