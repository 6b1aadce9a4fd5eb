"""synthesize: densities recovered, rows drawn as the counts say, small classes blurred, hostile updates refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import file, logistic, method, partition, settings, sums
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.methods.synthesize import Synthesize
from fusionlearn.problem import Problem
from fusionlearn.types import UPDATE_HEADER

BOUND = 10.0


def problem(d: int, classes: int = 2, records: int = 100_000) -> Problem:
    labels = tuple("abcdefghij"[:classes]) if classes else ()
    kind = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    return Problem(kind, labels, tuple(f"x{j}" for j in range(d)), (BOUND,) * d, records, 1.0 if classes else 20.0)


def sent(subject: Synthesize, of: Problem, *parts: tuple[Any, Any], seed: int = 0) -> list[dict[str, Any]]:
    """The clients' summaries, each of which the server accepts."""
    found = [
        subject.summarize({"x": np.asarray(x, float), "y": np.asarray(y)}, of, {}, rng=np.random.default_rng(seed))
        for x, y in parts
    ]
    for summary in found:
        subject.check(summary, of, {}, "here")
    return found


def fit(subject: Synthesize, of: Problem, *parts: tuple[Any, Any]) -> tuple[Any, dict[str, Any]]:
    model, findings = subject.fuse(sent(subject, of, *parts), of, {}, rng=np.random.default_rng(0))
    name = "probability" if of.labels else "value"
    return lambda x: subject.predict(model, {"x": np.asarray(x, float)}, of, {})[name], findings


def slanted(n: int, rng: np.random.Generator, centre: Any = (1.0, -2.0, 3.0)) -> Any:
    """Rows whose columns hang together: 0.8 between the first two, the third apart."""
    mixing = np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.3]])
    return rng.standard_normal((n, 3)) @ mixing + centre


# --- densities and draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["low_rank", "shared", "diagonal"])
def test_what_is_sent_is_the_mean_and_covariance_of_the_class(covariance: Any) -> None:
    rng, of = np.random.default_rng(0), problem(3)
    x = np.vstack([slanted(4000, rng), slanted(4000, rng, (-4, 4, 0))])
    y = np.repeat([0, 1], 4000)
    (summary,) = sent(Synthesize(covariance=covariance, rank=2), of, (x, y))
    assert summary["class_count"].tolist() == [4000, 4000]
    assert summary["component_class"].tolist() == [0, 1]
    deviation = summary["deviation"].astype(float) * BOUND
    for label in (0, 1):
        own = () if covariance == "shared" else label
        factor = summary["factor"][own].astype(float) * BOUND if covariance != "diagonal" else np.zeros((0, 3))
        told = np.diag(deviation[own] ** 2) + factor.T @ factor
        known = np.cov(x[y == label].T, bias=True)
        assert summary["mean"][label] * BOUND == pytest.approx(x[y == label].mean(axis=0), abs=1e-4)
        # 10 of 4,010 rows are the other class's, and a float16 has 11 bits.
        assert told == pytest.approx(known if covariance != "diagonal" else np.diag(np.diag(known)), abs=0.04)


def test_rows_are_drawn_with_the_moments_and_counts_of_all_clients() -> None:
    rng, of = np.random.default_rng(1), problem(3)
    parts = [(slanted(600, rng), np.zeros(600, int)), (slanted(200, rng, (-4, 4, 0)), np.ones(200, int))]
    subject = Synthesize(samples=40_000, rank=3)
    x, y = subject.sample(sent(subject, of, *parts), of, np.random.default_rng(0))
    assert np.bincount(y).tolist() == [30_000, 10_000]
    for label, (rows, _) in enumerate(parts):
        assert x[y == label].mean(axis=0) == pytest.approx(rows.mean(axis=0), abs=0.05)
        assert np.cov(x[y == label].T) == pytest.approx(np.cov(rows.T), abs=0.06)


