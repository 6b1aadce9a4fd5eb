"""The best of several teachers, found by cross-validation on the client's own rows.

The candidate with the least held-out log loss (squared error for regression) is trained on all rows; ties go to the
one named first. Nobody but the client learns which one it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn import teacher
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem
from fusionlearn.teacher import Taught, Teacher


@dataclass(frozen=True)
class Best(Teacher):
    name: ClassVar[str] = "best"

    of: tuple[str, ...] = ("forest", "boosting")  # candidates, with their default settings
    folds: int = 3  # parts the rows are cut into to compare them

    def __post_init__(self) -> None:
        if not self.of or "best" in self.of or self.folds < 2:
            raise SettingsError("best chooses of one or more other teachers, over 2 folds or more.")

    def fit(self, x: NDArray[Any], y: NDArray[Any], problem: Problem, *, rng: np.random.Generator) -> Taught:
        candidates = [teacher.parse(name) for name in self.of]
        losses = []
        for candidate in candidates:
            answers = teacher.held_out_answers(candidate, x, y, problem, folds=self.folds, rng=rng)
            losses.append(teacher.loss(answers, y, problem))
        return candidates[int(np.argmin(losses))].fit(x, y, problem, rng=rng)
