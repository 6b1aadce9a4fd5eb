"""Training: the same weights for the same seed, resumed as if never interrupted, watched, and stopped when astray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionlearn import network, training
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem
from fusionlearn.training import Training

torch = pytest.importorskip("torch")

CLASSES = Problem("multiclass", ("a", "b", "c"), ("u", "v"), (3.0, 3.0), 1000)
NUMBER = Problem("regression", (), ("u", "v"), (3.0, 3.0), 1000, 2.0)
TEXT = "mlp:hidden=16"


def rows(count: int = 200) -> tuple[Any, Any]:
    x = np.random.default_rng(5).uniform(-3, 3, (count, 2))
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)


def trained(settings: Training, text: str = TEXT, problem: Problem = CLASSES, **more: Any) -> Any:
    x, y = rows()
    y = y if problem.labels else np.sin(x[:, 0])
    module = network.module_with(text, problem, network.initial(text, problem))
    training.fit(module, x, y, training.loss_of(problem), settings, **more)
    return module


def same(one: Any, two: Any) -> bool:
    left, right = network.state(one), network.state(two)
    return all((left[name] == right[name]).all() for name in left)


def test_it_learns() -> None:
    x, y = rows()
    found = training.scores(trained(Training(epochs=20)), x)
    assert (found.argmax(axis=1) == y).mean() > 0.95
    values = training.scores(trained(Training(epochs=30), problem=NUMBER), x)
    assert ((values[:, 0] - np.sin(x[:, 0])) ** 2).mean() < 0.1 * np.sin(x[:, 0]).var()


def test_one_seed_one_network_on_any_number_of_threads() -> None:
    settings = Training(epochs=2, seed=3)
    before = torch.get_num_threads()
    first = trained(settings)
    torch.set_num_threads(2)
    second = trained(settings)
    torch.set_num_threads(before)
    assert same(first, second)
    assert not same(first, trained(Training(epochs=2, seed=4)))


def test_no_epochs_change_nothing() -> None:
    start = network.initial(TEXT, CLASSES)
    for name, weights in network.state(trained(Training(epochs=0))).items():
        np.testing.assert_array_equal(weights, start[name])


@pytest.mark.parametrize("text", [TEXT, "cnn5:shape=8x8x1,width=2,hidden=4,norm=batch"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(text: str, stop_after: int, tmp_path: Path) -> None:
    features = 2 if text == TEXT else 64
    problem = Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(features)), (3.0,) * features, 1000)
    x = np.random.default_rng(0).standard_normal((50, features))
    y = (x[:, 0] > 0).astype(np.int64)
    kept = tmp_path / "training"

    def run(interrupted: bool, **more: Any) -> tuple[Any, int]:
        module = network.module_with(text, problem, network.initial(text, problem))
        seen = []

        def watch(epoch: training.Epoch) -> None:
            seen.append(epoch.number)
            if interrupted and epoch.number == stop_after:
                raise KeyboardInterrupt

        with training.watching(watch):
            training.fit(module, x, y, training.loss_of(problem), Training(epochs=5, batch_size=8), **more)
        return module, len(seen)

    whole, _ = run(False)
    with pytest.raises(KeyboardInterrupt):
        run(True, checkpoint=kept)
    assert kept.exists() and kept.stat().st_mode & 0o077 == 0
    resumed, epochs = run(False, checkpoint=kept)
    assert epochs == 5 - stop_after
    assert same(whole, resumed)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    kept = tmp_path / "training"

    def stopped(settings: Training) -> None:
        def watch(epoch: training.Epoch) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), training.watching(watch):
            trained(settings, checkpoint=kept)

    stopped(Training(epochs=3))
    assert same(trained(Training(epochs=3, rate=0.1), checkpoint=kept), trained(Training(epochs=3, rate=0.1)))
    stopped(Training(epochs=3))
    kept.write_bytes(kept.read_bytes()[:100])  # cut short
    assert same(trained(Training(epochs=3), checkpoint=kept), trained(Training(epochs=3)))


def test_a_watcher_is_told_loss_and_time_left() -> None:
    told: list[training.Epoch] = []
    with training.watching(told.append):
        trained(Training(epochs=4))
    assert [epoch.number for epoch in told] == [1, 2, 3, 4] and {epoch.of for epoch in told} == {4}
    assert told[0].loss > told[-1].loss > 0
    assert told[0].seconds_left > 0 and told[-1].seconds_left == 0
    trained(Training(epochs=1))
    assert len(told) == 4  # nobody watches any more


def test_a_training_that_goes_astray_is_stopped_with_a_sentence() -> None:
    with pytest.raises(SettingsError, match=r"went astray in epoch \d+: the loss is no longer finite. Lower the rate"):
        trained(Training(epochs=50, rate=100.0, momentum=0.99), problem=NUMBER)


def test_half_precision_learns_too() -> None:
    x, y = rows()
    found = training.scores(trained(Training(epochs=20, precision="bfloat16")), x)
    assert (found.argmax(axis=1) == y).mean() > 0.9


def test_one_row_is_enough_even_for_batch_statistics() -> None:
    text = "resnet18:shape=8x8x1,width=4,norm=batch"
    problem = Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(64)), (1.0,) * 64, 100)
    module = network.module_with(text, problem, network.initial(text, problem))
    training.fit(module, np.ones((1, 64)), np.array([1]), training.loss_of(problem), Training(epochs=2))
    assert all(np.isfinite(weights).all() for weights in network.state(module).values())


def test_soft_targets_are_taken_as_probabilities() -> None:
    x, y = rows()
    hard, soft = (network.module_with(TEXT, CLASSES, network.initial(TEXT, CLASSES)) for _ in range(2))
    training.fit(hard, x, y, training.loss_of(CLASSES), Training(epochs=2))
    training.fit(soft, x, np.eye(3)[y], training.loss_of(CLASSES), Training(epochs=2))
    np.testing.assert_allclose(training.scores(hard, x), training.scores(soft, x), atol=1e-4)


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"batch_size": 0}, {"rate": 0.0}, {"momentum": 1.0}, {"decay": 2.0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Training(**wrong)


def test_the_rate_falls_along_half_a_cosine() -> None:
    settings = Training(rate=0.2)
    rates = [training.rate_at(settings, step, 10) for step in range(10)]
    assert rates[0] == 0.2 and rates[5] == pytest.approx(0.1) and rates == sorted(rates, reverse=True) and rates[-1] > 0


def test_the_loss_compares_the_classes_that_were_seen() -> None:
    seen = np.array([True, False, True])
    scores = torch.tensor([[1.0, 9.0, 2.0], [0.5, -9.0, 0.0]], requires_grad=True)
    loss = training.loss_of(CLASSES, seen)
    only = training.loss_of(Problem("binary", ("a", "c"), ("u",), (1.0,), 10))(scores[:, [0, 2]], torch.tensor([1, 0]))
    found = loss(scores, torch.tensor([2, 0]))
    assert torch.equal(found, only)
    found.sum().backward()
    assert (scores.grad[:, 1] == 0).all()
    soft = loss(scores, torch.tensor([[0.0, 0.5, 0.5], [0.6, 0.4, 0.0]]))  # what a teacher gives to others is left out
    assert torch.allclose(soft, only)
