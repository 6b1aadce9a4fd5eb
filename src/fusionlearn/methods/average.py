"""Averaging of networks trained from one start: federated averaging with a single round.

Every client trains the task's network on its rows, from the weights in the task's prior (pre-trained on public data,
see `fusionlearn pretrain`; without one, from public random weights). The server averages: weights by rows, each row of
the last layer by the rows of its class, batch statistics by mean and mean square. A shared start is decisive: networks
trained from different ones average to nothing.

Update
    network.NAME  as the weights  int64   n · w, fixed point; n_c · w_c for row c of the head (int32 with a word of
                                          32 bits: fused weights are then off by about √clients/rows)
    count         ()              int64   rows
    class_count   (c,)            int64   rows of each class; classification only
Model
    network.NAME  as the weights  float32
Cost     upload 8 bytes a weight, 4 with a word of 32 bits; client epochs · n passes of the network; server nothing
Privacy  weights remember rows: no bound on what one record changes
Source   McMahan, Moore, Ramage, Hampson, Agüera y Arcas, Communication-Efficient Learning of Deep Networks from
         Decentralized Data, 2017; one round of it: Guha, Talwalkar, Smith, One-Shot Federated Learning, 2019
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, averaging, network, training
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.averaging import WeightSums
from fusionlearn.fixed import Word
from fusionlearn.method import Method, Moments
from fusionlearn.network import Weights
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class Average(Method):
    name: ClassVar[str] = "average"
    LOCAL: ClassVar[tuple[str, ...]] = ("checkpoint",)
    START: ClassVar[tuple[str, ...]] = (network.PREFIX,)

    network: str = "mlp"  # NAME[:key=value,…]; `fusionlearn networks` lists them
    epochs: int = 5  # passes over a client's rows
    batch_size: int = 32  # rows a step
    rate: float = 0.05  # learning rate of the first step; it falls along half a cosine
    momentum: float = 0.9  # share of the last step kept in the next
    decay: float = 1e-4  # share of each weight added to its gradient
    classes: Literal["seen", "all"] = "seen"  # that a client's loss compares: those it holds, or all
    precision: Literal["float32", "bfloat16"] = "float32"  # of products while training
    seed: int = 0  # public; of the weights to start from where the task's prior holds none
    word: Word = field(default=64, metadata=LATER)  # bits of a sum: 32 halve the upload

    def __post_init__(self) -> None:
        network.parse(self.network)
        self._training()

    @property
    def additive(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return False

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str]:
        return "network", self.network

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        network.check_start(self.network, problem, prior)
        return self._sums(problem).declare()

    def summarize(
        self,
        data: Data,
        problem: Problem,
        prior: Arrays,
        *,
        rng: np.random.Generator,
        local: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """`local["checkpoint"]` names a file to resume from when training is interrupted."""
        x, y = as_numpy(data["x"]), as_numpy(data["y"])
        start = network.start(self.network, problem, prior, self.seed)
        job, kept = self._job(x, y, problem, rng), training.checkpoint_of(local, "average")
        weights = training.fit(self.network, problem, start, job, self._training(), checkpoint=kept)
        return self._summary(weights, y, problem)

    def summarize_many(
        self, datasets: Sequence[Data], problem: Problem, prior: Arrays, *, rngs: Sequence[np.random.Generator]
    ) -> list[dict[str, Any]]:
        """Small networks of many clients in shared steps; others one after another."""
        start = network.start(self.network, problem, prior, self.seed)
        rows = [(as_numpy(data["x"]), as_numpy(data["y"])) for data in datasets]
        jobs = [self._job(x, y, problem, rng) for (x, y), rng in zip(rows, rngs, strict=True)]
        found = training.fit_many(self.network, problem, start, jobs, self._training())
        return [self._summary(weights, y, problem) for weights, (_, y) in zip(found, rows, strict=True)]

    def fuse(
        self,
        summaries: Sequence[Arrays],
        problem: Problem,
        prior: Arrays,
        *,
        public: Data | None = None,
        noise_std: float = 0.0,
        rng: np.random.Generator,
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        total = arrays.total(summaries)
        held = total.get("class_count")
        averaging.check_classes(held)
        weights = self._sums(problem).mean(total, network.shapes(self.network, problem))
        absent = [] if held is None else [problem.labels[k] for k in np.flatnonzero(held == 0)]
        return network.named(weights), {"records": int(total["count"]), "absent_classes": absent}

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        return training.answers(self.network, problem, model, as_numpy(data["x"]))

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: class counts that sum to the rows, weights that the rows allow."""
        self._sums(problem).check(summary, place)

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """The network trained on labelled public rows."""
        start = network.start(self.network, problem, prior, self.seed)
        return training.pretrained(self.network, problem, start, data, self._training(), rng)

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        counts = summary["class_count"].astype(np.float64) if problem.labels else None
        return Moments(float(summary["count"]), counts, None, None)

    def _sums(self, problem: Problem) -> WeightSums:
        return WeightSums(self.network, problem, self.word)

    def _training(self) -> training.Training:
        return training.Training(self.epochs, self.batch_size, self.rate, self.momentum, self.decay, self.precision)

    def _job(self, x: NDArray[Any], y: NDArray[Any], problem: Problem, rng: np.random.Generator) -> training.Job:
        seen = averaging.seen(y, problem) if self.classes == "seen" else None
        return training.Job(x, y, int(rng.integers(2**31)), seen)

    def _summary(self, weights: Weights, y: NDArray[Any], problem: Problem) -> dict[str, Any]:
        return dict(self._sums(problem).encode(weights, averaging.counts_of(y, problem)))
