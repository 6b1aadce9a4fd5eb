"""Multinomial logistic regression: the linear head whose softmax makes the labels likeliest.

    min over W, b   mean over rows of −log softmax(Wᵀx + b)_y  +  λ/2 · ‖W‖²,   x on standardised columns

The curvature of the first term is never above ½ ZᵀZ / n with Z = [1 x], whatever the weights are. So one Cholesky
factor of that bound serves every step, no step is too long and no length of a step has to be searched for; momentum,
dropped whenever it points uphill, makes the steps few.

Source  Böhning, Multinomial Logistic Regression Algorithm, 1992; the momentum and when to drop it: O'Donoghue, Candès,
        Adaptive Restart for Accelerated Gradient Schemes, 2015
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import sums
from fusionlearn.fixed import one_blas_thread

Matrix: TypeAlias = NDArray[np.float64]

ABSENT = -1e9  # bias of a class without a row: its probability is 0 to every digit
STEPS = 300
ENOUGH = 1e-3  # largest change of a weight in a step, in log-odds a standard deviation, with which the fit ends


def fit(x: NDArray[np.floating], y: NDArray[np.int64], num_classes: int, penalty: float) -> tuple[Matrix, Matrix]:
    """Weights (d, c) and bias (c,) on the columns as they come; of classes without a row 0 and ABSENT.

    x        (n, d)
    y        (n,) class codes, at least two classes among them
    penalty  λ, for standardised columns; above 0
    """
    present = np.flatnonzero(np.bincount(y, minlength=num_classes))
    rows = np.asarray(x, np.float64)
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    constant = sums.is_constant(variance, (rows**2).mean(axis=0))
    scale = np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
    z = np.hstack([np.ones((len(rows), 1)), np.where(constant, 0.0, (rows - mean) / scale)])
    with one_blas_thread():
        found = _descend(z, sums.one_hot(np.searchsorted(present, y), len(present)), penalty)
    weights, bias = np.zeros((x.shape[1], num_classes)), np.full(num_classes, ABSENT)
    weights[:, present] = found[1:] / scale[:, None]
    bias[present] = found[0] - mean @ weights[:, present]
    return weights, bias


def _descend(z: Matrix, targets: Matrix, penalty: float) -> Matrix:
    """The best weights (d+1, c) for rows z = [1 x] and one-hot targets."""
    n, width = z.shape
    damping = np.full(width, penalty)
    damping[0] = 0.0  # the bias is free
    inverse = np.linalg.inv(np.linalg.cholesky(z.T @ z / (2 * n) + np.diag(damping)))
    held = ahead = np.zeros((width, targets.shape[1]))
    age = 1.0
    for _ in range(STEPS):
        slope = z.T @ (sums.softmax(z @ ahead) - targets) / n + damping[:, None] * ahead
        reached = ahead - inverse.T @ (inverse @ slope)
        moved = reached - held
        if (slope * moved).sum() > 0:  # the momentum points uphill
            age = 1.0
        older, age = age, (1 + np.sqrt(1 + 4 * age**2)) / 2
        held, ahead = reached, reached + (older - 1) / age * moved
        if np.abs(moved).max() < ENOUGH:
            break
    return held
