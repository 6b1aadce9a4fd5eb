"""ridge against the textbook and scikit-learn, on the pooled rows."""

import math

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import arrays, method, sums
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.heads import GRID
from fusionlearn.problem import Problem

RNG = np.random.default_rng(0)


def problem(d, labels=(), bound=6.0, target=10.0, records=1000):
    kind = "regression" if not labels else "binary" if len(labels) == 2 else "multiclass"
    names = tuple(f"x{j}" for j in range(d))
    return Problem(kind, tuple(labels), names, (bound,) * d, records, target if not labels else 1.0)


def rows(n, d, seed=0, classes=0):
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d))), -6, 6)
    y = x @ rng.normal(size=d) / d + 0.5 * rng.normal(size=n) + 1.0
    return x, (np.digitize(y, np.quantile(y, np.arange(1, classes) / classes)) if classes else np.clip(y, -10, 10))


def fit(subject, of, *parts):
    rng = np.random.default_rng(0)
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    return subject.fuse(summaries, of, {}, rng=rng)


@pytest.mark.parametrize("penalty", [0.0, 0.01, 1.0])
def test_regression_is_ridge_on_standardised_columns(penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rows(80, 5)
    model, findings = fit(method.make("ridge", {"penalty": penalty}), problem(5), (x[:30], y[:30]), (x[30:], y[30:]))
    scale = x.std(axis=0)
    known = linear_model.Ridge(alpha=penalty * 80).fit(x / scale, y)
    assert model["weights"][:, 0] == pytest.approx(known.coef_ / scale, rel=1e-8)
    assert model["bias"] == pytest.approx(known.intercept_, rel=1e-8)
    assert findings["penalty"] == pytest.approx(penalty)
    assert findings["records"] == 80


def test_penalty_is_the_one_of_generalised_cross_validation():
    x, y = rows(60, 8, seed=4)
    _, findings = fit(method.make("ridge"), problem(8), (x, y))
    z, target = (x - x.mean(0)) / x.std(0), y - y.mean()
    scores = []
    for relative in GRID:
        hat = z @ np.linalg.solve(z.T @ z + relative * 60 * np.eye(8), z.T)
        freedom = np.trace(hat) + 1
        scores.append(60 * ((target - hat @ target) ** 2).sum() / (60 - freedom) ** 2)
    best = GRID[int(np.argmin(scores))]
    assert findings["penalty"] == pytest.approx(best, rel=1e-9)
    hat = z @ np.linalg.solve(z.T @ z + best * 60 * np.eye(8), z.T)
    assert findings["degrees_of_freedom"] == pytest.approx(np.trace(hat) + 1, rel=1e-9)


def test_grid_is_coarse_public_and_ties_go_to_the_larger():
    assert pytest.approx([10.0 ** (k / 2) for k in range(-10, 3)]) == list(GRID)
    nothing = sums.Standardised(
        10.0, np.zeros(2), np.ones(2), np.zeros(1), np.zeros((2, 2)), np.zeros((2, 1)), np.ones(1), np.ones(2, bool)
    )
    assert sums.ridge(nothing, 10.0, GRID).penalty == pytest.approx(max(GRID) * 10)


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_are_one_hot_targets_with_free_bias(classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rows(120, 4, seed=2, classes=classes)
    of = problem(4, [str(k) for k in range(classes)])
    model, _ = fit(method.make("ridge", {"penalty": 0.1}), of, (x[:50], y[:50]), (x[50:], y[50:]))
    scale = x.std(axis=0)
    known = linear_model.Ridge(alpha=12.0).fit(x / scale, np.eye(classes)[y])
    assert pytest.approx(known.coef_ / scale, rel=1e-8, abs=1e-12) == model["weights"].T
    assert model["bias"] == pytest.approx(known.intercept_, rel=1e-8)
    answers = method.make("ridge").predict(model, {"x": x}, of, {})["probability"]
    assert (answers.argmax(axis=1) == known.predict(x / scale).argmax(axis=1)).all()


def test_class_weights_are_row_weights():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rows(150, 3, seed=5, classes=2)
    of, weight = problem(3, ["no", "yes"]), np.array([1.0, 5.0])
    model, _ = fit(
        method.make("ridge", {"penalty": 0.0, "class_weights": weight.tolist()}), of, (x[:9], y[:9]), (x[9:], y[9:])
    )
    known = linear_model.LinearRegression().fit(x, np.eye(2)[y], sample_weight=weight[y])
    assert pytest.approx(known.coef_, rel=1e-8) == model["weights"].T
    assert model["bias"] == pytest.approx(known.intercept_, rel=1e-8)


def test_standard_errors_and_intervals_are_the_classical_ones():
    stats = pytest.importorskip("scipy.stats")
    x, y = rows(40, 3, seed=6)
    model, findings = fit(
        method.make("ridge", {"penalty": 0.0, "confidence": 0.9}), problem(3), (x[:10], y[:10]), (x[10:], y[10:])
    )
    z = np.hstack([np.ones((40, 1)), x])
    beta = np.linalg.lstsq(z, y, rcond=None)[0]
    variance = ((y - z @ beta) ** 2).sum() / (40 - 4)
    errors = np.sqrt(np.diag(variance * np.linalg.inv(z.T @ z)))
    assert model["standard_error"][:, 0] == pytest.approx(errors, rel=1e-8)
    reach = stats.t.ppf(0.95, 36)
    for row, value, error in zip(findings["coefficients"], beta, errors, strict=True):
        assert row["value"] == pytest.approx(value, rel=1e-7)
        assert row["interval"] == pytest.approx([value - reach * error, value + reach * error], rel=1e-6)
    assert [row["name"] for row in findings["coefficients"]] == ["bias", "x0", "x1", "x2"]


def test_no_standard_errors_without_rows_to_spare():
    x, y = rows(4, 3, seed=7)
    model, findings = fit(method.make("ridge", {"penalty": 0.0}), problem(3), (x, y))
    assert "standard_error" not in model
    assert "coefficients" not in findings


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(8), 0
    subject = method.make("ridge", {"penalty": 0.0})
    for _ in range(200):
        x = rng.uniform(-2, 2, (30, 2))
        y = x @ [1.0, -2.0] + 0.5 + rng.normal(size=30)
        _, findings = fit(subject, problem(2, target=20.0), (x[:7], y[:7]), (x[7:], y[7:]))
        low, high = findings["coefficients"][1]["interval"]
        hits += low <= 1.0 <= high
    assert 180 <= hits <= 199  # 95 % of 200, give or take three standard deviations


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 400])
@pytest.mark.parametrize("level", [0.75, 0.95, 0.975, 0.999])
def test_student_quantiles(freedom, level):
    stats = pytest.importorskip("scipy.stats")
    assert sums.student_quantile(level, freedom) == pytest.approx(stats.t.ppf(level, freedom), rel=1e-6)


