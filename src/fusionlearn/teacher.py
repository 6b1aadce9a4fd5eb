"""Teachers: the model a client trains for itself, as large as it likes, to teach the small student that travels.

A teacher is the client's own choice. It never crosses the wire, the task does not name it, and clients may choose
differently: `--teacher forest`, `--teacher boosting:rounds=200`, `--teacher cnn:shape=28x28x1,epochs=20`. One file in
`teachers/` and one line in `TEACHERS`, or an entry point `fusionlearn.teachers` in another package.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fusionlearn import network, plugin
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem
from fusionlearn.sums import one_hot

TEACHERS: Mapping[str, str] = {
    "best": "fusionlearn.teachers.best:Best",
    "boosting": "fusionlearn.teachers.boosting:BoostedTrees",
    "forest": "fusionlearn.teachers.forest:RandomForest",
    "network": "fusionlearn.teachers.network:NetworkTeacher",
}
GROUP = "fusionlearn.teachers"
DEFAULT = "forest"  # for a client that names none

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Taught:
    """A teacher that has seen its rows."""

    answer: Callable[[NDArray[Any]], Matrix]  # rows (n, d) → probabilities (n, c), or scaled values (n, 1)
    num_bytes: int  # what sending it would take: for comparisons only, it is never sent


class Teacher(plugin.Plugin, abc.ABC):
    """A way to learn from one client's rows. Final subclasses are frozen dataclasses; their fields are the settings."""

    @abc.abstractmethod
    def fit(self, x: NDArray[Any], y: NDArray[Any], problem: Problem, *, rng: np.random.Generator) -> Taught:
        """Learn from rows x (n, d) with labels y (n,), class codes or scaled values.

        At least one row is given; of classes perhaps one only, and then it answers that class.
        """


def parse(text: str) -> Teacher:
    """The teacher a client names: NAME or NAME:key=value,… where NAME may be a network's. Errors: SettingsError."""
    try:
        name, settings = plugin.split(text)
        known = plugin.available(TEACHERS, GROUP)
        if name in network.available() and name not in known:
            name, settings = "network", _of_network(name, settings)
        found = plugin.find(Teacher, name, TEACHERS, GROUP)  # type: ignore[type-abstract]
        return plugin.make(found, plugin.read(found, settings))
    except SettingsError as error:
        raise SettingsError(f"--teacher {text}: {error}") from error


def _of_network(name: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Settings of the teacher `network`: those of its training as they are, the others belong to the network."""
    found = plugin.find(Teacher, "network", TEACHERS, GROUP)  # type: ignore[type-abstract]
    training = {field.name for field in dataclasses.fields(cast(Any, found))}
    own = ",".join(f"{key}={value}" for key, value in settings.items() if key not in training)
    kept = {key: value for key, value in settings.items() if key in training}
    return {"network": f"{name}:{own}" if own else name, **kept}


def held_out_answers(
    teacher: Teacher, x: NDArray[Any], y: NDArray[Any], problem: Problem, *, folds: int, rng: np.random.Generator
) -> Matrix:
    """What the teacher says of each row when that row was not among those it learned from: (n, c) or (n, 1).

    A teacher that has seen a row says little more of it than its label. So the rows are cut into `folds` parts, each
    class spread over all of them, and each part is answered by a teacher trained on the others. `folds` = 0 or 1, or
    fewer than two rows, takes one teacher trained on everything.
    """
    folds = min(folds, len(x))
    if folds < 2:
        return teacher.fit(x, y, problem, rng=rng).answer(x)
    fold = np.empty(len(x), np.int64)
    order = rng.permutation(len(x))
    if problem.labels:
        order = order[np.argsort(y[order], kind="stable")]
    fold[order] = np.arange(len(x)) % folds
    answers = np.empty((len(x), problem.num_classes))
    for k in range(folds):
        taught = teacher.fit(x[fold != k], y[fold != k], problem, rng=rng)
        answers[fold == k] = taught.answer(x[fold == k])
    return answers


def constant(y: NDArray[Any], problem: Problem) -> Taught | None:
    """The teacher of rows that all have the same label; None where there is something to learn."""
    if (y != y[0]).any():
        return None
    row = one_hot(y[:1], problem.num_classes) if problem.labels else np.asarray(y[:1], np.float64)[:, None]
    return Taught(lambda rows: np.repeat(row, len(rows), axis=0), row.nbytes)


def spread(probability: Matrix, seen: NDArray[np.int64], num_classes: int) -> Matrix:
    """Probabilities of the classes a client has seen → of all classes, 0 for the others."""
    result = np.zeros((len(probability), num_classes))
    result[:, seen] = probability
    return result


def loss(answers: Matrix, y: NDArray[Any], problem: Problem) -> float:
    """Mean log loss of probabilities, mean squared error of values."""
    if not problem.labels:
        return float(((answers[:, 0] - y) ** 2).mean())
    return float(-np.log(np.clip(answers[np.arange(len(y)), y], 1e-6, 1.0)).mean())
