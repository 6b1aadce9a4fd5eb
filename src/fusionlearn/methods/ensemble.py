"""An ensemble of local linear models, each heard where it knows the class and the region.

Each client fits ridge regression on its own rows and sends the head with a diagonal Gaussian of its features and
its class counts. The fused model keeps every head. At a point x client k is heard in proportion to

    n_k · N(x; μ_k, σ²_k)^τ        times, for class c, the share n_kc / n_c of that class's rows it holds,

so a confident head that never saw a class, or nothing like x, has little say. It needs the set of updates, not
their sum: it shows what the additive methods save, and is a rival in every comparison.

Update
    weights      (d, c) float64  the local head on the encoded columns
    bias         (c,)   float64
    class_count  (c,)   int64    rows of each class (all rows, for regression)
    mean         (d,)   float64  of the client's features
    variance     (d,)   float64
Model
    the same arrays, stacked over clients on a leading axis
Cost     upload 8·(dc + 2c + 2d) bytes; client O(n·d² + d³); server nothing; predict K times one head
Privacy  a head and moments of single clients: no bound on what one record changes
Source   Guha, Talwalkar, Smith, One-Shot Federated Learning, 2019; weighting by density: Jacobs, Jordan, Nowlan,
         Hinton, Adaptive Mixtures of Local Experts, 1991
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, sums
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import one_blas_thread
from fusionlearn.method import Method, Moments
from fusionlearn.problem import Problem

GRID = tuple(10.0 ** (step / 2) for step in range(-6, 3))  # λ / n: local heads see few rows, so none below 1e-3
LARGEST = 1e12  # of any entry of a head: beyond it a prediction overflows before it means anything
FLOOR = 1e-4  # least variance of a feature, as a share of the clients' mean variance


@dataclass(frozen=True)
class Ensemble(Method):
    name: ClassVar[str] = "ensemble"

    temper: float = 1.0  # τ·d: how many independent features the density is trusted like; 0 ignores the region

    def __post_init__(self) -> None:
        if self.temper < 0:
            raise SettingsError(f"ensemble: temper is {self.temper}; it may be 0 or more.")

    @property
    def additive(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return False

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        d, c = problem.num_features, problem.num_classes
        bound = problem.max_bound * (1 + 1e-9)
        return {
            "weights": ArraySpec("float64", (d, c), -LARGEST, LARGEST),
            "bias": ArraySpec("float64", (c,), -LARGEST, LARGEST),
            "class_count": ArraySpec("int64", (c,), 0, problem.max_records),
            "mean": ArraySpec("float64", (d,), -bound, bound),
            "variance": ArraySpec("float64", (d,), 0.0, bound**2),
        }

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        x, y = as_numpy(data["x"]).astype(np.float64), as_numpy(data["y"])
        targets = sums.one_hot(y, problem.num_classes) if problem.labels else y.astype(np.float64)[:, None]
        with one_blas_thread():
            z = np.hstack([np.ones((len(x), 1)), x])
            standard = sums.standardise(z.T @ z, z.T @ targets, (targets**2).sum(axis=0))
            weights, bias = standard.unstandardise(sums.ridge(standard, len(x), GRID).weights)
        counts = targets.sum(axis=0) if problem.labels else np.array([len(x)])
        return {
            "weights": weights,
            "bias": bias,
            "class_count": counts.astype(np.int64),
            "mean": x.mean(axis=0),
            "variance": x.var(axis=0),
        }

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
        model = {name: np.stack([summary[name] for summary in summaries]) for name in self.declare(problem, prior)}
        counts = model["class_count"].sum(axis=0)
        if problem.labels and (counts > 0).sum() < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        absent = [problem.labels[k] for k in np.flatnonzero(counts == 0)] if problem.labels else []
        return model, {"records": int(counts.sum()), "heads": len(summaries), "absent_classes": absent}

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        x = np.asarray(data["x"], np.float64)
        counts = model["class_count"].astype(float)
        heard = self._heard(model, x, counts.sum(axis=1))  # (K, n)
        scores = np.zeros((len(x), problem.num_classes))
        said = np.zeros_like(scores)
        for k in range(len(counts)):
            head = x @ model["weights"][k] + model["bias"][k]
            if problem.labels:
                voice = heard[k][:, None] * counts[k]  # n_kc for n_kc / n_c: `said` divides by n_c alike
                scores += voice * sums.to_simplex(head)
                said += voice
            else:
                scores += heard[k][:, None] * head
        if not problem.labels:
            return {"value": scores[:, 0]}
        mixed = scores / np.maximum(said, 1e-300)
        total = mixed.sum(axis=1, keepdims=True)
        return {"probability": np.where(total > 0, mixed / np.maximum(total, 1e-300), 1.0 / problem.num_classes)}

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        arrays.check(summary, self.declare(problem, prior), place)
        rows = int(summary["class_count"].sum())
        if not 1 <= rows <= problem.max_records:
            raise UpdateError(f"{place} speaks of {rows} rows, the task allows 1 to {problem.max_records}.")

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        rows = float(summary["class_count"].sum())
        second = rows * np.concatenate([[1.0], summary["variance"] + summary["mean"] ** 2])
        return Moments(rows, summary["class_count"].astype(float) if problem.labels else None, summary["mean"], second)

    def _heard(self, model: Arrays, x: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much each client is heard at each point: (K, n), columns sum to 1."""
        spread = np.average(model["variance"], axis=0, weights=rows)
        log_heard = np.repeat(np.log(rows)[:, None], len(x), axis=1)
        for k in range(len(rows)):
            variance = np.maximum(model["variance"][k], FLOOR * spread)
            used = variance > 0
            distance = (x[:, used] - model["mean"][k][used]) ** 2 / variance[used] + np.log(variance[used])
            if used.any():
                log_heard[k] -= 0.5 * self.temper * distance.mean(axis=1)
        powers = np.exp(log_heard - log_heard.max(axis=0))
        return np.asarray(powers / powers.sum(axis=0))
