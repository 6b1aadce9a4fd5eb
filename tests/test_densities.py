"""Densities of classes: what travels, what is refused, rows drawn from them, and whose rows lie about a point."""

import numpy as np
import pytest

from fusionlearn import arrays, densities
from fusionlearn.densities import CLASS, MEAN, VARIANCE, WEIGHT, Densities
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.mixture import Mixture

BOUNDS = (10.0, 5.0)


def rows(seed, *sizes):
    """Rows of classes 0, 1, … around centres of their own."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.array([[-4.0, 1.0], [3.0, -2.0], [0.0, 3.0]])
    return np.clip(rng.normal(centres[codes], 0.8), -5, 5), codes


def sent(x, codes, components=3, seed=0):
    return densities.encode(x, codes, components, rng=np.random.default_rng(seed))


def checked(told, count, classes=3, components=3):
    arrays.check(told, densities.declare(classes, components, BOUNDS), "here")
    densities.check(told, np.asarray(count), BOUNDS, "here")


def test_a_component_speaks_of_25_rows_or_of_a_whole_class():
    x, codes = rows(0, 80, 30, 1)
    told = sent(x, codes)
    assert np.bincount(told[CLASS]).tolist() == [3, 1, 1]
    assert told[WEIGHT][told[CLASS] == 0].sum() == pytest.approx(1, abs=1e-6)
    assert told[MEAN][told[CLASS] == 1][0] == pytest.approx(x[codes == 1].mean(axis=0), abs=1e-5)
    assert told[VARIANCE][told[CLASS] == 1][0] == pytest.approx(x[codes == 1].var(axis=0), rel=1e-4)
    assert told[MEAN][-1] == pytest.approx(x[-1], abs=1e-6)  # a class of one row gives it away, as documented
    checked(told, [80, 30, 1])
    again = sent(x, codes)
    assert all(told[name].tobytes() == again[name].tobytes() for name in told)


@pytest.mark.parametrize("x", [np.zeros((1, 2)), np.full((40, 2), 3.0), np.c_[np.arange(40.0) / 10, np.ones(40)]])
def test_few_rows_and_columns_that_never_change_are_accepted(x):
    codes = np.zeros(len(x), np.int64)
    told = sent(x, codes)
    checked(told, [len(x), 0, 0])
    own = densities.decode(told, np.array([len(x), 0, 0]))
    assert densities.together([own, own], [np.eye(3)[codes]] * 2, x) == pytest.approx(np.eye(3)[codes])


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        (CLASS, lambda v: v[::-1].copy(), "not those of the classes it counts"),
        (CLASS, lambda v: np.where(v == 2, 1, v).astype(np.int32), "not those of the classes it counts"),
        (CLASS, lambda v: v[:-1], "not equally many"),
        (CLASS, lambda v: v * 0 + 7, "above 2"),
        (WEIGHT, lambda v: v * 0.5, "do not sum to 1"),
        (WEIGHT, lambda v: -v, "below 0"),
        (WEIGHT, lambda v: np.r_[0.0, v[0] + v[1], v[2:]].astype(np.float32), "do not sum to 1"),
        (MEAN, lambda v: v * np.nan, "NaN"),
        (MEAN, lambda v: v * 0 + np.float32([0, 7]), "mean of a density is beyond"),
        (MEAN, lambda v: v[:, :1], "the task says"),
        (VARIANCE, lambda v: v * 0, "not above 0"),
        (VARIANCE, lambda v: v * 0 + 26, "beyond what its column may hold"),
        (VARIANCE, lambda v: v * np.inf, "NaN or infinity"),
    ],
)
def test_densities_that_no_rows_have_are_refused(name, changed, told):
    x, codes = rows(1, 60, 30, 5)
    honest = sent(x, codes)
    checked(honest, [60, 30, 5])
    with pytest.raises(UpdateError, match=told):
        checked({**honest, name: changed(honest[name])}, [60, 30, 5])


def test_densities_belong_to_counts():
    told = sent(*rows(1, 60, 30, 5))
    for count in ([60, 30, 0], [60, 0, 35], [49, 30, 5]):  # a class too few, too many, fewer rows than it has words for
        with pytest.raises(UpdateError, match="no table of records"):
            checked(told, count)
    nothing = {name: array[:0] for name, array in told.items()}
    with pytest.raises(UpdateError, match="classes it counts"):
        checked(nothing, [60, 30, 5])


def test_columns_too_wide_for_32_bits_are_refused():
    with pytest.raises(SettingsError, match="32 bits"):
        densities.declare(2, 1, (1.0, 1e16))


def test_drawn_rows_are_those_of_all_clients():
    parts = [rows(2, 300, 100), rows(3, 0, 50, 550)]
    clients = [densities.decode(sent(x, codes), np.bincount(codes, minlength=3)) for x, codes in parts]
    drawn, labels = densities.sample(clients, 20_000, rng=np.random.default_rng(0))
    assert drawn.shape == (20_000, 2)
    assert np.bincount(labels) / 20_000 == pytest.approx([0.3, 0.15, 0.55], abs=0.02)
    for label in range(3):
        mine = np.concatenate([x[codes == label] for x, codes in parts])
        assert drawn[labels == label].mean(axis=0) == pytest.approx(mine.mean(axis=0), abs=0.1)
        assert drawn[labels == label].var(axis=0) == pytest.approx(mine.var(axis=0), abs=0.15)


MIXED = Mixture(np.array([0.4, 0.6]), np.array([[0.0, 0], [1, 1]]), np.array([[1.0, 2], [0.5, 1]]))
ONE = Densities(np.array([30.0, 10.0]), {0: MIXED, 1: Mixture(np.ones(1), np.array([[2.0, -1]]), np.ones((1, 2)))})
TWO = Densities(np.array([0.0, 60.0]), {1: Mixture(np.ones(1), np.array([[1.0, 0]]), np.full((1, 2), 3.0))})
SAID = [np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([[0.0, 1.0], [0.0, 1.0]])]


@pytest.mark.parametrize("temper", [1.0, 0.4, 0.0])
def test_what_is_said_together_is_the_formula_of_the_docstring(temper):
    within = (30 * (0.4 * np.array([1.0, 2]) + 0.6 * np.array([0.5, 1])) + 10 * np.ones(2) + 60 * np.full(2, 3.0)) / 100
    x = np.array([[0.3, 0.4], [5.0, -3.0]])

    def normal(mean, variance):
        blended = 0.7 * np.asarray(variance) + 0.3 * within
        return np.prod(np.exp(-0.5 * (x - mean) ** 2 / blended) / np.sqrt(2 * np.pi * blended), axis=1)

    first = (0.4 * normal([0, 0], [1, 2]) + 0.6 * normal([1, 1], [0.5, 1])) ** (temper / 2) * SAID[0][:, 0]
    second = 10 / 70 * normal([2, -1], [1, 1]) ** (temper / 2) * SAID[0][:, 1]
    second += 60 / 70 * normal([1, 0], [3, 3]) ** (temper / 2) * SAID[1][:, 1]
    wanted = np.stack([first, second], axis=1) ** 3
    found = densities.together([ONE, TWO], iter(SAID), x, temper)
    assert found == pytest.approx(wanted / wanted.sum(axis=1, keepdims=True), rel=1e-9)
    assert densities.together([TWO, ONE], SAID[::-1], x, temper) == pytest.approx(found, rel=1e-12)


def test_whose_rows_lie_about_a_point_is_the_formula_of_the_docstring():
    within = (30 * (0.4 * np.array([1.0, 2]) + 0.6 * np.array([0.5, 1])) + 10 * np.ones(2) + 60 * np.full(2, 3.0)) / 100
    x = np.array([[0.3, 0.4], [5.0, -3.0]])

    def normal(mean, variance):
        blended = 0.7 * np.asarray(variance) + 0.3 * within
        return np.prod(np.exp(-0.5 * (x - mean) ** 2 / blended) / np.sqrt(2 * np.pi * blended), axis=1)

    of_one = 30 * (0.4 * normal([0, 0], [1, 2]) + 0.6 * normal([1, 1], [0.5, 1])) + 10 * normal([2, -1], [1, 1])
    of_two = 60 * normal([1, 0], [3, 3])
    assert densities.shares([ONE, TWO], x) == pytest.approx(np.stack([of_one, of_two]) / (of_one + of_two), rel=1e-9)
    far = densities.shares([ONE, TWO], np.array([[1e9, -1e9]]))
    assert np.isfinite(far).all() and far.sum() == pytest.approx(1)


def test_many_columns_are_trusted_like_ten_where_rows_were_drawn():
    def found(width):
        parts = [Mixture(np.ones(1), np.full((1, width), at), np.ones((1, width))) for at in (0.0, 0.5)]
        return densities.shares([Densities(np.ones(1), {0: part}) for part in parts], np.full((1, width), 0.4))

    assert found(40) == pytest.approx(found(10))
    assert found(5) != pytest.approx(found(10))


def test_many_columns_are_trusted_like_one():
    def found(width):
        parts = [Mixture(np.ones(1), np.full((1, width), at), np.ones((1, width))) for at in (0.0, 0.5)]
        clients = [Densities(np.array([1.0, 1.0]), {0: part, 1: part}) for part in parts]
        return densities.together(clients, [np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])], np.full((1, width), 0.4))

    assert found(40) == pytest.approx(found(1))
    assert found(40)[0, 1] > 0.5  # the second client's rows are nearer


def test_values_are_averaged_by_where_rows_lie():
    parts = [Mixture(np.ones(1), np.full((1, 1), at), np.ones((1, 1))) for at in (-3.0, 3.0)]
    clients = [Densities(np.array([rows]), {0: part}) for rows, part in zip((10.0, 30.0), parts, strict=True)]
    said = [np.full((3, 1), -5.0), np.full((3, 1), 7.0)]
    found = densities.together(clients, said, np.array([[-9.0], [0.0], [9.0]]))[:, 0]
    assert found == pytest.approx([-5.0, 4.0, 7.0], abs=1e-3)  # in the middle by rows alone: (10 · -5 + 30 · 7) / 40


def test_far_from_everybody_somebody_is_heard():
    clients = [densities.decode(sent(*rows(seed, 30, 30)), np.array([30, 30, 0])) for seed in range(2)]
    said = [np.tile([0.9, 0.1, 0.0], (2, 1)), np.tile([0.2, 0.8, 0.0], (2, 1))]
    found = densities.together(clients, said, np.array([[1e9, -1e9], [0.0, 0.0]]))
    assert np.isfinite(found).all() and found.sum(axis=1) == pytest.approx(1) and (found[:, 2] == 0).all()


def test_moments_are_those_of_the_rows():
    x, codes = rows(4, 90, 40)
    mean, square = densities.moments(densities.decode(sent(x, codes), np.array([90, 40, 0])))
    assert mean == pytest.approx(x.mean(axis=0), abs=1e-4)
    assert square == pytest.approx((x**2).mean(axis=0), rel=1e-3)
