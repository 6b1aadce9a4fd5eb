"""forest: scikit-learn's trees as arrays, votes weighted by class, hostile trees refused."""

import numpy as np
import pytest

from fusionlearn import method
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.problem import Problem

ensemble = pytest.importorskip("sklearn.ensemble")


def problem(d, classes=2, records=1000):
    labels = tuple("abcdef"[:classes]) if classes else ()
    kind = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    return Problem(kind, labels, tuple(f"x{j}" for j in range(d)), (10.0,) * d, records, 1.0 if classes else 20.0)


def rows(n, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(size=(n, 4)), -10, 10)
    score = x[:, 0] * x[:, 1] + x[:, 2]
    return x, (np.digitize(score, np.quantile(score, np.arange(1, classes) / classes)) if classes else score)


def summarize(subject, of, part, seed=0):
    return subject.summarize({"x": part[0], "y": part[1]}, of, {}, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_one_client_is_scikit_learns_forest(classes):
    x, y = rows(200, classes=classes)
    of, subject = problem(4, classes), method.make("forest", {"trees": 7, "max_leaves": 20, "min_leaf": 3})
    summary = summarize(subject, of, (x, y))
    subject.check(summary, of, {}, "here")
    model, findings = subject.fuse([summary], of, {}, rng=np.random.default_rng(0))
    kind = ensemble.RandomForestClassifier if classes else ensemble.RandomForestRegressor
    seed = int(np.random.default_rng(0).integers(2**31))
    known = kind(7, max_leaf_nodes=20, min_samples_leaf=3, random_state=seed).fit(x, y)
    fresh = rows(300, seed=9, classes=classes)[0]
    answers = subject.predict(model, {"x": fresh}, of, {})
    if classes:
        assert answers["probability"] == pytest.approx(known.predict_proba(fresh), abs=1e-6)
    else:
        assert answers["value"] == pytest.approx(known.predict(fresh), abs=1e-5)
    assert findings["trees"] == 7
    assert findings["records"] == 200
    assert findings["leaves"] == sum(tree.get_n_leaves() for tree in known.estimators_)


def test_a_union_votes_by_the_share_of_each_class():
    x, y = rows(300, seed=1)
    of, subject = problem(4), method.make("forest", {"trees": 5})
    parts = [(x[:200], y[:200]), (x[200:], y[200:])]
    summaries = [summarize(subject, of, part, seed) for seed, part in enumerate(parts)]
    model, _ = subject.fuse(summaries, of, {}, rng=np.random.default_rng(0))
    alone = []
    for summary in summaries:
        own = {**subject.fuse([summary], of, {}, rng=np.random.default_rng(0))[0], "tree_weight": np.full((5, 2), 0.2)}
        alone.append(subject.predict(own, {"x": x}, of, {})["probability"])
    counts = np.array([np.bincount(part[1], minlength=2) for part in parts])
    voted = sum(share * votes for share, votes in zip(counts / counts.sum(axis=0), alone, strict=True))
    expected = voted / voted.sum(axis=1, keepdims=True)
    assert subject.predict(model, {"x": x}, of, {})["probability"] == pytest.approx(expected, abs=1e-7)


def test_clients_with_one_class_do_not_shout_the_others_down():
    x, y = rows(900, seed=2)
    of, subject = problem(4), method.make("forest", {"trees": 10})
    zeros, ones = (60 + np.flatnonzero(y[60:] == k) for k in (0, 1))
    # By rows the clients that know class 0 only have three quarters of the votes.
    parts = [(x[part], y[part]) for part in (np.arange(60), *np.array_split(zeros[:300], 5), ones[:60])]
    model, _ = subject.fuse([summarize(subject, of, part) for part in parts], of, {}, rng=np.random.default_rng(0))
    fresh, truth = rows(400, seed=3)

    def worst_recall(of_trees):
        votes = subject.predict({**model, "tree_weight": of_trees}, {"x": fresh}, of, {})["probability"]
        return min((votes.argmax(axis=1)[truth == k] == k).mean() for k in (0, 1))

    by_rows = np.repeat([len(part[1]) for part in parts], 10)[:, None] * np.ones((1, 2))
    assert worst_recall(by_rows) < 0.05
    assert worst_recall(model["tree_weight"]) > 0.2


def test_absent_classes_and_one_class():
    x, y = rows(80, seed=4)
    of, subject = problem(4, 3), method.make("forest", {"trees": 3})
    model, findings = subject.fuse([summarize(subject, of, (x, y))], of, {}, rng=np.random.default_rng(0))
    assert findings["absent_classes"] == ["c"]
    assert subject.predict(model, {"x": x}, of, {})["probability"][:, 2].max() == 0
    with pytest.raises(UpdateError, match="one class only"):
        subject.fuse([summarize(subject, of, (x, y * 0))], of, {}, rng=np.random.default_rng(0))


def test_class_counts_are_told_for_the_report():
    x, y = rows(50, seed=5)
    of, subject = problem(4), method.make("forest", {"trees": 1})
    moments = subject.moments(summarize(subject, of, (x, y)), of)
    assert moments.count == 50
    assert moments.class_count.tolist() == np.bincount(y).tolist()
    numbers = problem(4, classes=0)
    assert subject.moments(summarize(subject, numbers, rows(50, classes=0)), numbers).class_count is None


@pytest.fixture(scope="module")
def grown():
    of, subject = problem(4), method.make("forest", {"trees": 3, "max_leaves": 8})
    summary = summarize(subject, of, rows(120, seed=6))
    inner = int(np.flatnonzero(summary["feature"] >= 0)[0])
    return of, subject, summary, inner


def changed(summary, name, where, value):
    copy = {key: array.copy() for key, array in summary.items()}
    copy[name][where] = value
    return copy


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("left", 0, "not further on"),
        ("right", 0, "not further on"),
        ("left", 10_000, "above|not further on"),
        ("feature", 4, "above"),
        ("feature", -2, "below"),
        ("threshold", np.nan, "NaN"),
        ("threshold", 11.0, "above"),
        ("value", 1.5, "above"),
        ("value", -0.5, "below"),
        ("root", 10_000, "above"),
        ("root", -1, "below"),
        ("class_count", -1, "below"),
        ("class_count", 1000, "rows, the task allows"),
    ],
)
def test_hostile_trees_are_refused(grown, name, value, told):
    of, subject, summary, inner = grown
    subject.check(summary, of, {}, "here")
    where = inner if name in ("left", "right", "feature", "threshold", "value") else 0
    with pytest.raises(UpdateError, match=told):
        subject.check(changed(summary, name, where, value), of, {}, "here")