def test_a_class_is_drawn_from_each_client_by_its_share_of_it() -> None:
    rng, of = np.random.default_rng(2), problem(1)
    here, there = rng.normal(-5, 0.1, (300, 1)), rng.normal(5, 0.1, (100, 1))
    parts = [(here, np.arange(300) % 2), (there, np.zeros(100, int))]
    subject = Synthesize(samples=20_000)
    x, y = subject.sample(sent(subject, of, *parts), of, np.random.default_rng(0))
    assert (x[y == 0] > 0).mean() == pytest.approx(100 / 250, abs=0.02)
    assert (x[y == 1] > 0).mean() == 0


def test_a_rare_class_is_drawn_often_enough_and_rows_stay_within_their_bounds() -> None:
    rng, of = np.random.default_rng(3), problem(2, 3)
    x = np.clip(rng.normal(0, 8, (3000, 2)), -BOUND, BOUND)
    y = np.where(np.arange(3000) < 6, 2, np.arange(3000) % 2)
    subject = Synthesize(samples=1000)
    drawn, labels = subject.sample(sent(subject, of, (x, y)), of, np.random.default_rng(0))
    assert (labels == 2).sum() == 20
    assert np.abs(drawn).max() == BOUND


def test_several_gaussians_follow_a_class_of_several_heaps() -> None:
    rng, of = np.random.default_rng(4), problem(2)
    heaps = np.vstack([rng.normal(centre, 0.5, (300, 2)) for centre in [(-5, -5), (5, 5)]])
    other = np.vstack([rng.normal(centre, 0.5, (300, 2)) for centre in [(-5, 5), (5, -5)]])
    parts = (np.vstack([heaps, other]), np.repeat([0, 1], 600))
    test = np.vstack([rng.normal(centre, 0.5, (50, 2)) for centre in [(-5, -5), (5, 5), (-5, 5), (5, -5)]])
    truth = np.repeat([0, 1], 100)
    answers, _ = fit(Synthesize(components=2, student="mlp:hidden=16", samples=2000), of, parts)
    assert (answers(test).argmax(axis=1) == truth).mean() > 0.98
    (summary,) = sent(Synthesize(components=2), of, parts)
    assert summary["component_class"].tolist() == [0, 0, 1, 1]
    assert summary["weight"] == pytest.approx(0.5, abs=0.01)


def test_no_gaussian_speaks_of_fewer_rows_than_the_least() -> None:
    rng, of = np.random.default_rng(5), problem(2)
    x = np.vstack([rng.normal(0, 1, (60, 2)), rng.normal(9, 0.01, (3, 2)), rng.normal(-5, 1, (63, 2))])
    y = np.repeat([0, 1], 63)
    for least in (3, 10):
        (summary,) = sent(Synthesize(components=8, min_rows=least), of, (x, y))
        rows = summary["weight"].astype(float) * summary["class_count"][summary["component_class"]]
        assert rows.min() >= least * 0.99
        assert len(rows) > 2


def test_the_variance_of_few_rows_leans_on_that_of_the_other_classes() -> None:
    rng, of = np.random.default_rng(18), problem(2)
    many, few = rng.normal(0, 2, (400, 2)), rng.normal(5, 0.5, (6, 2))
    (summary,) = sent(Synthesize(covariance="diagonal"), of, (np.vstack([many, few]), np.repeat([0, 1], [400, 6])))
    within = (400 * many.var(axis=0) + 6 * few.var(axis=0)) / 406
    known = (6 * few.var(axis=0) + 10 * within) / 16
    assert (summary["deviation"][1].astype(float) * BOUND) ** 2 == pytest.approx(known, rel=0.005)


# --- small classes --------------------------------------------------------------------------------------------------


