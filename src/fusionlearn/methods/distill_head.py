"""Distillation in closed form: every client's teacher teaches one linear head, in one upload.

Each client trains a teacher of its own choice on its rows (trees, a forest, a network: any size, never sent) and lets
it say how likely each class is for each row, where the row was not among those it learned from. These soft targets
T, mixed with the labels, take the labels' place in the sums of ridge regression. With G_k = Σ zzᵀ and m_k = Σ zTᵀ of
client k's rows z = [1, x], and W_k = G_k⁻¹ m_k the student that the client would have distilled alone,

    W = (Σ G_k + λI)⁻¹ Σ m_k = (Σ G_k + λI)⁻¹ Σ G_k W_k

is at once the least-squares distillation of *all* teachers on *all* rows and a matrix-weighted average of the local
students: distilling and averaging lose nothing, though no row and no teacher leaves its client. It is as exact as
ridge regression given the teachers' answers; a teacher sees only its client's rows, so another split gives others.

Update
    gram     ((d+1)(d+2)/2,) int64   ZᵀZ, upper triangle row by row, fixed point
    moment   (d+1, c)        int64   ZᵀT, fixed point
    square   (c,)            int64   Σ t², fixed point
    count    ()              int64   rows
Model
    weights  (d, c)   float64 on the encoded columns
    bias     (c,)     float64
Cost     upload 8·((d+1)(d+2)/2 + (d+1)c + c + 1) bytes; client O(n·d²) and `folds` teachers; server O(d³)
Privacy  no bound on what one record changes: it moves what its client's teacher says of all rows
Source   Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015; held-out soft targets: Dao,
         Kamath, Syrgkanis, Mackey, Knowledge Distillation as Semiparametric Inference, 2021
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, heads, sums, teacher
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import Word
from fusionlearn.heads import HeadSums
from fusionlearn.method import Method, Moments
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class DistillHead(Method):
    name: ClassVar[str] = "distill_head"
    LOCAL: ClassVar[tuple[str, ...]] = ("teacher",)

    mix: float = 0.5  # share of the teacher in a target; the rest is the label
    temperature: float = 1.0  # the teacher's log-probabilities are divided by it: above 1 is softer
    folds: int = 5  # a row is answered by a teacher that did not see it; 0: by one that saw everything
    penalty: Literal["gcv"] | float = "gcv"  # λ / n on standardised columns, or "gcv" to choose it from the sums
    word: Word = field(default=64, metadata=LATER)  # bits of an entry of gram: 32 halve the upload

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1:
            raise SettingsError(f"distill_head: mix is {self.mix}; it may be 0 (labels only) to 1 (teacher only).")
        if not 0.01 <= self.temperature <= 100:
            raise SettingsError(f"distill_head: temperature is {self.temperature}; it may be 0.01 to 100.")
        if not 0 <= self.folds <= 1000:
            raise SettingsError(f"distill_head: folds is {self.folds}; it may be 0 to 1000.")
        if self.penalty != "gcv" and self.penalty < 0:
            raise SettingsError(f"distill_head: penalty is {self.penalty}; it may be 'gcv' or a number from 0 up.")

    @property
    def additive(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return self.mix == 0 and self.word == 64  # then it is ridge regression; teachers depend on the split

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str]:
        return "linear", ""

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        return HeadSums(problem, word=self.word).declare()

    def summarize(
        self,
        data: Data,
        problem: Problem,
        prior: Arrays,
        *,
        rng: np.random.Generator,
        local: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The sums of the rows and their targets; `local["teacher"]` names the teacher, a forest by default."""
        x = data["x"]
        xp = array_api_compat.array_namespace(x)
        teaches = teacher.parse((local or {}).get("teacher", teacher.DEFAULT))
        soft = self.targets(teaches, as_numpy(x), as_numpy(data["y"]), problem, rng)
        targets = xp.asarray(soft, device=array_api_compat.device(x))
        return HeadSums(problem, word=self.word).summarize(x, lambda rows: targets[rows])

    def targets(
        self,
        teaches: teacher.Teacher,
        x: NDArray[Any],
        y: NDArray[Any],
        problem: Problem,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """What the student is to answer: the softened teacher mixed with the labels, (n, c) or (n, 1)."""
        labels = sums.one_hot(y, problem.num_classes) if problem.labels else y.astype(np.float64)[:, None]
        if self.mix == 0:
            return labels
        answers = teacher.held_out_answers(teaches, x, y, problem, folds=self.folds, rng=rng)
        if problem.labels:
            answers = np.clip(answers, 0.0, None) ** (1.0 / self.temperature)
            answers = answers / answers.sum(axis=1, keepdims=True)
        else:
            answers = np.clip(answers, -problem.target_bound, problem.target_bound)
        return np.asarray(self.mix * answers + (1 - self.mix) * labels)

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
        real = HeadSums(problem, word=self.word).decode(total)
        if problem.labels and int((real.moment[0] > 0).sum()) < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        standard, fit = real.solved(float(total["count"]), self.penalty)
        weights, bias = standard.unstandardise(fit.weights)
        names, labels = problem.feature_names, problem.labels
        return {"weights": weights, "bias": bias}, {
            "penalty": fit.penalty / standard.weight,
            "degrees_of_freedom": fit.freedom,
            "records": int(total["count"]),
            "constant_columns": [names[j] for j in np.flatnonzero(standard.constant)],
            "absent_classes": [labels[c] for c in np.flatnonzero(real.moment[0] <= 0)] if labels else [],
        }

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        return heads.predict(model, data["x"], problem)

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: the sums of real rows form a positive semi-definite matrix that fits the count."""
        HeadSums(problem, word=self.word).check(summary, place)

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        """Class counts are those of the mixed targets: near the labels' own, and all that the update tells of them."""
        real = HeadSums(problem, word=self.word).decode(summary)
        counts = real.moment[0] if problem.labels else None
        return Moments(float(summary["count"]), counts, real.gram[0, 1:] / real.gram[0, 0], real.gram)

    def loss(self, model: Arrays, summary: Arrays, problem: Problem) -> float | None:
        """Mean squared error against the mixed targets, summed over their columns."""
        return heads.loss(model, HeadSums(problem, word=self.word).decode(summary))
