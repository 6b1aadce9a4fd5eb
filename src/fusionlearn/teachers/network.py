"""A network as a teacher, of any size, trained on the client's rows.

Written as the network with the training's settings among its own: `cnn:shape=28x28x1,epochs=10,rate=0.05`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import network, training
from fusionlearn.problem import Problem
from fusionlearn.sums import softmax
from fusionlearn.teacher import Taught, Teacher, constant


@dataclass(frozen=True)
class NetworkTeacher(Teacher):
    name: ClassVar[str] = "network"

    network: str = "mlp"  # NAME[:key=value,…]
    epochs: int = 10  # passes over the rows
    batch_size: int = 32  # rows a step
    rate: float = 0.05  # learning rate of the first step
    momentum: float = 0.9  # share of the last step kept in the next
    decay: float = 1e-4  # share of each weight added to its gradient
    precision: Literal["float32", "bfloat16"] = "float32"  # of products while training

    def __post_init__(self) -> None:
        network.parse(self.network)
        self._training()

    def fit(self, x: NDArray[Any], y: NDArray[Any], problem: Problem, *, rng: np.random.Generator) -> Taught:
        if (same := constant(y, problem)) is not None:
            return same
        seed = int(rng.integers(2**31))
        weights = network.initial(self.network, problem, seed)
        learned = training.fit(self.network, problem, weights, training.Job(x, y, seed), self._training())

        def answer(rows: NDArray[Any]) -> NDArray[np.float64]:
            found = training.scores_of(self.network, problem, learned, rows)
            return softmax(found) if problem.labels else found

        return Taught(answer, 4 * network.num_weights(self.network, problem))

    def _training(self) -> training.Training:
        return training.Training(self.epochs, self.batch_size, self.rate, self.momentum, self.decay, self.precision)