def test_a_class_of_few_rows_is_blurred_as_one_more_row_would_be() -> None:
    rng, of = np.random.default_rng(6), problem(3, 3)
    x, lonely = slanted(500, rng, (0, 0, 0)), np.array([[2.0, 1.0, -1.0]])
    y = np.append(np.arange(500) % 2, 2)
    known = np.sqrt(np.diag(np.cov(x.T)))
    errors = []
    for k in range(200):
        rows = np.vstack([x, lonely])
        rows[0, 0] += 1e-9 * k  # another table, another blur
        (summary,) = sent(Synthesize(rank=2), of, (rows, y))
        assert summary["class_count"].tolist() == [250, 250, 1]
        errors.append((summary["mean"][2] * BOUND - lonely[0]) / known)
    assert np.std(errors, axis=0) == pytest.approx(1.0, abs=0.15)
    assert np.mean(errors, axis=0) == pytest.approx(0.0, abs=0.25)
    assert np.abs(errors).min() > 0


def test_what_is_sent_of_other_classes_holds_nothing_of_a_class_of_few_rows() -> None:
    rng, of = np.random.default_rng(7), problem(3, 3)
    x = np.column_stack([slanted(300, rng), np.full(300, 4.0)])
    of = problem(4, 3)
    y = np.append(np.arange(300) % 2, [2, 2])
    subject = Synthesize(rank=2)
    one, two = (
        sent(subject, of, (np.vstack([x, lonely]), y))[0]
        for lonely in ([[0, 0, 0, 1.0], [1, 1, 1, 2.0]], [[5, 5, 5, -9.0], [6, 6, 6, -8.0]])
    )
    for name in one:
        if name == "mean":
            assert (one[name][:2] == two[name][:2]).all()
        else:
            assert (one[name] == two[name]).all()
    # A column that never changes in the large classes would carry no blur: their value stands for the small one's.
    assert one["mean"][2, 3] * BOUND == pytest.approx(4.0)
    assert two["mean"][2, 3] * BOUND == pytest.approx(4.0)


def test_the_blur_is_not_known_to_who_knows_the_generator() -> None:
    of, x = problem(3, 2), np.array([[1.0, 2.0, 3.0]])
    subject = Synthesize()
    (one,) = sent(subject, of, (x, [0]))
    (two,) = sent(subject, of, (x + np.array([0.001, 0, 0]), [0]))
    moved = (two["mean"][0] - one["mean"][0]) * BOUND
    assert np.abs(moved).min() > 0.01  # the same noise would have left the record's own difference


def test_clients_of_one_class_and_of_one_record_are_accepted() -> None:
    rng, of = np.random.default_rng(8), problem(2)
    left, right = rng.normal(-3, 1, (80, 2)), rng.normal(3, 1, (80, 2))
    parts = [(left, np.zeros(80, int)), (right, np.ones(80, int)), (right[:1], np.ones(1, int))]
    answers, findings = fit(Synthesize(), of, *parts)
    assert (answers(np.vstack([left, right])).argmax(axis=1) == np.repeat([0, 1], 80)).mean() > 0.98
    assert findings["records"] == 161
    assert findings["blurred_classes"] == []
    _, findings = fit(Synthesize(), of, (left, np.zeros(80, int)), (right[:4], np.ones(4, int)))
    assert findings["blurred_classes"] == ["b"]


def test_equal_rows_and_constant_columns_do_no_harm() -> None:
    rng, of = np.random.default_rng(9), problem(3)
    x = np.column_stack([rng.normal(-2, 1, (50, 2)), np.full(50, 2.0)])
    answers, _ = fit(Synthesize(), of, (x, np.zeros(50, int)), (np.tile([[2.0, 2.0, 2.0]], (50, 1)), np.ones(50, int)))
    assert (answers(x).argmax(axis=1) == 0).mean() > 0.95
    assert answers([[2.0, 2.0, 2.0]]).argmax() == 1


# --- fusing ---------------------------------------------------------------------------------------------------------


