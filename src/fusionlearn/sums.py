"""What sums tell: means, scales, ridge solutions and shrunken covariances, from moments alone.

Everything here works on float64 moments of rows z = [1, x], so it serves any number of rows in O(d³).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

CONSTANT = 1e-10  # a column whose variance is below this share of its mean square is constant
FLOOR = 1e-10  # residuals below this share of the total are rounding: not evidence for a smaller penalty


@dataclass(frozen=True)
class Standardised:
    """Moments after exact standardisation of the columns, computed from the raw sums.

    With G = Σ z zᵀ, M = Σ z yᵀ (weights included), n = G_00, mean μ and scale σ:
    gram = Σ (x-μ)(x-μ)ᵀ / σσᵀ,  moment = Σ (x-μ)(y-ȳ)ᵀ / σ,  square = Σ (y-ȳ)².
    Constant columns have scale 1 and zero rows: they get the weight 0.
    """

    weight: float  # n, or the sum of row weights
    mean: Matrix  # (d,)
    scale: Matrix  # (d,)
    target_mean: Matrix  # (c,)
    gram: Matrix  # (d, d)
    moment: Matrix  # (d, c)
    square: Matrix  # (c,)
    constant: NDArray[np.bool_]  # (d,)

    def unstandardise(self, weights: Matrix) -> tuple[Matrix, Matrix]:
        """Weights (d, c) on standardised columns → weights and bias on the columns as they came."""
        raw = weights / self.scale[:, None]
        return raw, self.target_mean - self.mean @ raw


def is_constant(variance: Matrix, mean_square: Matrix, weight: float = 1.0, faint: float = 0.0) -> NDArray[np.bool_]:
    """Which columns (d,) vary no more than rounding does, of their squares or of the sums (see `FixedPoint.faint`)."""
    return np.asarray((variance <= CONSTANT * mean_square) | (variance * weight <= faint))


def standardise(gram: Matrix, moment: Matrix, square: Matrix, faint: float = 0.0) -> Standardised:
    """Exact standardisation from the sums of [1, x] and y: gram (d+1, d+1), moment (d+1, c), square (c,).

    faint  a column whose squares about its mean sum to no more than this is constant: the rest is rounding of the sums,
           which standardising would blow up
    """
    weight = float(gram[0, 0])
    mean, target_mean = gram[0, 1:] / weight, moment[0] / weight
    mean_square = np.diag(gram)[1:] / weight
    variance = mean_square - mean**2
    constant = is_constant(variance, mean_square, weight, faint)
    scale = np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
    centred = gram[1:, 1:] - weight * np.outer(mean, mean)
    cross = moment[1:] - weight * np.outer(mean, target_mean)
    centred, cross = centred / np.outer(scale, scale), cross / scale[:, None]
    centred[constant] = 0.0
    centred[:, constant] = 0.0
    cross[constant] = 0.0
    spread = np.maximum(square - weight * target_mean**2, 0.0)
    return Standardised(weight, mean, scale, target_mean, centred, cross, spread, constant)


@dataclass(frozen=True)
class RidgeFit:
    """A ridge solution on standardised columns."""

    weights: Matrix  # (d, c)
    penalty: float  # λ, in units of the gram matrix
    score: float  # generalised cross-validation; NaN when the penalty was given
    freedom: float  # effective degrees of freedom, the bias included
    residual: Matrix  # (c,) residual sum of squares
    covariance: Matrix  # (d, d) (C + λ)⁻¹ C (C + λ)⁻¹: times σ², the covariance of one column of weights


def ridge(sums: Standardised, num_rows: float, penalties: Sequence[float]) -> RidgeFit:
    """Ridge regression of y on the columns, the penalty chosen by generalised cross-validation from the sums.

        GCV(λ) = n · RSS(λ) / (n - df(λ))²,   df(λ) = 1 + Σ_j s_j / (s_j + λ),   s_j the eigenvalues of the gram

    penalties  candidates for λ / n, public; ties go to the larger. A single candidate is taken as it is
    Source     Golub, Heath, Wahba, Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter, 1979
    """
    values, vectors = np.linalg.eigh(sums.gram)
    values = np.maximum(values, 0.0)
    rotated = vectors.T @ sums.moment
    tiny = max(values.max(initial=0.0), 1.0) * len(values) * np.finfo(float).eps

    def at(relative: float) -> tuple[float, float, Matrix, float, Matrix]:
        penalty = relative * sums.weight
        damped = values + penalty
        inverse = np.where(damped > tiny, 1.0 / np.maximum(damped, tiny), 0.0)
        explained = (rotated**2 * (inverse * (2.0 - values * inverse))[:, None]).sum(axis=0)
        residual = np.maximum(sums.square - explained, FLOOR * sums.square)
        freedom = 1.0 + float((values * inverse).sum())
        left = num_rows - freedom
        score = num_rows * float(residual.sum()) / left**2 if left > 1e-6 * num_rows else np.inf
        return score, penalty, inverse, freedom, residual

    fits = [at(relative) for relative in sorted(penalties, reverse=True)]
    best = min(score for score, *_ in fits)
    score, penalty, inverse, freedom, residual = next(
        fit for fit in fits if fit[0] <= best * (1 + 1e-9) or not np.isfinite(best)
    )
    weights = vectors @ (inverse[:, None] * rotated)
    weights[sums.constant] = 0.0  # which they are, up to rounding
    covariance = (vectors * (inverse**2 * values)) @ vectors.T
    chosen = score if len(fits) > 1 else float("nan")
    return RidgeFit(weights, penalty, chosen, freedom, residual, covariance)


def shrink(covariance: Matrix, num_rows: float) -> tuple[Matrix, float]:
    """Oracle approximating shrinkage of a covariance (d, d) towards its mean variance; also the share taken.

    Source  Chen, Wiesel, Eldar, Hero, Shrinkage Algorithms for MMSE Covariance Estimation, 2010
    """
    d = len(covariance)
    if d == 0:
        return covariance, 0.0
    trace, square = float(np.trace(covariance)), float((covariance**2).sum())
    spread = square - trace**2 / d
    top = (1 - 2 / d) * square + trace**2
    bottom = (num_rows + 1 - 2 / d) * spread
    share = 1.0 if bottom <= top else top / bottom
    return (1 - share) * covariance + share * (trace / d) * np.eye(d), share


def semi_definite(gram: Matrix, slack: float) -> bool:
    """Whether a symmetric matrix has no eigenvalue below what rounding of its entries can explain."""
    scale = np.sqrt(np.maximum(np.diag(gram), slack) + slack)
    shifted = gram.copy()
    # Rounding adds a matrix E with |E_ij| <= slack. With S = diag(scale), by Gershgorin, S⁻¹ES⁻¹ + diag(row sums of
    # |S⁻¹ES⁻¹|) is semi-definite, so what is added here is S (that + 1e-9) S. Cholesky itself needs no scaling: its
    # rounding scales with the matrix.
    shifted.flat[:: len(gram) + 1] += 1e-9 * scale**2 + slack * scale * (1 / scale).sum()
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True


def to_simplex(scores: Matrix) -> Matrix:
    """The nearest probability vector to each row of scores (n, c): order is kept, so is the winner.

    Source  Duchi, Shalev-Shwartz, Singer, Chandra, Efficient Projections onto the l1-Ball, 2008
    """
    ordered = -np.sort(-scores, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1.0
    ranks = np.arange(1, scores.shape[1] + 1)
    kept = (ordered - excess / ranks > 0).sum(axis=1)
    shift = excess[np.arange(len(scores)), kept - 1] / kept
    return np.asarray(np.maximum(scores - shift[:, None], 0.0))


def softmax(scores: Matrix) -> Matrix:
    """exp(scores) normalised along each row (n, c)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def one_hot(codes: NDArray[np.int64], num_classes: int) -> Matrix:
    """Class codes (n,) → (n, c) of zeros and ones."""
    return np.asarray(codes[:, None] == np.arange(num_classes), np.float64)


def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t, by bisection on its distribution function (probability > 1/2)."""
    from math import atan, exp, lgamma, log, pi, sqrt

    nodes, weights = np.polynomial.legendre.leggauss(200)
    front = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - 0.5 * log(freedom * pi))

    def distribution(t: float) -> float:
        # With t = √ν tan u the density becomes cos^(ν-1), smooth on a bounded interval.
        top = atan(t / sqrt(freedom))
        u = top * (nodes + 1) / 2
        return 0.5 + front * sqrt(freedom) * top / 2 * float((weights * np.cos(u) ** (freedom - 1)).sum())

    low, high = 0.0, 1e7
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < probability else (low, middle)
    return (low + high) / 2
