"""A multilayer perceptron: linear layers with rectifiers between them.

Takes    (n, d)
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from fusionlearn import layers
from fusionlearn.network import Module, Network, torch_for
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class Mlp(Network):
    name: ClassVar[str] = "mlp"

    hidden: tuple[int, ...] = (200,)  # units of each hidden layer

    def __post_init__(self) -> None:
        layers.check_widths("mlp", self.hidden)

    def widths(self, problem: Problem) -> tuple[int, ...]:
        return (problem.num_features, *self.hidden, problem.num_classes)

    def build(self, problem: Problem) -> Module:
        nn = torch_for("network 'mlp'").nn
        body = []
        for before, after in itertools.pairwise((problem.num_features, *self.hidden)):
            body += [nn.Linear(before, after), nn.ReLU()]
        return layers.network(body, (problem.num_features, *self.hidden)[-1], problem)
