"""The controls of the distillation benchmarks: what teachers weigh, and what is left of them at a student's bytes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import distill_frozen, teachers, upload_sizes
from fusionlearn import network, teacher
from fusionlearn.problem import Problem

NAME = "mlp:hidden=32,epochs=20"
PROBLEM = Problem("multiclass", ("a", "b", "c"), tuple("pqrstu"), (8.0,) * 6, 1000)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    return np.clip(3 * np.eye(3, 6)[y] + rng.normal(size=(300, 6)), -8, 8), y


def fitted(name, rows, seed=5):
    return teacher.parse(name).fit(*rows, PROBLEM, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", [NAME, "forest:trees=5", "boosting:rounds=3"])
def test_a_teacher_weighs_what_its_arrays_do(name, rows):
    taught = fitted(name, rows)
    arrays = teachers.arrays_of(taught)
    least = sum(array.nbytes for array in arrays.values())
    assert least < teachers.num_bytes(taught) < least + 1000  # a header besides
    if name == NAME:
        assert least == 4 * network.num_weights("mlp:hidden=32", PROBLEM)


def test_a_cut_teacher_takes_the_bytes_it_may_and_loses_with_them(rows):
    taught = fitted(NAME, rows)
    own = taught.answer(rows[0]).argmax(axis=1)
    agree = {}
    for size in (300, 500, 10_000):
        less, num_bytes = teachers.cut(taught, PROBLEM, "mlp:hidden=32", 5, size, rows[0])
        assert num_bytes <= max(size, 4 * (32 + 3) * 2)  # its vectors and scales go as they are
        agree[size] = (less.answer(rows[0]).argmax(axis=1) == own).mean()
    assert agree[300] < agree[10_000]
    assert agree[10_000] > 0.99


def test_a_cut_teacher_starts_from_where_its_seed_began(rows):
    taught = fitted("mlp:hidden=32,epochs=0", rows)  # has not moved: nothing need be sent
    less, _ = teachers.cut(taught, PROBLEM, "mlp:hidden=32", 5, 300, rows[0])
    np.testing.assert_array_equal(less.answer(rows[0]).argmax(axis=1), taught.answer(rows[0]).argmax(axis=1))


def test_a_teacher_in_int8_is_a_quarter_and_answers_alike(rows):
    taught = fitted(NAME, rows)
    less, num_bytes = teachers.in_int8(taught, PROBLEM, "mlp:hidden=32")
    assert num_bytes == 6 * 32 + 32 * 3 + 4 * (32 + 3) * 2  # a byte a weight; float32 biases and scales
    assert np.abs(less.answer(rows[0]) - taught.answer(rows[0])).max() < 0.05


def test_a_remembered_teacher_learns_the_same_rows_once(rows):
    own = teachers.Remembered(teacher.parse("forest:trees=3"), 1)
    first = own.fit(*rows, PROBLEM, rng=None)
    assert own.fit(rows[0].copy(), rows[1].copy(), PROBLEM, rng=None) is first
    assert own.fit(rows[0][1:], rows[1][1:], PROBLEM, rng=None) is not first


def test_the_forest_at_a_students_bytes_fits_them():
    for size in (300, 3_000, 300_000):
        forest = teachers.smaller_forest(PROBLEM, size)
        assert sum(spec.max_bytes for spec in forest.declare(PROBLEM, {}).values()) <= size + 4 * forest.trees + 24


def test_models_are_heard_by_their_share_of_a_class():
    answers = [np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])]
    counts = np.array([[3, 0], [1, 5]])
    np.testing.assert_allclose(teachers.together(answers, counts), [[0.75 * 0.9 + 0.25 * 0.2, 0.8]])


def test_validation_rows_are_nobodys_training_rows(rows):
    everyone = distill_frozen.Part(np.arange(300.0)[:, None], rows[1])
    split = distill_frozen.three_quarters(everyone, np.arange(300) % 4, 0)
    inner = distill_frozen.validated(split)
    trained, held, tested = (
        set(np.concatenate([part.x[:, 0] for part in parts]).tolist())
        for parts in (inner.clients, [inner.test], [split.test])
    )
    assert not trained & held and not trained & tested and not held & tested
    assert len(trained | held | tested) == 300


def test_labels_of_a_plot_keep_their_distance_and_order():
    places = upload_sizes.spread([50.0, 50.1, 90.0, 50.05], 2.0)
    assert places[0] < places[3] < places[1] < places[2]
    assert min(np.diff(sorted(places))) >= 2.0 - 1e-6
