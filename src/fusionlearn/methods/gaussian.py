"""Gaussian classes from summed moments: linear, quadratic or naive Bayes discriminants, exact, in one upload.

Each client sends how many rows of each class it has, their sums, and second moments: one matrix for all classes
(`shared`, linear discriminant analysis), one for each class (`per_class`, quadratic), or its diagonal for each
class (`diagonal`, naive Bayes). The server standardises the columns exactly, takes the *within-class* covariance
and shrinks it by oracle approximating shrinkage, all from the same sums. A class seen fewer than twice borrows the
covariance that all classes share.

Update
    class_count  (c,)                int64  rows of each class
    class_sum    (c, d)              int64  Σ x of each class, fixed point
    gram         (d(d+1)/2,)         int64  Σ xxᵀ, upper triangle, fixed point; covariance = shared
                 (c, d(d+1)/2)              of each class; covariance = per_class
                 (c, d)                     Σ x² of each class; covariance = diagonal
Model
    bias     (c,)       float64  log prior and determinant of each class
    weights  (d, c)     float64  shared: the linear discriminants
    mean     (c, d)     float64  per_class, diagonal: class means
    whiten   (c, d, d)  float64  per_class: A with AAᵀ the inverse covariance
             (c, d)     float64  diagonal: one over the standard deviations
Cost     upload 8·(c + cd + d(d+1)/2) bytes for shared; client O(n·d²); server O(d³), c times for per_class
Privacy  L2 sensitivity √(1 + B² + B⁴), B² = Σ bounds²
Source   Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936; Friedman, Regularized Discriminant
         Analysis, 1989; Chen, Wiesel, Eldar, Hero, Shrinkage Algorithms for MMSE Covariance Estimation, 2010
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
from fusionlearn.fixed import FixedPoint, Word, pack, sum_blocks, unpack
from fusionlearn.method import Method, Moments
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem

FLOOR = 1e-6  # least variance of a standardised column
ABSENT = -1e9  # log prior of a class nobody has: its probability is 0 to every digit
BORROWED = 1.0  # naive Bayes: rows of the shared variance that each class's own variance is averaged with


@dataclass(frozen=True)
class Gaussian(Method):
    name: ClassVar[str] = "gaussian"

    covariance: Literal["shared", "per_class", "diagonal"] = "shared"  # what the classes have in common
    class_prior: Literal["empirical", "uniform"] = "empirical"  # how likely each class is before x is seen
    word: Word = field(default=64, metadata=LATER)  # bits of an entry of gram: 32 halve the upload

    @property
    def additive(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return self.word == 64  # 32 bits round what each client sends, so another split is another rounding

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        if not problem.labels:
            raise SettingsError("gaussian tells classes apart; for a number as label use 'ridge'.")
        d, c, most = problem.num_features, problem.num_classes, problem.max_records
        first, second = self._grids(problem)
        top = first.bound(most, problem.max_bound)
        shapes = {"shared": (d * (d + 1) // 2,), "per_class": (c, d * (d + 1) // 2), "diagonal": (c, d)}
        top_gram = second.bound(most, problem.max_bound**2)
        return {
            "class_count": ArraySpec("int64", (c,), 0, most),
            "class_sum": ArraySpec("int64", (c, d), -top, top),
            "gram": ArraySpec(second.dtype, shapes[self.covariance], -top_gram, top_gram),
        }

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        x, y = data["x"], data["y"]
        xp = array_api_compat.array_namespace(x)
        device = array_api_compat.device(x)
        classes = xp.arange(problem.num_classes, device=device)
        first, second = self._grids(problem)

        def gram(rows: Any, member: Any) -> Any:
            if self.covariance == "shared":
                return second.encode(pack(rows.T @ rows))
            if self.covariance == "diagonal":
                return second.encode(member.T @ rows**2)
            return xp.stack(
                [second.encode(pack(part.T @ part)) for part in (rows[member[:, k] > 0] for k in range(len(classes)))]
            )

        def block(rows: slice) -> dict[str, Any]:
            values = xp.astype(x[rows], xp.float64)
            member = xp.astype(y[rows][:, None] == classes[None, :], xp.float64)
            return {
                "class_count": xp.astype(xp.sum(member, axis=0), xp.int64),
                "class_sum": first.encode(member.T @ values),
                "gram": gram(values, member),
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
        count, class_sum, second = self._decode(total, problem)
        present = count > 0
        if present.sum() < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        rows = count.sum()
        mean = class_sum.sum(axis=0) / rows
        mean_square = self._diagonal(second) / rows
        variance = mean_square - mean**2
        constant = sums.is_constant(variance, mean_square, rows, self._grids(problem)[1].faint)
        scale = np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
        centres = np.where(present[:, None], class_sum / np.maximum(count, 1)[:, None] - mean, 0.0) / scale
        centres[:, constant] = 0.0
        likely = count / rows if self.class_prior == "empirical" else present / present.sum()
        log_prior = np.where(present, np.log(np.maximum(likely, 1e-300)), ABSENT)
        standard = _Standard(count, mean, scale, centres, log_prior, constant)
        model, shrinkage = {"shared": _linear, "per_class": _quadratic, "diagonal": _naive}[self.covariance](
            standard, second
        )
        findings = {
            "shrinkage": shrinkage,
            "records": int(rows),
            "constant_columns": [problem.feature_names[j] for j in np.flatnonzero(constant)],
            "absent_classes": [problem.labels[k] for k in np.flatnonzero(~present)],
        }
        return model, findings

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        x = np.asarray(data["x"], np.float64)
        if self.covariance == "shared":
            return {"probability": sums.softmax(x @ model["weights"] + model["bias"])}
        scores = np.empty((len(x), problem.num_classes))
        for k, (centre, whiten) in enumerate(zip(model["mean"], model["whiten"], strict=True)):
            white = (x - centre) @ whiten if self.covariance == "per_class" else (x - centre) * whiten
            scores[:, k] = model["bias"][k] - 0.5 * (white**2).sum(axis=1)
        return {"probability": sums.softmax(scores)}

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: counts that fit the sums, and mean squares at least the squares of the means."""
        arrays.check(summary, self.declare(problem, prior), place)
        count, class_sum, second = self._decode(summary, problem)
        rows = float(count.sum())
        slack = rows * 2.0 ** -min(grid.bits for grid in self._grids(problem))
        bounds = np.array(problem.feature_bounds)
        squares = self._diagonal(second)
        told = None
        if not 1 <= rows <= problem.max_records:
            told = f"it speaks of {rows:.0f} rows, the task allows 1 to {problem.max_records}"
        elif (np.abs(class_sum) > count[:, None] * bounds * (1 + 1e-9) + slack).any():
            told = "a class sum is larger than its rows allow"
        elif (squares < -slack).any() or (squares > rows * bounds**2 * (1 + 1e-9) + slack).any():
            told = "a column's mean square is negative or beyond its bound"
        elif (class_sum.sum(axis=0) ** 2 > (squares + slack) * (rows + slack) * (1 + 1e-9) + slack).any():
            told = "a column's mean square is below the square of its mean"
        elif self.covariance != "diagonal" and not all(
            sums.semi_definite(unpack(gram), slack) for gram in np.atleast_2d(second)
        ):
            told = "a matrix of second moments is not positive semi-definite"
        if told:
            raise UpdateError(f"{place}: {told}, so no table of records can have given it; ask the client to redo it.")

    def sensitivity(self, problem: Problem, prior: Arrays) -> float | None:
        row = sum(bound**2 for bound in problem.feature_bounds)
        return math.sqrt(1.0 + row + row**2)

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        count, class_sum, second = self._decode(summary, problem)
        rows = float(count.sum())
        total = class_sum.sum(axis=0)
        if self.covariance == "diagonal":
            return Moments(rows, count, total / rows, np.concatenate([[rows], second.sum(axis=0)]))
        gram = np.empty((len(total) + 1, len(total) + 1))
        gram[0, 0], gram[0, 1:], gram[1:, 0] = rows, total, total
        gram[1:, 1:] = unpack(second if self.covariance == "shared" else second.sum(axis=0))
        return Moments(rows, count, total / rows, gram)

    def _grids(self, problem: Problem) -> tuple[FixedPoint, FixedPoint]:
        """The grids of first and second moments."""
        most, bound = problem.max_records, problem.max_bound
        return FixedPoint.for_sums(most, bound), FixedPoint.for_sums(most, bound**2, self.word)

    def _decode(self, summary: Arrays, problem: Problem) -> tuple[NDArray[np.float64], ...]:
        first, second = self._grids(problem)
        return summary["class_count"].astype(float), first.decode(summary["class_sum"]), second.decode(summary["gram"])

    def _diagonal(self, second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Σ x² of each column over all classes."""
        if self.covariance == "diagonal":
            return np.asarray(second.sum(axis=0))
        return np.diag(unpack(second if self.covariance == "shared" else second.sum(axis=0)))


@dataclass(frozen=True)
class _Standard:
    """Class moments after exact standardisation of the columns."""

    count: NDArray[np.float64]  # (c,)
    mean: NDArray[np.float64]  # (d,) of the raw columns
    scale: NDArray[np.float64]  # (d,)
    centres: NDArray[np.float64]  # (c, d) class means, standardised
    log_prior: NDArray[np.float64]  # (c,)
    constant: NDArray[np.bool_]  # (d,)

    def covariance(self, gram: NDArray[np.float64], centres: NDArray[np.float64], count: float) -> NDArray[np.float64]:
        """Standardised covariance about `centres`, given weighted mean outer products of them as (d, d) or (d,)."""
        cross = np.outer(self.mean, self.mean)
        centred = (gram / count - cross) / np.outer(self.scale, self.scale) - centres
        centred[self.constant] = 0.0
        centred[:, self.constant] = 0.0
        return np.asarray(centred)


_Result = tuple[dict[str, NDArray[Any]], Any]


def _within(standard: _Standard, gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """The covariance within classes, from the Gram matrix of all rows."""
    share = standard.count / standard.count.sum()
    between = (standard.centres * share[:, None]).T @ standard.centres
    return standard.covariance(gram, between, float(standard.count.sum()))


def _linear(standard: _Standard, second: NDArray[np.float64]) -> _Result:
    used = ~standard.constant
    within = _within(standard, unpack(second))[np.ix_(used, used)]
    covariance, share = sums.shrink(within, float(standard.count.sum()))
    whiten, _ = _inverse_root(covariance)
    directions = np.zeros_like(standard.centres.T)
    directions[used] = whiten @ (whiten @ standard.centres.T[used])
    bias = standard.log_prior - 0.5 * (standard.centres.T * directions).sum(axis=0)
    weights = directions / standard.scale[:, None]
    return {"weights": weights, "bias": bias - standard.mean @ weights}, share


def _quadratic(standard: _Standard, second: NDArray[np.float64]) -> _Result:
    used = ~standard.constant
    shared = _within(standard, unpack(second.sum(axis=0)))[np.ix_(used, used)]
    whitens, biases, shares = [], [], []
    for count, packed, centre, log_prior in zip(
        standard.count, second, standard.centres, standard.log_prior, strict=True
    ):
        if count < 2:
            covariance, share = sums.shrink(shared, float(standard.count.sum()))
        else:
            own = _class_covariance(standard, unpack(packed), centre, count)[np.ix_(used, used)]
            covariance, share = sums.shrink(own, float(count))
        whiten, log_determinant = _inverse_root(covariance)
        whole = np.zeros((len(standard.scale),) * 2)  # constant columns have no say
        whole[np.ix_(used, used)] = whiten
        whitens.append(whole / standard.scale[:, None])
        biases.append(log_prior - 0.5 * log_determinant)
        shares.append(share)
    mean = standard.centres * standard.scale + standard.mean
    return {"mean": mean, "whiten": np.stack(whitens), "bias": np.array(biases)}, shares


def _class_covariance(
    standard: _Standard, gram: NDArray[np.float64], centre: NDArray[np.float64], count: float
) -> NDArray[np.float64]:
    """One class's covariance: Σ xxᵀ / n - m mᵀ with m the class mean, in standardised columns."""
    raw = centre * standard.scale + standard.mean
    covariance = (gram / count - np.outer(raw, raw)) / np.outer(standard.scale, standard.scale)
    covariance[standard.constant] = 0.0
    covariance[:, standard.constant] = 0.0
    return np.asarray(covariance)


def _naive(standard: _Standard, second: NDArray[np.float64]) -> _Result:
    rows = standard.count.sum()
    share = standard.count / rows
    raw = standard.centres * standard.scale + standard.mean
    shared = second.sum(axis=0) / rows - (share[:, None] * raw**2).sum(axis=0)
    own = second / np.maximum(standard.count, 1)[:, None] - raw**2
    blend = (standard.count[:, None] * own + BORROWED * shared) / (standard.count[:, None] + BORROWED)
    deviation = np.sqrt(np.maximum(blend / standard.scale**2, FLOOR)) * standard.scale
    deviation[:, standard.constant] = 1.0
    whiten = 1.0 / deviation
    whiten[:, standard.constant] = 0.0
    log_determinant = 2 * np.log(deviation[:, ~standard.constant] / standard.scale[~standard.constant]).sum(axis=1)
    return {"mean": raw, "whiten": whiten, "bias": standard.log_prior - 0.5 * log_determinant}, None


def _inverse_root(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The symmetric A with AA the inverse of a covariance, and the log of its determinant; variances at least FLOOR.

    Symmetric, because it is unique: eigenvectors are not, where eigenvalues lie close together.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, FLOOR)
    return (vectors / np.sqrt(values)) @ vectors.T, float(np.log(values).sum())
