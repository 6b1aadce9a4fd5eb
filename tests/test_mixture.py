"""Mixtures: what they were made of is found again, densities integrate, hard tables are taken."""

from __future__ import annotations

import numpy as np
import pytest

from fusionlearn import mixture
from fusionlearn.mixture import Mixture

TWO = Mixture(np.array([0.3, 0.7]), np.array([[-4.0, 100.0], [2.0, 140.0]]), np.array([[1.0, 25.0], [0.25, 100.0]]))


def test_the_components_that_rows_came_from_are_found():
    x = mixture.sample(TWO, 20_000, rng=np.random.default_rng(0))
    found = mixture.fit(x, 2, rng=np.random.default_rng(1))
    order = np.argsort(found.weights)
    assert np.allclose(found.weights[order], TWO.weights, atol=0.02)
    assert np.allclose(found.means[order], TWO.means, atol=0.4)
    assert np.allclose(found.variances[order], TWO.variances, rtol=0.06)


def test_samples_have_the_moments_of_the_mixture():
    x = mixture.sample(TWO, 200_000, rng=np.random.default_rng(0))
    mean = TWO.weights @ TWO.means
    second = TWO.weights @ (TWO.variances + TWO.means**2)
    assert np.allclose(x.mean(axis=0), mean, rtol=0.01)
    assert np.allclose((x**2).mean(axis=0), second, rtol=0.01)


def test_the_density_is_that_of_the_formula_and_integrates_to_one():
    grid = np.linspace(-12, 8, 401), np.linspace(0, 240, 481)
    points = np.stack([axis.ravel() for axis in np.meshgrid(*grid)], axis=1)
    log_density = mixture.log_density(TWO, points)
    assert np.exp(log_density).sum() * (20 / 400) * (240 / 480) == pytest.approx(1.0, abs=1e-4)
    direct = sum(
        w * np.exp(-0.5 * ((points - m) ** 2 / v).sum(axis=1)) / (2 * np.pi * np.sqrt(v.prod()))
        for w, m, v in zip(TWO.weights, TWO.means, TWO.variances, strict=True)
    )
    # Far away the products that nearly cancel are of thousands: twelve digits are left.
    assert np.allclose(log_density, np.log(direct), rtol=1e-11, atol=1e-9)


def test_more_components_never_explain_the_rows_worse():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(200, 5)) + 4 * k for k in range(4)])
    told = [mixture.log_density(mixture.fit(x, m, rng=np.random.default_rng(0)), x).mean() for m in (1, 2, 4)]
    assert told[0] + 0.1 < told[1] < told[2] - 0.1


@pytest.mark.parametrize(
    ("x", "components"),
    [
        (np.array([[3.0, -1e9]]), 4),
        (np.full((9, 3), 7.1), 2),
        (np.column_stack([np.full(50, 0.1), np.arange(50.0)]), 3),
        (np.arange(6.0)[:, None] * [1e-9, 1e9], 6),
        (np.repeat([[0.0, 1.0], [1.0, 0.0]], 4, axis=0), 5),
    ],
    ids=["one row", "one row nine times", "a constant column", "as many components as rows", "two rows four times"],
)
def test_hard_tables_give_finite_mixtures(x, components):
    found = mixture.fit(x, components, rng=np.random.default_rng(0))
    m = len(found.weights)
    assert 1 <= m <= min(components, len(np.unique(x, axis=0)))
    assert found.means.shape == found.variances.shape == (m, x.shape[1])
    assert found.weights.sum() == pytest.approx(1.0)
    assert (found.variances > 0).all()
    assert np.allclose(found.weights @ found.means, x.mean(axis=0))
    assert np.isfinite(mixture.log_density(found, x)).all()


def test_no_variance_falls_below_its_share_of_the_spread():
    x = np.concatenate([np.random.default_rng(0).normal(size=(100, 1)), np.full((50, 1), 9.0)])
    found = mixture.fit(x, 2, rng=np.random.default_rng(0), floor=0.05)
    assert found.variances.min() == pytest.approx(0.05 * x.var())
    lent = mixture.fit(x[-3:], 1, rng=np.random.default_rng(0), floor=0.05, spread=np.array([4.0]))
    assert lent.variances == pytest.approx(0.2)


def test_the_same_generator_gives_the_same_mixture_and_the_scale_of_a_column_does_not_matter():
    x = mixture.sample(TWO, 500, rng=np.random.default_rng(0))
    one, two = (mixture.fit(x, 3, rng=np.random.default_rng(5)) for _ in range(2))
    assert (one.means == two.means).all() and (one.variances == two.variances).all()
    scaled = mixture.fit(x * [1.0, 1e-6], 3, rng=np.random.default_rng(5))
    assert np.allclose(scaled.means, one.means * [1.0, 1e-6], rtol=1e-6)
