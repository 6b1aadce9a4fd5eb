"""Linear heads from sums: everything ridge regression needs to know of rows and their targets.

Of rows z = [1, x] with targets t a client keeps Σ zzᵀ, Σ ztᵀ, Σ t² and their number, as integers. The targets may be
one-hot labels, numbers, or what a teacher says: sums of different clients add up all the same, and the head they give
is the one of the pooled rows and targets.

    gram     ((d+1)(d+2)/2,) int64   Σ zzᵀ, upper triangle row by row, fixed point (int32 with a word of 32 bits)
    moment   (d+1, c)        int64   Σ ztᵀ, fixed point
    square   (c,)            int64   Σ t², fixed point
    count    ()              int64   rows
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, sums
from fusionlearn.arrays import Array, Arrays, ArraySpec
from fusionlearn.errors import UpdateError
from fusionlearn.fixed import FixedPoint, Word, one_blas_thread, pack, sum_blocks, unpack
from fusionlearn.problem import Problem

STEPS = 1.0  # of a grid, that an entry of a sum is off by: 0.3·√clients, for ten clients
# λ / n, half decades from 1e-5 to 10: coarse, so that the choice is the same on every machine.
GRID = tuple(10.0 ** (step / 2) for step in range(-10, 3))


@dataclass(frozen=True)
class Moments:
    """The sums as real numbers."""

    gram: NDArray[np.float64]  # (d+1, d+1)
    moment: NDArray[np.float64]  # (d+1, c)
    square: NDArray[np.float64]  # (c,)
    faint: float  # of a column's squares about its mean: what is no more than this is rounding
    step: float  # of the Gram matrix's grid where its rounding can be felt, with a word of 32 bits; else 0

    def solved(self, rows: float, penalty: float | Literal["gcv"]) -> tuple[sums.Standardised, sums.RidgeFit]:
        """Standardised sums and the head that ridge regression finds, with λ / n as given or chosen from the sums."""
        standard = sums.standardise(self.gram, self.moment, self.square, self.faint)
        penalties = self._penalties(standard) if penalty == "gcv" else (penalty,)
        return standard, sums.ridge(standard, rows, penalties)

    def _penalties(self, standard: sums.Standardised) -> tuple[float, ...]:
        """Of GRID those that damp what rounding adds to the Gram matrix; the largest where none does.

        Each client rounds each entry, by STEPS steps at most once many are summed; a symmetric matrix of such numbers,
        d wide, has eigenvalues up to 2·√d times as large. Smaller penalties would fit those: cross-validation from the
        sums cannot tell them from what rows say.
        """
        scale = standard.scale[~standard.constant]
        noise = 2 * STEPS * self.step * np.sqrt(len(scale)) * float(np.mean(scale**-2)) if len(scale) else 0.0
        return tuple(share for share in GRID if share * standard.weight >= noise) or GRID[-1:]


@dataclass(frozen=True)
class HeadSums:
    """The integers that stand for the sums of one problem."""

    problem: Problem
    least_weight: float = 1.0  # of a row
    most_weight: float = 1.0
    word: Word = 64  # bits of an entry of the Gram matrix, which is nearly all of an update

    def grids(self) -> dict[str, tuple[FixedPoint, float]]:
        """For each sum its grid and the largest entry one row can add."""
        problem = self.problem
        tops = {
            "gram": self.most_weight * problem.max_bound**2,
            "moment": self.most_weight * problem.max_bound * problem.target_bound,
            "square": self.most_weight * problem.target_bound**2,
        }
        words: dict[str, Word] = {"gram": self.word}
        return {
            name: (FixedPoint.for_sums(problem.max_records, top, words.get(name, 64)), top)
            for name, top in tops.items()
        }

    def declare(self) -> dict[str, ArraySpec]:
        """What the sums of any rows look like."""
        grids, d, c = self.grids(), self.problem.num_features, self.problem.num_classes
        tops = {name: grid.bound(self.problem.max_records, top) for name, (grid, top) in grids.items()}
        return {
            "gram": ArraySpec(grids["gram"][0].dtype, ((d + 1) * (d + 2) // 2,), -tops["gram"], tops["gram"]),
            "moment": ArraySpec("int64", (d + 1, c), -tops["moment"], tops["moment"]),
            "square": ArraySpec("int64", (c,), 0, tops["square"]),
            "count": ArraySpec("int64", (), 1, self.problem.max_records),
        }

    def summarize(
        self, x: Array, targets: Callable[[slice], Array], root: Callable[[slice], Array] | None = None
    ) -> dict[str, Any]:
        """The sums of these rows.

        x        (n, d) features
        targets  a slice of the rows → their targets (m, c) float64
        root     a slice of the rows → square roots of their weights (m,); None: all 1
        """
        xp = array_api_compat.array_namespace(x)
        grids = {name: grid for name, (grid, _) in self.grids().items()}
        width = self.problem.num_features + 1

        def block(rows: slice) -> dict[str, Any]:
            z = xp.empty((int(x[rows].shape[0]), width), dtype=xp.float64, device=array_api_compat.device(x))
            z[:, 0] = 1.0
            z[:, 1:] = x[rows]
            t = targets(rows)
            if root is not None:
                weight = root(rows)[:, None]
                z, t = z * weight, t * weight
            return {
                "gram": grids["gram"].encode(pack(z.T @ z)),
                "moment": grids["moment"].encode(z.T @ t),
                "square": grids["square"].encode(xp.sum(t**2, axis=0)),
            }

        total = sum_blocks(int(x.shape[0]), width, block)
        return total | {"count": xp.asarray(int(x.shape[0]), dtype=xp.int64)}

    def decode(self, summary: Arrays) -> Moments:
        """The real sums that the integers stand for."""
        grids = self.grids()
        gram, moment, square = (grids[name][0].decode(summary[name]) for name in ("gram", "moment", "square"))
        return Moments(
            unpack(gram),
            moment,
            square,
            grids["gram"][0].faint,
            2.0 ** -grids["gram"][0].bits if self.word == 32 else 0.0,
        )

    def check(self, summary: Arrays, place: str) -> None:
        """The sums of real rows form a positive semi-definite matrix that fits the count. Errors: UpdateError."""
        arrays.check(summary, self.declare(), place)
        problem, real = self.problem, self.decode(summary)
        gram, moment, square = real.gram, real.moment, real.square
        rows = float(summary["count"])
        slack = rows * 2.0 ** -min(grid.bits for grid, _ in self.grids().values())
        bounds = np.array([1.0, *problem.feature_bounds])
        diagonal = np.diag(gram)
        faults = {
            "the number of rows does not match the sums": not (
                rows * self.least_weight - slack <= gram[0, 0] <= rows * self.most_weight + slack
            ),
            "a column's mean square is negative or beyond its bound": bool(
                (diagonal < -slack).any() or (diagonal > gram[0, 0] * bounds**2 * (1 + 1e-9) + slack).any()
            ),
            "the class counts do not sum to the rows": bool(problem.labels)
            and abs(moment[0].sum() - gram[0, 0]) > slack * (1 + problem.num_classes),
            "a moment is larger than its column and target allow": bool(
                (moment**2 > np.outer(diagonal + slack, square + slack) * (1 + 1e-9) + slack).any()
            ),
        }
        told = next((fault for fault, found in faults.items() if found), None)
        if told is None and not sums.semi_definite(gram, slack):
            told = "its Gram matrix is not positive semi-definite"
        if told:
            raise UpdateError(f"{place}: {told}, so no table of records can have given it; ask the client to redo it.")

    def sensitivity(self) -> float:
        """The largest L2 change one record makes, in real units: w·√(B⁴ + B²t² + t⁴), B² = 1 + Σ bounds²."""
        row = 1.0 + sum(bound**2 for bound in self.problem.feature_bounds)
        target = self.problem.target_bound**2
        return self.most_weight * math.sqrt(row**2 + row * target + target**2)


def of_rows(
    x: NDArray[np.float64], y: NDArray[Any], problem: Problem, penalties: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (d, c) and bias (c,) of ridge regression on rows that lie here, λ / n chosen among penalties.

    x  (n, d)
    y  (n,) class codes, or scaled values
    """
    targets = sums.one_hot(y, problem.num_classes) if problem.labels else y.astype(np.float64)[:, None]
    z = np.hstack([np.ones((len(x), 1)), x])
    with one_blas_thread():
        standard = sums.standardise(z.T @ z, z.T @ targets, (targets**2).sum(axis=0))
        return standard.unstandardise(sums.ridge(standard, len(x), penalties).weights)


def loss(model: Arrays, real: Moments) -> float:
    """Mean squared error of a head on the rows behind the sums, summed over targets: (wᵀGw - 2wᵀm + s) / n."""
    weights = np.vstack([model["bias"], model["weights"]])
    missed = (weights * (real.gram @ weights)).sum() - 2 * (weights * real.moment).sum() + real.square.sum()
    return float(max(missed, 0.0) / real.gram[0, 0])


def predict(model: Arrays, x: Any, problem: Problem) -> dict[str, NDArray[Any]]:
    """What a head answers: the nearest probabilities for classes, values for regression."""
    scores = np.asarray(x, np.float64) @ model["weights"] + model["bias"]
    return {"probability": sums.to_simplex(scores)} if problem.labels else {"value": scores[:, 0]}