def digits() -> tuple[Any, Any, Any, Any]:
    load = pytest.importorskip("sklearn.datasets").load_digits
    x, y = load(return_X_y=True)
    return x[::2] / 16 * BOUND, y[::2], x[1::2] / 16 * BOUND, y[1::2]


@pytest.mark.parametrize("student", ["logistic", "ridge", "mlp:hidden=32"])
def test_under_label_skew_the_fused_model_is_better_than_every_client(student: str) -> None:
    x, y, test, truth = digits()
    of, subject = problem(64, 10), Synthesize(student=student, samples=4000, rate=0.02)
    parts = [(x[rows], y[rows]) for rows in partition.dirichlet(y, 10, 0.1, at_least=10, rng=np.random.default_rng(0))]
    answers, _ = fit(subject, of, *parts)
    fused = (answers(test).argmax(axis=1) == truth).mean()
    alone = []
    for rows, labels in parts:
        if len(np.unique(labels)) > 1:
            weights, bias = logistic.fit(rows, labels, 10, 1e-3)
            alone.append(((test @ weights + bias).argmax(axis=1) == truth).mean())
    assert fused > 0.9
    assert fused > max(alone) + 0.2


def test_the_order_of_updates_does_not_matter_and_a_class_nobody_holds_is_never_answered() -> None:
    task = fl.new_task(
        "t",
        {"x": fl.Vector(2, -BOUND, BOUND, 0, 1)},
        fl.ClassLabel("y", {"a": ["0"], "b": ["1"], "c": ["2"]}),
        method="synthesize",
        privacy=fl.Privacy("none", "allow"),
        max_records=1000,
    )
    rng = np.random.default_rng(10)
    tables = [{"x": rng.normal(k, 1, (40, 2)), "y": np.full(40, k % 2)} for k in range(3)]
    updates = [fl.summarize(task, table) for table in tables]
    one, _ = fl.fuse(task, updates)
    two, report = fl.fuse(task, updates[::-1])
    assert file.digest(one) == file.digest(two)
    assert report.findings["absent_classes"] == ["c"]
    assert fl.predict(one, tables[0])["probability"][:, 2].max() == 0
    network = dataclasses.replace(task, method=Synthesize(student="mlp:hidden=4", samples=200))
    told = fl.fuse(network, [fl.summarize(network, table) for table in tables])[0]
    assert fl.predict(told, tables[0])["probability"][:, 2].max() < 1e-9


@pytest.mark.parametrize("student", ["ridge", "mlp:hidden=16"])
def test_numbers_are_drawn_together_with_their_features(student: str) -> None:
    rng, of = np.random.default_rng(11), problem(3, 0)
    x = slanted(900, rng, (0, 0, 0))
    y = np.clip(x @ [3.0, -2.0, 5.0] + 0.3 * rng.standard_normal(900), -20, 20)
    order = np.argsort(y)  # each client sees its own range of answers
    parts = [(x[rows], y[rows]) for rows in np.array_split(order, 3)]
    value, _ = fit(Synthesize(student=student, samples=3000, rate=0.02, rank=4), of, *parts)
    assert ((value(x) - y) ** 2).mean() < 0.06 * y.var()
    with pytest.raises(SettingsError, match="'logistic' tells classes apart"):
        Synthesize().declare(of, {})


def test_one_class_in_all_is_refused() -> None:
    x = np.random.default_rng(12).normal(size=(30, 2))
    with pytest.raises(UpdateError, match="one class only"):
        fit(Synthesize(), problem(2), (x, np.zeros(30, int)))


# --- what the server refuses ----------------------------------------------------------------------------------------


def altered(name: str, change: Any) -> dict[str, Any]:
    rng = np.random.default_rng(13)
    x, y = rng.normal(size=(60, 3)), np.repeat([0, 1], 30)
    x[::2] += 5  # two heaps in each class
    (summary,) = sent(Synthesize(components=2), problem(3, 3, 100), (x, y))
    return {**summary, name: change(summary[name].copy())}


