"""ensemble: local heads, each heard where it knows the class and the region."""

import numpy as np
import pytest

from fusionlearn import method, sums
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.methods.ensemble import GRID
from fusionlearn.problem import Problem


def problem(d, classes=2, records=1000):
    labels = tuple("abcdef"[:classes]) if classes else ()
    kind = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    return Problem(kind, labels, tuple(f"x{j}" for j in range(d)), (10.0,) * d, records, 1.0 if classes else 20.0)


def fit(of, *parts, **settings):
    subject, rng = method.make("ensemble", settings), np.random.default_rng(0)
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    for summary in summaries:
        subject.check(summary, of, {}, "here")
    model, findings = subject.fuse(summaries, of, {}, rng=rng)
    name = "probability" if of.labels else "value"
    return lambda x: subject.predict(model, {"x": np.asarray(x, float)}, of, {})[name], findings, summaries


def cluster(centre, n, rng):
    return np.clip(rng.normal(centre, 0.5, (n, 2)), -10, 10)


def test_a_client_alone_is_its_own_ridge():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = np.clip(x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=200), -20, 20)
    value, _, (summary,) = fit(problem(3, classes=0), (x, y))
    known = linear_model.LinearRegression().fit(x, y)
    assert value(x) == pytest.approx(known.predict(x), abs=0.02)  # its penalty is small, not 0
    assert summary["mean"] == pytest.approx(x.mean(0))
    assert summary["variance"] == pytest.approx(x.var(0))
    assert summary["class_count"].tolist() == [200]


def test_clients_are_heard_in_their_own_region():
    rng = np.random.default_rng(1)
    left, right = cluster((-5, 0), 100, rng), cluster((5, 0), 100, rng)
    # In each region the second column decides, the other way round.
    parts = [(left, (left[:, 1] > 0).astype(int)), (right, (right[:, 1] < 0).astype(int))]
    answers, findings, _ = fit(problem(2), *parts)
    for x, y in parts:
        assert (answers(x).argmax(axis=1) == y).mean() > 0.9
    deaf, _, _ = fit(problem(2), *parts, temper=0.0)
    assert (deaf(left).argmax(axis=1) == parts[0][1]).mean() < 0.8
    assert findings == {"records": 200, "heads": 2, "absent_classes": []}


def test_a_client_has_no_say_about_classes_it_never_saw():
    rng = np.random.default_rng(2)
    centres = {0: (-4, 0), 1: (4, 0), 2: (0, 5)}
    rows = {k: cluster(centre, 60, rng) for k, centre in centres.items()}
    pair = lambda a, b: (np.vstack([rows[a], rows[b]]), np.repeat([a, b], 60))  # noqa: E731
    answers, _, _ = fit(problem(2, 3), pair(0, 1), pair(1, 2), pair(0, 2))
    for k, x in rows.items():
        assert (answers(x).argmax(axis=1) == k).mean() > 0.95


def test_voice_grows_with_rows_and_with_the_share_of_a_class():
    rng = np.random.default_rng(3)
    x = cluster((0, 0), 400, rng)
    for_one, for_two = np.ones(400, int), np.zeros(400, int)
    for_one[:2], for_two[:2] = 0, 1  # both know both classes
    big_first, _, _ = fit(problem(2), (x, for_one), (x[:20], for_two[:20]))
    big_second, _, _ = fit(problem(2), (x[:20], for_one[:20]), (x, for_two))
    middle = x.mean(axis=0, keepdims=True)
    assert big_first(middle)[0, 1] > big_second(middle)[0, 1]


def test_probabilities_far_from_everybody_are_finite():
    rng = np.random.default_rng(4)
    x = cluster((0, 0), 30, rng)
    answers, _, _ = fit(problem(2), (x, (x[:, 0] > 0).astype(int)), (x[:1], np.array([1])))
    far = answers([[1e6, -1e6], [0, 0]])
    assert np.isfinite(far).all()
    assert far.sum(axis=1) == pytest.approx(1)


def test_absent_classes_and_one_class():
    rng = np.random.default_rng(5)
    x = cluster((0, 0), 30, rng)
    answers, findings, _ = fit(problem(2, 3), (x, (x[:, 0] > 0).astype(int)))
    assert findings["absent_classes"] == ["c"]
    assert answers(x)[:, 2].max() == 0
    with pytest.raises(UpdateError, match="one class only"):
        fit(problem(2), (x, np.zeros(30, int)))


def test_constant_columns_do_no_harm():
    rng = np.random.default_rng(6)
    x = np.column_stack([cluster((0, 0), 50, rng), np.full(50, 2.0)])
    answers, _, _ = fit(problem(3), (x[:25], (x[:25, 0] > 0).astype(int)), (x[25:], (x[25:, 0] > 0).astype(int)))
    assert (answers(x).argmax(axis=1) == (x[:, 0] > 0)).mean() > 0.9


