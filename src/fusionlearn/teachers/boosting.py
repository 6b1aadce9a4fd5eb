"""Boosted trees on binned columns, grown by scikit-learn.

Source   Friedman, Greedy Function Approximation: A Gradient Boosting Machine, 2001; Ke et al., LightGBM, 2017
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import MissingExtra, SettingsError
from fusionlearn.problem import Problem
from fusionlearn.teacher import Taught, Teacher, constant, spread


@dataclass(frozen=True)
class BoostedTrees(Teacher):
    name: ClassVar[str] = "boosting"

    rounds: int = 60  # trees of each class
    rate: float = 0.1  # how much of each tree is taken
    max_leaves: int = 8
    min_leaf: int = 5  # least rows in a leaf

    def __post_init__(self) -> None:
        if not (1 <= self.rounds <= 100_000 and 0 < self.rate <= 1 and self.max_leaves >= 2 and self.min_leaf >= 1):
            raise SettingsError("rounds are 1 to 100000, 0 < rate <= 1, max_leaves 2 or more, min_leaf 1 or more.")

    def fit(self, x: NDArray[Any], y: NDArray[Any], problem: Problem, *, rng: np.random.Generator) -> Taught:
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        except ImportError as error:
            raise MissingExtra("the teacher 'boosting'", "scikit-learn", "trees") from error
        if (same := constant(y, problem)) is not None:
            return same
        from threadpoolctl import threadpool_limits

        grower = HistGradientBoostingClassifier if problem.labels else HistGradientBoostingRegressor
        with threadpool_limits(1):  # its threads cost more than they gain on tables of this size
            boosted = grower(
                max_iter=self.rounds,
                learning_rate=self.rate,
                max_leaf_nodes=self.max_leaves,
                min_samples_leaf=self.min_leaf,
                early_stopping=False,
                random_state=int(rng.integers(2**31)),
            ).fit(x, y)
        per_round = 1 if not problem.labels or len(boosted.classes_) == 2 else len(boosted.classes_)
        num_bytes = boosted.n_iter_ * per_round * (2 * self.max_leaves - 1) * 24
        if not problem.labels:
            return Taught(lambda rows: boosted.predict(rows)[:, None], num_bytes)
        seen = boosted.classes_.astype(int)
        return Taught(lambda rows: spread(boosted.predict_proba(rows), seen, problem.num_classes), num_bytes)
