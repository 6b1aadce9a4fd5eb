"""gaussian against densities written out, on the pooled rows."""

import math

import numpy as np
import pytest

from fusionlearn import method
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.methods.gaussian import BORROWED
from fusionlearn.problem import Problem

stats = pytest.importorskip("scipy.stats")


def problem(d, classes, bound=8.0, records=1000):
    names = tuple(f"x{j}" for j in range(d))
    return Problem("binary" if classes == 2 else "multiclass", tuple("abcdef"[:classes]), names, (bound,) * d, records)


def rows(n, d, classes, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    mixing = np.eye(d) + 0.4 * rng.normal(size=(classes, d, d))
    x = np.einsum("nd,nde->ne", rng.normal(size=(n, d)), mixing[y]) + rng.normal(size=(classes, d))[y]
    return np.clip(x, -8, 8), y


def fit(settings, of, *parts):
    subject, rng = method.make("gaussian", settings), np.random.default_rng(0)
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    for summary in summaries:
        subject.check(summary, of, {}, "here")
    model, findings = subject.fuse(summaries, of, {}, rng=rng)
    return lambda x: subject.predict(model, {"x": x}, of, {})["probability"], findings


def oracle_shrunk(covariance, n):
    """Chen, Wiesel, Eldar, Hero (2010), equation 23, written out."""
    d = len(covariance)
    trace, square = np.trace(covariance), np.trace(covariance @ covariance)
    share = min(1.0, ((1 - 2 / d) * square + trace**2) / ((n + 1 - 2 / d) * (square - trace**2 / d)))
    return (1 - share) * covariance + share * trace / d * np.eye(d), share


def posterior(x, means, covariances, priors):
    logs = np.array(
        [
            stats.multivariate_normal(m, c).logpdf(x) + math.log(p)
            for m, c, p in zip(means, covariances, priors, strict=True)
        ]
    ).T
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def standardised(x, y, classes):
    z = (x - x.mean(0)) / x.std(0)
    return z, np.array([z[y == k].mean(0) for k in range(classes)]), np.bincount(y, minlength=classes) / len(y)


@pytest.mark.parametrize(("d", "classes"), [(3, 2), (5, 4)])
def test_shared_is_linear_discriminant_analysis(d, classes):
    x, y = rows(90, d, classes)
    answers, findings = fit({}, problem(d, classes), (x[:31], y[:31]), (x[31:], y[31:]))
    z, means, share = standardised(x, y, classes)
    residual = z - means[y]
    covariance, taken = oracle_shrunk(residual.T @ residual / len(z), len(z))
    assert answers(x) == pytest.approx(posterior(z, means, [covariance] * classes, share), abs=1e-7)
    assert findings["shrinkage"] == pytest.approx(taken, rel=1e-6)
    assert findings["records"] == 90


def test_uniform_prior_forgets_how_frequent_classes_are():
    x, y = rows(120, 3, 2, seed=1)
    keep = (y == 0) | (np.arange(120) % 5 == 0)
    x, y = x[keep], y[keep]
    frequent, _ = fit({}, problem(3, 2), (x, y))
    even, _ = fit({"class_prior": "uniform"}, problem(3, 2), (x, y))
    odds = (even(x)[:, 1] / even(x)[:, 0]) / (frequent(x)[:, 1] / frequent(x)[:, 0])
    assert odds == pytest.approx((y == 0).sum() / (y == 1).sum(), rel=1e-6)


def test_per_class_is_quadratic_discriminant_analysis():
    x, y = rows(120, 3, 3, seed=2)
    answers, findings = fit({"covariance": "per_class"}, problem(3, 3), (x[:50], y[:50]), (x[50:], y[50:]))
    z, means, share = standardised(x, y, 3)
    shrunk = [oracle_shrunk(np.cov(z[y == k].T, bias=True), (y == k).sum()) for k in range(3)]
    assert answers(x) == pytest.approx(posterior(z, means, [covariance for covariance, _ in shrunk], share), abs=1e-7)
    assert findings["shrinkage"] == pytest.approx([taken for _, taken in shrunk], rel=1e-6)


def test_diagonal_is_naive_bayes_with_a_row_borrowed():
    x, y = rows(100, 4, 3, seed=3)
    answers, findings = fit({"covariance": "diagonal"}, problem(4, 3), (x[:20], y[:20]), (x[20:], y[20:]))
    means = np.array([x[y == k].mean(0) for k in range(3)])
    count = np.bincount(y)
    shared = ((x - means[y]) ** 2).mean(0)
    own = np.array([x[y == k].var(0) for k in range(3)])
    blend = (count[:, None] * own + BORROWED * shared) / (count[:, None] + BORROWED)
    expected = posterior(x, means, [np.diag(variance) for variance in blend], count / 100)
    assert answers(x) == pytest.approx(expected, abs=1e-7)
    assert findings["shrinkage"] is None


@pytest.mark.parametrize("covariance", ["per_class", "diagonal"])
def test_a_class_seen_once_borrows_and_can_be_told(covariance):
    x, y = rows(60, 3, 2, seed=4)
    lonely = np.full((1, 3), 7.0)
    of = problem(3, 3)
    answers, _ = fit({"covariance": covariance}, of, (x, y), (lonely, np.array([2])))
    assert answers(lonely)[0].argmax() == 2
    assert np.isfinite(answers(x)).all()


@pytest.mark.parametrize("covariance", ["shared", "per_class", "diagonal"])
def test_absent_classes_are_impossible_and_named(covariance):
    x, y = rows(60, 3, 2, seed=5)
    answers, findings = fit({"covariance": covariance}, problem(3, 3), (x, y))
    assert findings["absent_classes"] == ["c"]
    assert answers(np.vstack([x, x * 8]))[:, 2].max() == 0.0


@pytest.mark.parametrize("covariance", ["shared", "per_class", "diagonal"])
def test_constant_columns_have_no_say(covariance):
    x, y = rows(60, 3, 2, seed=6)
    still = np.column_stack([x, np.full(60, 5.0)])
    answers, findings = fit({"covariance": covariance}, problem(4, 2), (still[:30], y[:30]), (still[30:], y[30:]))
    assert findings["constant_columns"] == ["x3"]
    moved = np.column_stack([x, np.full(60, -5.0)])
    assert answers(moved) == pytest.approx(answers(still), abs=1e-9)


def test_one_class_in_total_and_numbers_as_label_are_refused():
    x, y = rows(20, 2, 2, seed=7)
    with pytest.raises(UpdateError, match="one class only"):
        fit({}, problem(2, 2), (x[y == 0], y[y == 0]))
    with pytest.raises(SettingsError, match="ridge"):
        method.make("gaussian").declare(Problem("regression", (), ("x",), (1.0,), 10), {})


@pytest.mark.parametrize("covariance", ["shared", "per_class", "diagonal"])
def test_moments_are_those_of_the_rows(covariance):
    x, y = rows(40, 3, 2, seed=8)
    of, subject = problem(3, 2), method.make("gaussian", {"covariance": covariance})
    moments = subject.moments(subject.summarize({"x": x, "y": y}, of, {}, rng=np.random.default_rng(0)), of)
    assert moments.count == 40
    assert moments.class_count.tolist() == [20, 20]
    assert moments.mean == pytest.approx(x.mean(axis=0))
    z = np.hstack([np.ones((40, 1)), x])
    assert moments.second == pytest.approx((z**2).sum(axis=0) if covariance == "diagonal" else z.T @ z)


@pytest.mark.parametrize("covariance", ["shared", "per_class", "diagonal"])
def test_sensitivity_bounds_what_one_record_changes(covariance):
    of, subject = problem(3, 2), method.make("gaussian", {"covariance": covariance})
    summary = subject.summarize({"x": np.full((1, 3), 8.0), "y": np.array([1])}, of, {}, rng=np.random.default_rng(0))
    count, first, second = subject._decode(summary, of)
    if covariance != "diagonal":
        from fusionlearn.fixed import unpack

        second = np.array([unpack(packed) for packed in np.atleast_2d(second)])
    norm = math.sqrt((count**2).sum() + (first**2).sum() + (second**2).sum())
    assert norm <= subject.sensitivity(of, {}) * (1 + 1e-9)
    assert covariance == "diagonal" or norm == pytest.approx(subject.sensitivity(of, {}))


ALTERED = [
    ("shared", "class_count", lambda a: a * 0, "0 rows"),
    ("shared", "class_count", lambda a: a * 0 + 900, "1800 rows"),
    ("shared", "class_count", lambda a: a // 10, "class sum is larger|mean square"),
    ("shared", "class_sum", lambda a: a * 0 + a.max() * 400, "class sum is larger|above"),
    ("shared", "class_sum", lambda a: a * 0 + 2**57, "class sum is larger|above|below the square"),
    ("shared", "gram", lambda a: -a, "negative"),
    ("shared", "gram", lambda a: a * 0, "below the square"),
    ("shared", "gram", lambda a: np.where(np.arange(a.size) == 1, a * 0 + 2**55, a), "semi-definite"),
    ("per_class", "gram", lambda a: np.where(np.arange(a.shape[1]) == 1, a * 0 + 2**55, a), "semi-definite"),
    ("diagonal", "gram", lambda a: -a, "negative"),
    ("diagonal", "gram", lambda a: a * 0, "below the square"),
]


@pytest.mark.parametrize(("covariance", "name", "change", "told"), ALTERED)
def test_sums_no_rows_can_have_are_refused(covariance, name, change, told):
    x, y = rows(40, 3, 2, seed=9)
    of, subject = problem(3, 2), method.make("gaussian", {"covariance": covariance})
    summary = subject.summarize({"x": x, "y": y}, of, {}, rng=np.random.default_rng(0))
    subject.check(summary, of, {}, "here")
    changed = {**summary, name: np.asarray(change(summary[name]), np.int64)}
    with pytest.raises(UpdateError, match=told):
        subject.check(changed, of, {}, "here")