def test_constant_and_repeated_columns_get_finite_weights_that_predict():
    x, y = rows(50, 2, seed=9)
    wide = np.column_stack([x, np.full(50, 3.0), x[:, 0]])
    model, findings = fit(method.make("ridge"), problem(4), (wide[:20], y[:20]), (wide[20:], y[20:]))
    assert findings["constant_columns"] == ["x2"]
    assert model["weights"][2, 0] == 0.0
    assert model["weights"][0, 0] == pytest.approx(model["weights"][3, 0], rel=1e-6)


def test_absent_classes_are_named_and_never_win():
    x, y = rows(60, 3, seed=10, classes=2)
    of = problem(3, ["a", "b", "never"])
    model, findings = fit(method.make("ridge"), of, (x, y))
    assert findings["absent_classes"] == ["never"]
    assert 2 not in method.make("ridge").predict(model, {"x": x * 9}, of, {})["probability"].argmax(axis=1)


def test_one_class_in_total_is_refused_one_class_at_a_client_is_not():
    x, y = rows(30, 2, seed=11, classes=2)
    of = problem(2, ["a", "b"])
    fit(method.make("ridge"), of, (x[y == 0], y[y == 0]), (x[y == 1], y[y == 1]))
    with pytest.raises(UpdateError, match="one class only"):
        fit(method.make("ridge"), of, (x[y == 0], y[y == 0]))


def test_loss_and_moments_are_those_of_the_rows():
    x, y = rows(40, 3, seed=12, classes=2)
    of, subject = problem(3, ["a", "b"]), method.make("ridge")
    summary = subject.summarize({"x": x, "y": y}, of, {}, rng=RNG)
    model, _ = subject.fuse([summary], of, {}, rng=RNG)
    scores = x @ model["weights"] + model["bias"]
    assert subject.loss(model, summary, of) == pytest.approx(
        ((scores - np.eye(2)[y]) ** 2).sum(axis=1).mean(), rel=1e-9
    )
    moments = subject.moments(summary, of)
    assert moments.count == 40
    assert moments.class_count.tolist() == np.bincount(y).tolist()
    assert moments.mean == pytest.approx(x.mean(axis=0))
    z = np.hstack([np.ones((40, 1)), x])
    assert moments.second == pytest.approx(z.T @ z)


def test_moments_of_weighted_classes():
    x, y = rows(40, 3, seed=13, classes=2)
    of, subject = problem(3, ["a", "b"]), method.make("ridge", {"class_weights": [1.0, 3.0]})
    moments = subject.moments(subject.summarize({"x": x, "y": y}, of, {}, rng=RNG), of)
    assert moments.class_count.tolist() == np.bincount(y).tolist()
    assert moments.class_weight.tolist() == [1.0, 3.0]
    assert moments.second[0, 0] == pytest.approx((y == 0).sum() + 3 * (y == 1).sum())


