"""Teachers: named on one line, answering every class, held out from the rows they are asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from fusionlearn import teacher
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem
from fusionlearn.teacher import Taught, Teacher
from fusionlearn.teachers.best import Best
from fusionlearn.teachers.boosting import BoostedTrees
from fusionlearn.teachers.forest import RandomForest

pytest.importorskip("sklearn")

CLASSES = Problem("multiclass", ("a", "b", "c"), ("u", "v"), (3.0, 3.0), 1000)
NUMBER = Problem("regression", (), ("u", "v"), (3.0, 3.0), 1000, 2.0)
ALL = (RandomForest(trees=20), BoostedTrees(rounds=20), Best(of=("forest", "boosting")))


def rows(count: int = 90) -> tuple[Any, Any]:
    x = np.random.default_rng(5).uniform(-3, 3, (count, 2))
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)


@dataclass(frozen=True)
class Nearest(Teacher):
    """Answers the label of the nearest row it has seen: it knows every row it learned from by heart."""

    name: ClassVar[str] = "nearest"

    def fit(self, x: Any, y: Any, problem: Problem, *, rng: np.random.Generator) -> Taught:
        def answer(asked: Any) -> Any:
            nearest = ((asked[:, None] - x) ** 2).sum(axis=2).argmin(axis=1)
            return np.eye(problem.num_classes)[y[nearest]]

        return Taught(answer, x.nbytes)


def test_a_teacher_is_named_on_one_line() -> None:
    assert teacher.parse("forest") == RandomForest()
    assert teacher.parse("boosting:rounds=7, rate=0.5") == BoostedTrees(rounds=7, rate=0.5)
    assert teacher.parse("best:of=boosting+forest,folds=2") == Best(of=("boosting", "forest"), folds=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("oracle", "no teacher is called 'oracle'"),
        ("forest:trees", "settings are written key=value"),
        ("forest:trees=many", "setting 'trees' of 'forest' is 'many'; int is expected"),
        ("forest:bark=1", "'forest' has no setting 'bark'; its settings are min_leaf, trees"),
        ("forest:trees=0", "trees may be 1 to 10000"),
        ("best:of=best", "best chooses of one or more other teachers"),
    ],
)
def test_a_teacher_that_cannot_be_is_one_sentence(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"^--teacher {text}: ") as caught:
        teacher.parse(text)
    assert told in str(caught.value)


@pytest.mark.parametrize("taught", ALL, ids=lambda made: made.name)
def test_answers_are_probabilities_of_every_class(taught: Teacher) -> None:
    x, y = rows()
    known = taught.fit(x[y < 2], y[y < 2], CLASSES, rng=np.random.default_rng(0))
    answers = known.answer(x)
    assert answers.shape == (90, 3) and known.num_bytes > 0
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)
    assert (answers[:, 2] == 0).all()  # a class nobody showed it
    assert (answers[y < 2].argmax(axis=1) == y[y < 2]).mean() > 0.95


@pytest.mark.parametrize("taught", ALL, ids=lambda made: made.name)
def test_values_are_answered_too(taught: Teacher) -> None:
    x, _ = rows(300)
    y = np.sin(x[:, 0])
    answers = taught.fit(x, y, NUMBER, rng=np.random.default_rng(0)).answer(x)
    assert answers.shape == (300, 1)
    assert ((answers[:, 0] - y) ** 2).mean() < 0.3 * y.var()


@pytest.mark.parametrize("taught", ALL, ids=lambda made: made.name)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_one_class_or_one_row_is_accepted(taught: Teacher, count: int) -> None:
    x, _ = rows(count)
    answers = taught.fit(x, np.full(count, 1), CLASSES, rng=np.random.default_rng(0)).answer(x)
    np.testing.assert_array_equal(answers, np.tile([0.0, 1.0, 0.0], (count, 1)))


@pytest.mark.parametrize("taught", ALL, ids=lambda made: made.name)
def test_the_same_seed_gives_the_same_teacher(taught: Teacher) -> None:
    x, y = rows()
    one, two = (taught.fit(x, y, CLASSES, rng=np.random.default_rng(3)).answer(x) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_row_is_answered_by_a_teacher_that_has_not_seen_it() -> None:
    x, _ = rows(60)
    y = np.random.default_rng(1).integers(0, 3, 60)  # nothing to learn, only to know by heart
    heart = teacher.held_out_answers(Nearest(), x, y, CLASSES, folds=0, rng=np.random.default_rng(0))
    honest = teacher.held_out_answers(Nearest(), x, y, CLASSES, folds=5, rng=np.random.default_rng(0))
    assert (heart.argmax(axis=1) == y).all()
    assert (honest.argmax(axis=1) == y).mean() < 0.6


def test_every_part_holds_its_share_of_a_rare_class() -> None:
    seen: list[int] = []

    @dataclass(frozen=True)
    class Counting(Teacher):
        name: ClassVar[str] = "counting"

        def fit(self, x: Any, y: Any, problem: Problem, *, rng: np.random.Generator) -> Taught:
            seen.append(int((y == 2).sum()))
            return Taught(lambda asked: np.full((len(asked), 3), 1 / 3), 0)

    x, _ = rows(50)
    y = np.array([0] * 30 + [1] * 15 + [2] * 5)
    teacher.held_out_answers(Counting(), x, y, CLASSES, folds=5, rng=np.random.default_rng(0))
    assert seen == [4] * 5


def test_the_best_teacher_is_the_one_that_answers_rows_it_has_not_seen() -> None:
    x, _ = rows(200)
    y = ((np.floor(x[:, 0]) + np.floor(x[:, 1])) % 2).astype(np.int64)  # a chequered board
    stump = "boosting:rounds=1"
    with pytest.MonkeyPatch.context() as patch:
        parsed = {stump: BoostedTrees(rounds=1, max_leaves=2), "forest": RandomForest(trees=30)}
        patch.setattr(teacher, "parse", parsed.__getitem__)
        best = Best(of=(stump, "forest")).fit(x, y, CLASSES, rng=np.random.default_rng(0))
    assert (best.answer(x).argmax(axis=1) == y).mean() > 0.9


def test_loss_is_log_loss_or_squared_error() -> None:
    answers = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    assert teacher.loss(answers, np.array([0, 2]), CLASSES) == pytest.approx(np.log(2) / 2)
    assert np.isfinite(teacher.loss(answers, np.array([0, 0]), CLASSES))
    assert teacher.loss(np.array([[1.0], [2.0]]), np.array([0.0, 2.0]), NUMBER) == 0.5
