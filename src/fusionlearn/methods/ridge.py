"""Ridge regression from summed Gram matrices: exact, in one upload.

Each client sends the sums ZᵀZ and ZᵀY of its rows z = [1, x]. Their totals are those of the pooled rows, so the
fused weights equal the ones a data centre would have found, however the data is split. Columns are standardised
exactly from the same sums, the bias is not penalised, and the penalty is chosen by generalised cross-validation,
again from the sums. For classes Y is one-hot, each row times its public class weight.

Update
    gram     ((d+1)(d+2)/2,) int64   ZᵀZ, upper triangle row by row, fixed point
    moment   (d+1, c)        int64   ZᵀY, fixed point
    square   (c,)            int64   Σ y², fixed point
    count    ()              int64   rows
Model
    weights         (d, c)   float64 on the encoded columns
    bias            (c,)     float64
    standard_error  (d+1, 1) float64 of bias and weights; regression with n > df only
Cost     upload 8·((d+1)(d+2)/2 + (d+1)c + c + 1) bytes, half of it with a word of 32 bits; client O(n·d²); server O(d³)
Privacy  L2 sensitivity w·√(B⁴ + B² + 1), B² = 1 + Σ bounds², w the largest class weight
Source   Hoerl, Kennard, Ridge Regression, 1970; the sums as uploads: Salehkaleybar et al., One-Shot Federated
         Learning, 2021; Zhuang et al., AFL: A Single-Round Analytic Approach for Federated Learning, 2025
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, heads, sums
from fusionlearn.arrays import Arrays, ArraySpec, Data
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import Word
from fusionlearn.heads import HeadSums
from fusionlearn.method import Method, Moments
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class Ridge(Method):
    name: ClassVar[str] = "ridge"

    penalty: Literal["gcv"] | float = "gcv"  # λ / n on standardised columns, or "gcv" to choose it from the sums
    class_weights: Literal["none"] | tuple[float, ...] = "none"  # public weight of a row of each class
    confidence: float = 0.95  # of the intervals reported for regression
    word: Word = field(default=64, metadata=LATER)  # bits of an entry of gram: 32 halve the upload

    def __post_init__(self) -> None:
        if self.penalty != "gcv" and self.penalty < 0:
            raise SettingsError(f"ridge: penalty is {self.penalty}; it may be 'gcv' or a number from 0 up.")
        if self.class_weights != "none" and not all(weight > 0 for weight in self.class_weights):
            raise SettingsError("ridge: every class weight must be above 0.")
        if not 0 < self.confidence < 1:
            raise SettingsError(f"ridge: confidence is {self.confidence}; it must lie between 0 and 1.")

    @property
    def additive(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return self.word == 64  # 32 bits round what each client sends, so another split is another rounding

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str]:
        return "linear", ""

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        return self._sums(problem).declare()

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        x, y = data["x"], data["y"]
        xp = array_api_compat.array_namespace(x)
        weights = xp.asarray(self._weights(problem), dtype=xp.float64, device=array_api_compat.device(x))
        classes = xp.arange(problem.num_classes, device=array_api_compat.device(x))

        def targets(rows: slice) -> Any:
            if not problem.labels:
                return xp.astype(y[rows], xp.float64)[:, None]
            return xp.astype(y[rows][:, None] == classes[None, :], xp.float64)

        root = None if self.class_weights == "none" else lambda rows: xp.sqrt(weights[y[rows]])
        return self._sums(problem).summarize(x, targets, root)

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
        real = self._sums(problem).decode(total)
        moment = real.moment
        if problem.labels and int((moment[0] > 0).sum()) < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        rows = float(total["count"])
        standard, fit = real.solved(rows, self.penalty)
        weights, bias = standard.unstandardise(fit.weights)
        model: dict[str, NDArray[Any]] = {"weights": weights, "bias": bias}
        names = problem.feature_names
        findings: dict[str, Any] = {
            "penalty": fit.penalty / standard.weight,
            "degrees_of_freedom": fit.freedom,
            "records": int(total["count"]),
            "constant_columns": [names[j] for j in np.flatnonzero(standard.constant)],
            "absent_classes": [problem.labels[c] for c in np.flatnonzero(moment[0] <= 0)] if problem.labels else [],
        }
        if not problem.labels and rows > fit.freedom:
            model["standard_error"] = _standard_errors(standard, fit, rows)
            findings["coefficients"] = self._coefficients(model, problem, rows - fit.freedom)
        return model, findings

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        return heads.predict(model, data["x"], problem)

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: the sums of real rows form a positive semi-definite matrix that fits the count."""
        self._sums(problem).check(summary, place)

    def sensitivity(self, problem: Problem, prior: Arrays) -> float | None:
        return self._sums(problem).sensitivity()

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        real = self._sums(problem).decode(summary)
        counts = np.rint(real.moment[0] / self._weights(problem)) if problem.labels else None
        weights = None if self.class_weights == "none" else self._weights(problem)
        return Moments(float(summary["count"]), counts, real.gram[0, 1:] / real.gram[0, 0], real.gram, weights)

    def loss(self, model: Arrays, summary: Arrays, problem: Problem) -> float | None:
        """Mean squared error, summed over the columns of the target."""
        return heads.loss(model, self._sums(problem).decode(summary))

    def _weights(self, problem: Problem) -> NDArray[np.float64]:
        if self.class_weights == "none":
            return np.ones(problem.num_classes)
        if len(self.class_weights) != len(problem.labels):
            raise SettingsError(
                f"ridge: {len(self.class_weights)} class weights for {len(problem.labels)} classes: give one for each."
            )
        return np.array(self.class_weights)

    def _sums(self, problem: Problem) -> HeadSums:
        weights = self._weights(problem)
        return HeadSums(problem, float(weights.min()), float(weights.max()), self.word)

    def _coefficients(self, model: Arrays, problem: Problem, freedom: float) -> list[dict[str, Any]]:
        """Each coefficient with its interval, in scaled units, for the report."""
        values = np.vstack([model["bias"], model["weights"]])[:, 0]
        errors = model["standard_error"][:, 0]
        reach = sums.student_quantile((1 + self.confidence) / 2, freedom)
        return [
            {
                "name": name,
                "value": value,
                "standard_error": error,
                "interval": [value - reach * error, value + reach * error],
            }
            for name, value, error in zip(
                ("bias", *problem.feature_names), values.tolist(), errors.tolist(), strict=True
            )
        ]


def _standard_errors(standard: sums.Standardised, fit: sums.RidgeFit, rows: float) -> NDArray[np.float64]:
    """Standard errors (d+1, 1) of bias and weights on the columns as they came.

    With residual variance s² = RSS / (n - df): cov(w) = s² (C+λ)⁻¹ C (C+λ)⁻¹ on standardised columns, which is the
    classical s² C⁻¹ for λ = 0; the bias ȳ - μᵀw adds s²/n + μᵀ cov(w) μ.
    """
    variance = float(fit.residual[0]) / (rows - fit.freedom)
    covariance = variance * fit.covariance / np.outer(standard.scale, standard.scale)
    covariance[standard.constant] = 0.0  # its weight is 0, with certainty; rounding says 1e-17, and the root of it 1e-9
    covariance[:, standard.constant] = 0.0
    bias = variance / standard.weight + standard.mean @ covariance @ standard.mean
    return np.asarray(np.sqrt(np.concatenate([[bias], np.maximum(np.diag(covariance), 0.0)])))[:, None]