@pytest.mark.parametrize("classes", [0, 2])
def test_sensitivity_bounds_what_one_record_changes(classes):
    of, subject = problem(3, ["a", "b"][:classes]), method.make("ridge")
    grids = subject._sums(of).grids()
    worst = 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.where(rng.random((1, 3)) < 0.8, rng.choice([-6.0, 6.0], (1, 3)), rng.uniform(-6, 6, (1, 3)))
        y = rng.integers(0, 2, 1) if classes else rng.choice([-10.0, 10.0], 1)
        summary = subject.summarize({"x": x, "y": y}, of, {}, rng=rng)
        real = subject._sums(of).decode(summary)
        gram, moment, square = real.gram, real.moment, real.square
        worst = max(worst, math.sqrt((gram**2).sum() + (moment**2).sum() + (square**2).sum()))
    assert worst <= subject.sensitivity(of, {}) * (1 + 1e-9)
    assert worst >= 0.99 * subject.sensitivity(of, {})
    assert set(grids) == {"gram", "moment", "square"}


def altered(summary, name, change):
    copy = {key: array.copy() for key, array in summary.items()}
    copy[name] = np.asarray(change(copy[name]), np.int64)
    return copy


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("count", lambda a: a + 5, "number of rows"),
        ("count", lambda a: a * 0, "below 1|entries below"),
        ("gram", lambda a: -a, "negative|rows"),
        ("gram", lambda a: np.where(np.arange(len(a)) == 4, -(2**50), a), "mean square"),
        ("gram", lambda a: np.where(np.arange(len(a)) == 5, a * 40 + 2**52, a), "semi-definite|moment"),
        ("moment", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, a + 2**50, a), "class counts"),
        ("moment", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 2, a + 2**55, a), "moment is larger|above"),
        ("square", lambda a: a * 0, "moment is larger"),
        ("gram", lambda a: np.full_like(a, 2**61), "above|rows"),
    ],
)  # fmt: skip
def test_sums_no_rows_can_have_are_refused(name, change, told):
    x, y = rows(40, 3, seed=14, classes=2)
    of, subject = problem(3, ["a", "b"]), method.make("ridge")
    summary = subject.summarize({"x": x, "y": y}, of, {}, rng=RNG)
    subject.check(summary, of, {}, "here")
    with pytest.raises(UpdateError, match=told) as refused:
        subject.check(altered(summary, name, change), of, {}, "here")
    assert "here" in str(refused.value)


def test_bounds_are_met_by_the_largest_honest_table():
    of, subject = problem(2, ["a", "b"], records=50), method.make("ridge")
    x, y = np.full((50, 2), 6.0), np.zeros(50, int)
    summary = subject.summarize({"x": x, "y": y}, of, {}, rng=RNG)
    subject.check(summary, of, {}, "here")
    with pytest.raises(UpdateError):
        subject.check(arrays.add(summary, summary), of, {}, "here")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"penalty": -1.0}, "penalty is -1"),
        ({"penalty": "aic"}, "penalty"),
        ({"class_weights": [1.0, 0.0]}, "above 0"),
        ({"confidence": 1.0}, "between 0 and 1"),
        ({"confidence": 0.0}, "between 0 and 1"),
        ({"lambda": 1.0}, "no setting 'lambda'"),
    ],
)
def test_settings_out_of_reach_are_refused(settings, told):
    with pytest.raises(SettingsError, match=told):
        method.make("ridge", settings)


def test_class_weights_must_fit_the_classes():
    with pytest.raises(SettingsError, match="3 class weights for 2 classes"):
        method.make("ridge", {"class_weights": [1.0, 1.0, 1.0]}).declare(problem(2, ["a", "b"]), {})


def test_large_and_small_scales_lose_nothing():
    rng = np.random.default_rng(15)
    a, b = rng.normal(size=(2, 200))
    cells = {"a": a * 1e12, "b": 1e-12 * b, "y": np.clip(3 * a - b, -20, 20)}
    task = fl.new_task(
        "scales",
        {"a": fl.Number(-1e13, 1e13), "b": fl.Number(-1e-11, 1e-11)},
        fl.NumberLabel("y", -20, 20),
        method=method.make("ridge", {"penalty": 0.0}), privacy="none", max_records=1000,
    )  # fmt: skip
    halves = [{name: column[part] for name, column in cells.items()} for part in (slice(0, 60), slice(60, None))]
    model, _ = fl.fuse(task, [fl.summarize(task, half) for half in halves])
    assert fl.evaluate(model, cells)["rmse"] < 0.02


@pytest.mark.parametrize(
    "settings", [{}, {"covariance": "shared"}, {"covariance": "per_class"}, {"covariance": "diagonal"}]
)
def test_a_column_that_only_rounds_is_constant_however_rows_are_split(settings):
    """A column of 1e-8 where 6 is allowed: its squares vanish in the grid of the sums, and what is left is rounding."""
    x, y = rows(40, 4, classes=2)
    x[:, 2] = 2e-8 * (1 + 0.1 * x[:, 2])
    of = problem(4, ("a", "b"), bound=6.0)
    subject = method.make("gaussian" if settings else "ridge", settings)
    pooled, findings = fit(subject, of, (x, y))
    assert findings["constant_columns"] == ["x2"]
    for cut in (5, 20, 33):
        fused, _ = fit(subject, of, (x[:cut], y[:cut]), (x[cut:], y[cut:]))
        for name, array in pooled.items():
            assert fused[name] == pytest.approx(array, rel=1e-9, abs=1e-12)
