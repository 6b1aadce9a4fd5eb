"""Gaussian mixtures with diagonal covariances: fitted by expectation and maximisation, asked for densities, sampled.

    p(x) = Σ_k w_k Π_j N(x_j; μ_kj, σ²_kj)

A fit starts from rows far apart (k-means++) and alternates: each row is shared among the components by how likely
they make it, then each component takes the mean and variance of its share. Columns are compared in units of their own
spread, so their scale does not matter. No variance falls below a share of that spread: a component that has closed in
on one row would otherwise be infinitely dense there, and would be that row.

Everything is NumPy, on one BLAS thread, and the same again given the same `rng`.

Source  Dempster, Laird, Rubin, Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977; the start: Arthur,
        Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import sums
from fusionlearn.fixed import one_blas_thread

Matrix: TypeAlias = NDArray[np.float64]

FLOOR = 1e-3  # least variance of a component, as a share of the column's
STEPS = 100  # of expectation and maximisation, at most
ENOUGH = 1e-5  # mean log-likelihood a step must gain, or the fit ends
LEAST = 1e-3  # rows: a component whose share of the rows is smaller is dropped


@dataclass(frozen=True)
class Mixture:
    """m components over d columns."""

    weights: Matrix  # (m,) sum to 1
    means: Matrix  # (m, d)
    variances: Matrix  # (m, d) above 0


def fit(
    x: NDArray[np.floating],
    components: int,
    *,
    rng: np.random.Generator,
    floor: float = FLOOR,
    spread: Matrix | None = None,
) -> Mixture:
    """The mixture of at most `components` Gaussians under which the rows are likely; of fewer where rows are fewer.

    x       (n, d), n at least 1
    floor   least variance as a share of a column's spread
    spread  (d,) variances to measure columns by; None: those of the rows. A column without any takes the mean of the
            others, and where no column has one, 1
    """
    rows = np.asarray(x, np.float64)
    centre = rows.mean(axis=0)
    unit = np.sqrt(_spread(rows, centre) if spread is None else _filled(np.asarray(spread, np.float64)))
    z = (rows - centre) / unit
    with one_blas_thread():
        found = _fit(z, components, floor, rng)
    return Mixture(found.weights, found.means * unit + centre, found.variances * unit**2)


def log_density(mixture: Mixture, x: NDArray[np.floating]) -> Matrix:
    """log p of each row of x (n, d) → (n,)."""
    return np.asarray(np.logaddexp.reduce(log_joint(mixture, x), axis=1))


def log_joint(mixture: Mixture, x: NDArray[np.floating]) -> Matrix:
    """log of each component's weight times its density at each row of x (n, d) → (n, m)."""
    # (x - μ)² / σ² is multiplied out into three products of matrices; about the mixture's own centre and in its own
    # units, so that little is lost where they nearly cancel.
    centre = mixture.weights @ mixture.means
    unit = np.sqrt(mixture.weights @ mixture.variances)
    z = (np.asarray(x, np.float64) - centre) / unit
    means, precision = (mixture.means - centre) / unit, unit**2 / mixture.variances
    with one_blas_thread():
        distance = z**2 @ precision.T - 2.0 * (z @ (means * precision).T) + (means**2 * precision).sum(axis=1)
    volume = np.log(mixture.variances).sum(axis=1) + len(centre) * math.log(2 * math.pi)
    with np.errstate(divide="ignore"):  # a component of weight 0 makes nothing likely
        return np.asarray(np.log(mixture.weights) - 0.5 * (np.maximum(distance, 0.0) + volume))


def sample(mixture: Mixture, n: int, *, rng: np.random.Generator) -> Matrix:
    """Rows drawn from the mixture: (n, d)."""
    drawn = rng.choice(len(mixture.weights), size=n, p=mixture.weights / mixture.weights.sum())
    noise = rng.standard_normal((n, mixture.means.shape[1]))
    return np.asarray(mixture.means[drawn] + noise * np.sqrt(mixture.variances[drawn]))


def _fit(z: Matrix, components: int, floor: float, rng: np.random.Generator) -> Mixture:
    centres = _start(z, components, rng)
    nearest = _squares(z, centres).argmin(axis=1)
    mixture = _maximise(z, np.eye(len(centres))[nearest], floor)
    before = -np.inf
    for _ in range(STEPS if len(centres) > 1 else 0):
        joint = log_joint(mixture, z)
        likely = np.logaddexp.reduce(joint, axis=1)
        mixture = _maximise(z, np.exp(joint - likely[:, None]), floor)
        if likely.mean() < before + ENOUGH:
            break
        before = float(likely.mean())
    return mixture


def _start(z: Matrix, components: int, rng: np.random.Generator) -> Matrix:
    """Rows far from one another: each is drawn in proportion to its squared distance to those drawn before."""
    centres = [z[int(rng.integers(len(z)))]]
    distance = _squares(z, centres[0][None, :])[:, 0]
    while len(centres) < min(components, len(z)) and distance.max() > 0:
        centres.append(z[int(rng.choice(len(z), p=distance / distance.sum()))])
        distance = np.minimum(distance, _squares(z, centres[-1][None, :])[:, 0])
    return np.stack(centres)


def _maximise(z: Matrix, shares: Matrix, floor: float) -> Mixture:
    """The components that make the rows likeliest, each row belonging to them by its shares (n, m)."""
    count = shares.sum(axis=0)
    shares, count = shares[:, count > LEAST], count[count > LEAST]
    means = shares.T @ z / count[:, None]
    variances = np.stack([share @ (z - mean) ** 2 for share, mean in zip(shares.T, means, strict=True)])
    return Mixture(count / count.sum(), means, np.maximum(variances / count[:, None], floor))


def _squares(z: Matrix, centres: Matrix) -> Matrix:
    """Squared distances (n, m)."""
    return np.stack([((z - centre) ** 2).sum(axis=1) for centre in centres], axis=1)


def _spread(rows: Matrix, centre: Matrix) -> Matrix:
    variance = ((rows - centre) ** 2).mean(axis=0)
    return _filled(np.where(sums.is_constant(variance, (rows**2).mean(axis=0)), 0.0, variance))


def _filled(spread: Matrix) -> Matrix:
    """The spread of every column, lent by the others where it has none."""
    some = spread > 0
    return np.where(some, spread, spread[some].mean() if some.any() else 1.0)