def test_a_root_beyond_the_nodes_and_arrays_of_two_lengths_are_refused(grown):
    of, subject, summary, _ = grown
    size = len(summary["feature"])
    with pytest.raises(UpdateError, match="does not exist"):
        subject.check(changed(summary, "root", 0, size), of, {}, "here")
    subject.check(changed(summary, "root", 0, size - 1), of, {}, "here")
    for name in ("threshold", "left", "right", "value"):
        with pytest.raises(UpdateError, match="different lengths"):
            subject.check({**summary, name: summary[name][:-1]}, of, {}, "here")
    empty = {
        name: array[:0] if array.ndim and name not in ("root", "class_count") else array
        for name, array in summary.items()
    }
    with pytest.raises(UpdateError, match="different lengths or none"):
        subject.check(empty, of, {}, "here")


def test_every_row_of_a_chain_ends_in_a_leaf(grown):
    """The deepest tree that check lets through: each node leads to the next."""
    of, subject, _, _ = grown
    most = 3 * (2 * 8 - 1)
    nodes = np.arange(most, dtype=np.int32)
    summary = {
        "root": np.zeros(3, np.int32),
        "feature": np.where(nodes < most - 1, 0, -1).astype(np.int32),
        "threshold": np.zeros(most),
        "left": np.where(nodes < most - 1, nodes + 1, 0).astype(np.int32),
        "right": np.where(nodes < most - 1, nodes + 1, 0).astype(np.int32),
        "value": np.full((most, 2), 0.5, np.float32),
        "class_count": np.array([5, 5]),
    }
    subject.check(summary, of, {}, "here")
    model, _ = subject.fuse([summary], of, {}, rng=np.random.default_rng(0))
    assert subject.predict(model, {"x": np.ones((2, 4))}, of, {})["probability"].tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize(
    "settings", [{"trees": 0}, {"trees": 10_001}, {"max_leaves": 1}, {"max_leaves": 2**16 + 1}, {"min_leaf": 0}]
)
def test_settings_out_of_reach_are_refused(settings):
    with pytest.raises(SettingsError, match="forest"):
        method.make("forest", settings)


def test_size_varies_by_client_and_stays_within_what_is_declared():
    of, subject = problem(4), method.make("forest", {"trees": 4, "max_leaves": 16})
    sizes = {n: summarize(subject, of, rows(n, seed=n))["feature"].size for n in (1, 2, 12, 400)}
    assert sizes[1] == 4  # a leaf each
    assert sizes[12] < sizes[400] <= 4 * 31


def test_limits_are_met_exactly(grown):
    of, subject, summary, _ = grown
    top = subject.declare(of, {})
    assert top["value"].shape[0].most == 3 * 15
    assert top["feature"].shape[0].most == 3 * 15
    assert (top["left"].high, top["right"].high, top["root"].high) == (44, 44, 44)
    full = changed(summary, "class_count", 0, 1000 - int(summary["class_count"][1]))
    subject.check(full, of, {}, "here")
    lonely = changed(changed(summary, "class_count", 0, 1), "class_count", 1, 0)
    subject.check(lonely, of, {}, "here")
    with pytest.raises(UpdateError, match="rows, the task allows"):
        subject.check(changed(lonely, "class_count", 0, 0), of, {}, "here")


def test_a_class_of_one_row_is_a_class():
    x, y = np.vstack([np.zeros((20, 4)), np.full((1, 4), 5.0)]), np.append(np.zeros(20, int), 1)
    of, subject = problem(4), method.make("forest", {"trees": 9})
    parts = [(x[:20], y[:20]), (x[20:], y[20:])]
    model, findings = subject.fuse(
        [summarize(subject, of, part) for part in parts], of, {}, rng=np.random.default_rng(0)
    )
    assert findings["absent_classes"] == []
    assert subject.predict(model, {"x": x}, of, {})["probability"] == pytest.approx(0.5)  # one each: nobody knows


def test_many_rows_are_walked_in_pieces_of_bounded_size(monkeypatch, grown):
    from fusionlearn.methods import forest

    of, subject, summary, _ = grown
    model, _ = subject.fuse([summary], of, {}, rng=np.random.default_rng(0))
    fresh = rows(100, seed=8)[0]
    whole = subject.predict(model, {"x": fresh}, of, {})["probability"]
    assert forest.CELLS == 4_194_304
    seen = []
    walk = forest._walk
    monkeypatch.setattr(forest, "CELLS", 30)
    monkeypatch.setattr(forest, "_walk", lambda model, x: seen.append(len(x)) or walk(model, x))
    assert (subject.predict(model, {"x": fresh}, of, {})["probability"] == whole).all()
    assert seen == [10] * 10