def test_moments_and_refusals():
    rng = np.random.default_rng(7)
    x, of = cluster((1, 2), 40, rng), problem(2, records=100)
    subject = method.make("ensemble")
    summary = subject.summarize({"x": x, "y": (x[:, 0] > 1).astype(int)}, of, {}, rng=rng)
    moments = subject.moments(summary, of)
    assert moments.count == 40
    assert moments.mean == pytest.approx(x.mean(0))
    assert moments.second == pytest.approx((np.hstack([np.ones((40, 1)), x]) ** 2).sum(0))
    assert moments.class_count.tolist() == summary["class_count"].tolist()
    for count in ([0, 0], [60, 60]):
        with pytest.raises(UpdateError, match="rows, the task allows"):
            subject.check({**summary, "class_count": np.array(count)}, of, {}, "here")
    for name, value in (("variance", -1.0), ("mean", 11.0), ("weights", 1e13), ("bias", np.nan)):
        with pytest.raises(UpdateError, match=name):
            subject.check({**summary, name: np.full_like(summary[name], value)}, of, {}, "here")
    with pytest.raises(SettingsError, match="temper"):
        method.make("ensemble", {"temper": -1.0})
    assert subject.sensitivity(of, {}) is None
    assert subject.moments(summary, problem(2, classes=0)).class_count is None


def test_penalties_are_public_and_coarse():
    assert pytest.approx([10.0 ** (step / 2) for step in range(-6, 3)]) == list(GRID)


def test_heads_larger_than_any_honest_one_are_refused_at_the_limit():
    rng = np.random.default_rng(8)
    x, of, subject = cluster((0, 0), 40, rng), problem(2), method.make("ensemble")
    summary = subject.summarize({"x": x, "y": (x[:, 0] > 0).astype(int)}, of, {}, rng=rng)
    for name in ("weights", "bias"):
        subject.check({**summary, name: np.full_like(summary[name], 1e12)}, of, {}, "here")
        subject.check({**summary, name: np.full_like(summary[name], -1e12)}, of, {}, "here")
        for beyond in (1.0001e12, -1.0001e12):
            with pytest.raises(UpdateError, match=name):
                subject.check({**summary, name: np.full_like(summary[name], beyond)}, of, {}, "here")
    for name, top in (("mean", 10.0), ("variance", 100.0)):
        subject.check({**summary, name: np.full_like(summary[name], top)}, of, {}, "here")
        with pytest.raises(UpdateError, match=name):
            subject.check({**summary, name: np.full_like(summary[name], top * 1.001)}, of, {}, "here")
    with pytest.raises(UpdateError, match="rows, the task allows"):
        subject.check({**summary, "class_count": np.array([1, 1000])}, of, {}, "here")
    subject.check({**summary, "class_count": np.array([0, 1000])}, of, {}, "here")


def test_how_far_a_voice_carries():
    """The formula of the docstring, written out for two clients and one point."""
    rng = np.random.default_rng(9)
    of, subject = problem(2), method.make("ensemble", {"temper": 1.5})
    parts = [
        (x := cluster((-1, 0), 30, rng), (x[:, 0] > -1).astype(int)),
        (z := cluster((1, 1), 50, rng), (z[:, 1] > 1).astype(int)),
    ]
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    model, _ = subject.fuse(summaries, of, {}, rng=rng)
    point = np.array([[0.3, 0.4]])
    voices, votes = [], []
    for x, y in parts:
        mean, variance = x.mean(0), x.var(0)
        density = np.exp(-0.5 * ((point[0] - mean) ** 2 / variance + np.log(variance)).mean() * 1.5)
        voices.append(len(x) * density * np.bincount(y, minlength=2))
    for summary in summaries:
        score = point @ summary["weights"] + summary["bias"]
        votes.append(
            np.clip(score[0], 0, 1)
        )  # two scores that sum to 1: the nearest probabilities are the clipped ones
    counts = sum(np.bincount(y, minlength=2) for _, y in parts)
    voices = np.array(voices) / counts
    mixed = (voices * votes).sum(axis=0) / voices.sum(axis=0)
    assert subject.predict(model, {"x": point}, of, {})["probability"][0] == pytest.approx(
        mixed / mixed.sum(), rel=1e-9
    )


def test_it_promises_neither_sums_nor_exactness():
    assert method.make("ensemble").additive is False
    assert method.make("ensemble").exact is False


def test_the_only_row_of_a_class_has_its_whole_voice():
    rng = np.random.default_rng(10)
    x, of = cluster((0, 0), 40, rng), problem(2, 3)
    lonely = np.array([[6.0, 6.0]])
    y = (x[:, 0] > 0).astype(int)
    answers, _, summaries = fit(of, (np.vstack([x, lonely]), np.append(y, 2)))
    head = np.vstack([x, lonely]) @ summaries[0]["weights"] + summaries[0]["bias"]
    # One client that holds all of every class is heard fully on each: its own nearest probabilities, unchanged.
    assert answers(np.vstack([x, lonely])) == pytest.approx(sums.to_simplex(head), abs=1e-12)