def at(place: Any, value: float) -> Any:
    def change(array: Any) -> Any:
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("deviation", at((0, 0), -0.1), "'deviation' holds entries below 0"),
        ("deviation", at((0, 0), np.nan), "'deviation' holds NaN"),
        ("deviation", at((0, 0), 1.0), None),
        ("factor", at((0, 0, 0), np.inf), "'factor' holds NaN or infinity"),
        ("factor", at((0, slice(0, 2), 0), 0.9), "a variance is larger than its column's bound"),
        ("mean", at((0, 0), np.nan), "'mean' holds NaN"),
        ("mean", at((0, 0), 1.1), "'mean' holds entries above 1"),
        ("weight", at(0, 0.0), "the weights of a class do not sum to 1"),
        ("weight", at(slice(None), 1.0), "the weights of a class do not sum to 1"),
        ("weight", lambda weight: weight[:-1], "different lengths"),
        ("factor", lambda factor: factor[:-1], "different lengths"),
        ("component_class", at(0, 2), "not those of the classes it has rows of"),
        ("component_class", at(slice(None), 0), "not those of the classes it has rows of"),
        ("component_class", at(0, 3), "'component_class' holds entries above 2"),
        ("component_class", at(0, -1), "'component_class' holds entries below 0"),
        ("component_class", at(1, 1), "weights of a class do not sum to 1|more than 2 Gaussians"),
        ("class_count", at(1, 71), "speaks of 101 rows, the task allows 1 to 100"),
        ("class_count", at(0, 101), "'class_count' holds entries above 100"),
        ("class_count", at(slice(None), 0), "speaks of 0 rows"),
        ("class_count", at(2, 1), "not those of the classes it has rows of"),
    ],
)
def test_updates_that_no_table_gave_are_refused(name: str, change: Any, told: str | None) -> None:
    summary = altered(name, change)
    if told is None:  # at the limit
        summary["factor"][0, :, 0] = 0
        Synthesize(components=2).check(summary, problem(3, 3, 100), {}, "here")
        return
    with pytest.raises(UpdateError, match=f"here.*({told})"):
        Synthesize(components=2).check(summary, problem(3, 3, 100), {}, "here")


def test_more_gaussians_than_the_task_allows_are_refused() -> None:
    summary = altered("weight", lambda weight: weight)
    again = [0, 0, 1, 2, 3]  # three of the first class, five in all: six may come
    more = {key: array if key == "class_count" else array[again] for key, array in summary.items()}
    more["weight"][:2] /= 2
    with pytest.raises(UpdateError, match="more than 2 Gaussians"):
        Synthesize(components=2).check(more, problem(3, 3, 100), {}, "here")
    Synthesize(components=3).check(more, problem(3, 3, 100), {}, "here")


def test_moments_for_the_leakage_page_are_those_of_the_rows() -> None:
    rng, of = np.random.default_rng(14), problem(3)
    x, y = np.vstack([slanted(200, rng), slanted(300, rng, (0, 1, 2))]), np.repeat([0, 1], [200, 300])
    subject = Synthesize(components=2)
    moments = subject.moments(sent(subject, of, (x, y))[0], of)
    assert moments is not None and moments.second is not None and moments.class_count is not None
    assert moments.count == 500
    assert moments.class_count.tolist() == [200, 300]
    assert moments.mean == pytest.approx(x.mean(axis=0), abs=0.01)
    assert moments.second[1:] == pytest.approx((x**2).sum(axis=0), rel=0.05)
    assert subject.sensitivity(of, {}) is None


# --- sizes and settings ---------------------------------------------------------------------------------------------

TOML = """\
name = "t"
max_bytes = {max_bytes}
max_records = 1000
[method]
name = "synthesize"
rank = 0
covariance = "{covariance}"
[columns.x]
length = 64
low = -1
high = 1
[label]
column = "y"
classes = {{a = ["0"], b = ["1"]}}
[privacy]
mode = "none"
"""


