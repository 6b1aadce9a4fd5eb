"""A random forest, grown by scikit-learn.

Source   Breiman, Random Forests, 2001
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
class RandomForest(Teacher):
    name: ClassVar[str] = "forest"

    trees: int = 100
    min_leaf: int = 3  # least rows in a leaf

    def __post_init__(self) -> None:
        if not (1 <= self.trees <= 10_000 and self.min_leaf >= 1):
            raise SettingsError("trees may be 1 to 10000, min_leaf 1 or more.")

    def fit(self, x: NDArray[Any], y: NDArray[Any], problem: Problem, *, rng: np.random.Generator) -> Taught:
        try:
            from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
        except ImportError as error:
            raise MissingExtra("the teacher 'forest'", "scikit-learn", "trees") from error
        if (same := constant(y, problem)) is not None:
            return same
        grower = RandomForestClassifier if problem.labels else RandomForestRegressor
        forest = grower(
            n_estimators=self.trees, min_samples_leaf=self.min_leaf, random_state=int(rng.integers(2**31)), n_jobs=1
        ).fit(x, y)
        nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
        num_bytes = nodes * (20 + 4 * problem.num_classes)  # column, threshold, two links; shares as float32
        if not problem.labels:
            return Taught(lambda rows: forest.predict(rows)[:, None], num_bytes)
        seen = forest.classes_.astype(int)
        return Taught(lambda rows: spread(forest.predict_proba(rows), seen, problem.num_classes), num_bytes)
