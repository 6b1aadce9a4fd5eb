"""Naive Bayes on counts from summed counts: multinomial, exact, in one upload.

Made for texts (`ngrams` ahead of it): each client sends how often its rows of each class have each feature. The sums
are those of the pooled rows, and the share of each feature in its class is all the model there is. Features are
counts, or weights like counts; a feature below 0 counts as 0.

Every count is raised by `smoothing` before shares are taken, so that what no row of a class has is rare there and not
impossible. With smoothing = 0 the server takes the value of a public grid under which the summed counts are most
likely (a Dirichlet prior, integrated out). This maximises likelihood, not accuracy: n-grams repeat each other, and on
reviews a value a few times larger than the likeliest is the more accurate one.

Update
    class_count    (c,)    int64  rows of each class
    feature_count  (c, d)  int64  Σ max(x, 0) over the rows of each class, fixed point (int32 with a word of 32 bits)
Model
    bias     (c,)    float64  log share of each class
    weights  (d, c)  float64  log share of each feature in each class
Cost     upload 8·(c + cd) bytes, half of it with a word of 32 bits; client O(n·d); server O(cd)
Privacy  L2 sensitivity √(1 + Σ bounds²)
Source   McCallum, Nigam, A Comparison of Event Models for Naive Bayes Text Classification, 1998; Minka, Estimating a
         Dirichlet Distribution, 2000
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, sums
from fusionlearn.arrays import Arrays, ArraySpec, Data
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import FixedPoint, Word, sum_blocks
from fusionlearn.method import Method
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem

GRID = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of smoothing: coarse, so that every machine chooses alike
ABSENT = -1e9  # log share of a class nobody has: its probability is 0 to every digit


@dataclass(frozen=True)
class NaiveBayes(Method):
    name: ClassVar[str] = "naive_bayes"

    smoothing: float = 1.0  # what every count is raised by; 0: the likeliest of a public grid
    class_prior: Literal["empirical", "uniform"] = "empirical"  # how likely each class is before x is seen
    word: Word = field(default=64, metadata=LATER)  # bits of an entry of feature_count: 32 halve the upload

    def __post_init__(self) -> None:
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise SettingsError(f"naive_bayes: smoothing is {self.smoothing}; it may be 0 or any number above.")

    @property
    def additive(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return self.word == 64  # 32 bits round what each client sends, unless features are whole numbers

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        if not problem.labels:
            raise SettingsError("naive_bayes tells classes apart; for a number as label use 'ridge'.")
        d, c, most, grid = problem.num_features, problem.num_classes, problem.max_records, self._grid(problem)
        return {
            "class_count": ArraySpec("int64", (c,), 0, most),
            "feature_count": ArraySpec(grid.dtype, (c, d), 0, grid.bound(most, problem.max_bound)),
        }

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        x, y = data["x"], data["y"]
        xp = array_api_compat.array_namespace(x)
        classes = xp.arange(problem.num_classes, device=array_api_compat.device(x))
        grid = self._grid(problem)

        def block(rows: slice) -> dict[str, Any]:
            values = xp.astype(x[rows], xp.float64)
            member = xp.astype(y[rows][:, None] == classes[None, :], xp.float64)
            return {
                "class_count": xp.astype(xp.sum(member, axis=0), xp.int64),
                "feature_count": grid.encode(member.T @ xp.where(values > 0, values, xp.zeros_like(values))),
            }

        return sum_blocks(int(x.shape[0]), problem.num_features, block)

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
        count = np.maximum(total["class_count"].astype(np.float64), 0.0)  # noise may have pushed sums below 0
        features = np.maximum(self._grid(problem).decode(total["feature_count"]), 0.0)
        present = count > 0
        if present.sum() < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        smoothing = self.smoothing or max(GRID, key=lambda value: _evidence(features[present], value))
        raised = features + smoothing
        share = count / count.sum() if self.class_prior == "empirical" else present / present.sum()
        weights = np.log(raised) - np.log(raised.sum(axis=1, keepdims=True))
        weights[~present] = 0.0
        model = {"bias": np.where(present, np.log(np.maximum(share, 1e-300)), ABSENT), "weights": weights.T.copy()}
        return model, {
            "smoothing": smoothing,
            "records": int(count.sum()),
            "absent_classes": [problem.labels[k] for k in np.flatnonzero(~present)],
        }

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        x = np.maximum(np.asarray(data["x"], np.float64), 0.0)
        return {"probability": sums.softmax(x @ model["weights"] + model["bias"])}

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: no feature counted more often than the rows of its class allow."""
        arrays.check(summary, self.declare(problem, prior), place)
        count = summary["class_count"].astype(np.float64)
        grid = self._grid(problem)
        slack = count.sum() * 2.0**-grid.bits
        told = None
        if not 1 <= count.sum() <= problem.max_records:
            told = f"it speaks of {count.sum():.0f} rows, the task allows 1 to {problem.max_records}"
        else:
            most = count[:, None] * np.array(problem.feature_bounds) * (1 + 1e-9) + slack
            if (grid.decode(summary["feature_count"]) > most).any():
                told = "a feature is counted more often than the rows of its class allow"
        if told:
            raise UpdateError(f"{place}: {told}, so no table of records can have given it; ask the client to redo it.")

    def sensitivity(self, problem: Problem, prior: Arrays) -> float | None:
        return math.sqrt(1.0 + sum(bound**2 for bound in problem.feature_bounds))

    def _grid(self, problem: Problem) -> FixedPoint:
        return FixedPoint.for_sums(problem.max_records, problem.max_bound, self.word)


def _evidence(features: NDArray[np.float64], smoothing: float) -> float:
    """Log likelihood of the counts of each class when its shares are drawn from a symmetric Dirichlet distribution."""
    width = features.shape[1] * smoothing
    told = 0.0
    for row in features:
        values, times = np.unique(row, return_counts=True)
        raised = np.array([math.lgamma(value + smoothing) for value in values.tolist()])
        told += math.lgamma(width) - math.lgamma(width + row.sum())
        told += float((times * (raised - math.lgamma(smoothing))).sum())
    return told