@pytest.mark.parametrize("covariance", ["low_rank", "shared"])
def test_rank_0_is_the_most_that_max_bytes_allows(tmp_path: Any, covariance: str) -> None:
    path = tmp_path / "task.toml"
    path.write_text(TOML.format(max_bytes=UPDATE_HEADER + 4000, covariance=covariance))
    task = settings.task_from_toml(path)
    chosen = task.method
    assert isinstance(chosen, Synthesize)
    size = lambda rank: sum(  # noqa: E731
        spec.max_bytes for spec in dataclasses.replace(chosen, rank=rank).declare(task.problem, {}).values()
    )
    assert size(chosen.rank) <= 4000 < size(chosen.rank + 1)
    path.write_text(TOML.format(max_bytes=UPDATE_HEADER + 400, covariance=covariance))
    with pytest.raises(SettingsError, match=f"takes {size(1)} bytes with rank 1.* at least {size(1) - 400} higher"):
        settings.task_from_toml(path)
    path.write_text(TOML.format(max_bytes=UPDATE_HEADER + size(1), covariance=covariance))
    assert settings.task_from_toml(path).method == dataclasses.replace(chosen, rank=1)
    path.write_text(TOML.format(max_bytes=10**7, covariance=covariance))
    assert settings.task_from_toml(path).method == dataclasses.replace(chosen, rank=64)
    path.write_text(TOML.format(max_bytes=0, covariance=covariance))
    with pytest.raises(SettingsError, match="as max_bytes allows, and the task has no max_bytes"):
        settings.task_from_toml(path)


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"components": 0}, {"rank": -1}, {"min_rows": 0}, {"samples": 0}, {"decay": 0.0}):
        with pytest.raises(SettingsError, match=r"may be|must be"):
            method.make("synthesize", wrong)
    with pytest.raises(SettingsError, match="no network is called 'tree'"):
        method.make("synthesize", {"student": "tree"})
    assert not method.make("synthesize").additive
    assert not method.make("synthesize").exact


def test_a_pretrained_network_is_where_training_starts() -> None:
    rng, of = np.random.default_rng(15), problem(2)
    x = rng.normal(size=(200, 2)) * 2
    y = (x[:, 0] > 0).astype(int)
    subject = Synthesize(student="mlp:hidden=8", epochs=3)
    prior = subject.pretrain({"x": x, "y": y}, of, {}, rng=np.random.default_rng(0))
    assert set(prior) == {f"network.{name}" for name in ("body.0.weight", "body.0.bias", "head.weight", "head.bias")}
    still = dataclasses.replace(subject, epochs=0)
    model, _ = still.fuse(sent(still, of, (x, y)), of, prior, rng=rng)
    assert all((model[name] == prior[name]).all() for name in prior)
    assert Synthesize().pretrain({"x": x, "y": y}, of, {}, rng=rng) == {}


# --- logistic -------------------------------------------------------------------------------------------------------


def test_logistic_regression_is_the_known_one() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y, test, _ = digits()
    weights, bias = logistic.fit(x, y, 10, 1e-2)
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    known = linear_model.LogisticRegression(C=1 / (1e-2 * len(x)), max_iter=2000, tol=1e-8).fit(x / scale, y)
    assert sums.softmax(test @ weights + bias) == pytest.approx(known.predict_proba(test / scale), abs=0.01)
    assert (weights[x.std(axis=0) == 0] == 0).all()


def test_logistic_regression_leaves_out_classes_without_rows() -> None:
    rng = np.random.default_rng(16)
    x = rng.normal(size=(100, 2))
    weights, bias = logistic.fit(x, np.where(x[:, 0] > 0, 3, 1), 4, 1e-3)
    probability = sums.softmax(x @ weights + bias)
    assert probability[:, [0, 2]].max() == 0
    assert (probability.argmax(axis=1) == np.where(x[:, 0] > 0, 3, 1)).mean() > 0.97
