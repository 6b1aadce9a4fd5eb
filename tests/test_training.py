"""Training: the same weights for the same seed, resumed as if never interrupted, watched, and stopped when astray."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionlearn import network, training
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem
from fusionlearn.training import Job, Training

torch = pytest.importorskip("torch")

CLASSES = Problem("multiclass", ("a", "b", "c"), ("u", "v"), (3.0, 3.0), 1000)
NUMBER = Problem("regression", (), ("u", "v"), (3.0, 3.0), 1000, 2.0)
TEXT = "mlp:hidden=16"


def rows(count: int = 200) -> tuple[Any, Any]:
    x = np.random.default_rng(5).uniform(-3, 3, (count, 2))
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)


def trained(settings: Training, text: str = TEXT, problem: Problem = CLASSES, seed: int = 0, **more: Any) -> Any:
    x, y = rows()
    y = y if problem.labels else np.sin(x[:, 0])
    return training.fit(text, problem, network.initial(text, problem), Job(x, y, seed), settings, **more)


def answered(weights: Any, x: Any, text: str = TEXT, problem: Problem = CLASSES) -> Any:
    return training.scores_of(text, problem, weights, x)


def same(left: Any, right: Any) -> bool:
    return all((left[name] == right[name]).all() for name in left)


def test_it_learns() -> None:
    x, y = rows()
    found = answered(trained(Training(epochs=20)), x)
    assert (found.argmax(axis=1) == y).mean() > 0.95
    values = answered(trained(Training(epochs=30), problem=NUMBER), x, problem=NUMBER)
    assert ((values[:, 0] - np.sin(x[:, 0])) ** 2).mean() < 0.1 * np.sin(x[:, 0]).var()


def test_one_seed_one_network_on_any_number_of_threads() -> None:
    settings = Training(epochs=2)
    before = torch.get_num_threads()
    first = trained(settings, seed=3)
    torch.set_num_threads(2)
    second = trained(settings, seed=3)
    torch.set_num_threads(before)
    assert same(first, second)
    assert not same(first, trained(settings, seed=4))


def test_no_epochs_change_nothing() -> None:
    start = network.initial(TEXT, CLASSES)
    for name, weights in trained(Training(epochs=0)).items():
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
        seen = []

        def watch(epoch: training.Epoch) -> None:
            seen.append(epoch.number)
            if interrupted and epoch.number == stop_after:
                raise KeyboardInterrupt

        with training.watching(watch):
            start = network.initial(text, problem)
            found = training.fit(text, problem, start, Job(x, y), Training(epochs=5, batch_size=8), **more)
        return found, len(seen)

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
    found = answered(trained(Training(epochs=20, precision="bfloat16")), x)
    assert (found.argmax(axis=1) == y).mean() > 0.9


def test_one_row_is_enough_even_for_batch_statistics() -> None:
    text = "resnet18:shape=8x8x1,width=4,norm=batch"
    problem = Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(64)), (1.0,) * 64, 100)
    job = Job(np.ones((1, 64)), np.array([1]))
    found = training.fit(text, problem, network.initial(text, problem), job, Training(epochs=2))
    assert all(np.isfinite(weights).all() for weights in found.values())


def test_soft_targets_are_taken_as_probabilities() -> None:
    x, y = rows()
    start = network.initial(TEXT, CLASSES)
    hard = training.fit(TEXT, CLASSES, start, Job(x, y), Training(epochs=2))
    soft = training.fit(TEXT, CLASSES, start, Job(x, np.eye(3)[y]), Training(epochs=2))
    np.testing.assert_allclose(answered(hard, x), answered(soft, x), atol=1e-4)


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"batch_size": 0}, {"rate": 0.0}, {"momentum": 1.0}, {"decay": 2.0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Training(**wrong)


def test_the_rate_falls_along_half_a_cosine() -> None:
    settings = Training(rate=0.2)
    rates = [training.rate_at(settings, step, 10) for step in range(10)]
    assert rates[0] == 0.2 and rates[5] == pytest.approx(0.1) and rates == sorted(rates, reverse=True) and rates[-1] > 0


@pytest.mark.parametrize("text", [TEXT, "cnn5:shape=8x8x1,width=2,hidden=4"])
def test_only_the_classes_that_were_seen_are_compared(text: str) -> None:
    features = 2 if text == TEXT else 64
    problem = Problem("multiclass", ("a", "b", "c"), tuple(f"x{i}" for i in range(features)), (3.0,) * features, 1000)
    x = np.random.default_rng(0).standard_normal((40, features))
    seen = np.array([True, False, True])

    def learned(targets: Any) -> Any:
        job = Job(x, targets, seen=seen)
        return training.fit(text, problem, network.initial(text, problem), job, Training(epochs=2, decay=0.0))

    start, hard = network.initial(text, problem), learned(np.where(x[:, 0] > 0, 2, 0))
    np.testing.assert_array_equal(hard["head.weight"][1], start["head.weight"][1])
    assert (hard["head.weight"][0] != start["head.weight"][0]).any()
    told = np.eye(3)[np.where(x[:, 0] > 0, 2, 0)] * 0.5 + np.array([0.0, 0.5, 0.0])  # half of it of a class unseen
    soft = learned(training.restricted(told, seen))
    for name, weights in hard.items():
        np.testing.assert_allclose(soft[name], weights, atol=1e-5)


def test_many_clients_in_shared_steps_learn_what_each_learns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    problem = Problem("multiclass", ("a", "b", "c"), tuple(f"x{i}" for i in range(7)), (3.0,) * 7, 1000)
    jobs = []
    for k, count in enumerate([1, 31, 32, 33, 64, 100, 5, 77, 2]):
        x, y = rng.standard_normal((count, 7)), rng.integers(0, 3 if k % 2 else 2, count)
        jobs.append(Job(x, y, seed=k, seen=np.bincount(y, minlength=3) > 0 if k % 3 else None))
    for text in ("linear", "mlp:hidden=16x8"):
        start = network.initial(text, problem)
        for size in (128, 2):
            monkeypatch.setattr(training, "TOGETHER", size)
            many = training.fit_many(text, problem, start, jobs, Training(epochs=3))
            for job, found in zip(jobs, many, strict=True):
                alone = training.fit(text, problem, start, job, Training(epochs=3))
                for name, weights in alone.items():
                    np.testing.assert_array_equal(found[name], weights)
    assert training.shares("mlp:hidden=16x8", problem, Training())
    assert not training.shares("mlp:hidden=4000", problem, Training())
    assert not training.shares("mlp:hidden=16x8", problem, Training(precision="bfloat16"))
    assert not training.shares("cnn5:shape=8x8x1", _image(), Training())


@pytest.mark.parametrize("text", ["linear", "mlp:hidden=16x8"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_slopes_written_out_are_those_of_torch(text: str, momentum: float) -> None:
    x, y = rows(150)
    values = np.sin(x[:, 0])
    settings = Training(epochs=2, momentum=momentum, decay=0.01 * momentum)
    only = np.array([True, True, False])
    cases = [
        (CLASSES, Job(x, y, 1)), (CLASSES, Job(x, np.eye(3)[y] * 0.9, 2)), (NUMBER, Job(x, values, 3)),
        (CLASSES, Job(x, np.minimum(y, 1), 4, only)),
    ]  # fmt: skip
    for problem, job in cases:
        start = network.initial(text, problem)
        found = training.fit(text, problem, start, job, settings)
        wanted = _by_torch(network.module_with(text, problem, start), problem, job, settings)
        for name, weights in wanted.items():
            np.testing.assert_allclose(found[name], weights, atol=2e-6, rtol=1e-5)


def _by_torch(module: Any, problem: Problem, job: Job, settings: Training) -> Any:
    """The same training by torch's own layers, losses and descent."""
    x, goals = torch.from_numpy(job.x).float(), torch.from_numpy(job.targets)
    goals = goals if goals.dtype == torch.int64 else goals.float()
    descent = torch.optim.SGD(module.parameters(), 1.0, momentum=settings.momentum, weight_decay=settings.decay)
    steps, taken = -(-len(x) // settings.batch_size), 0
    for epoch in range(settings.epochs):
        order = torch.from_numpy(training.order_of(len(x), job.seed, epoch))
        for here in order.split(settings.batch_size):
            scores = module(x[here])
            if job.seen is not None:
                scores = scores[:, : job.seen.sum()]  # those seen come first
            if problem.labels:
                loss = torch.nn.functional.cross_entropy(scores, goals[here])
            else:
                loss = ((scores[:, 0] - goals[here]) ** 2).mean() / 2
            descent.zero_grad()
            loss.backward()
            descent.param_groups[0]["lr"] = training.rate_at(settings, taken, settings.epochs * steps)
            descent.step()
            taken += 1
    return network.state(module)


def test_dense_networks_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trained(Training(epochs=1))
    monkeypatch.setitem(sys.modules, "torch", None)
    network.shapes.cache_clear()
    assert same(trained(Training(epochs=1)), wanted)
    assert answered(wanted, rows()[0]).shape == (200, 3)


def test_both_ways_to_a_dense_network_agree() -> None:
    """What NumPy answers is what the module answers."""
    for text in ("linear", "mlp:hidden=16x8"):
        start = network.initial(text, CLASSES, seed=1)
        module = network.module_with(text, CLASSES, start)
        assert list(network.state(module)) == list(start)
        x, _ = rows(300)
        np.testing.assert_allclose(answered(start, x, text), training.scores(module, x), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 48), (1, 48)])
def test_wide_layers_multiply_the_same_by_either_library(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN's product and its slopes are those of torch's own dense layer, for rows and for rows of rows."""
    if not training._has_onednn():
        pytest.skip("this torch has no oneDNN, so its own layers are used")
    monkeypatch.setattr(training, "WIDE", 48 * 40)
    layer, thin = torch.nn.Linear(48, 40, bias=bias), torch.nn.Linear(48, 39)
    given, slopes = torch.randn(shape, requires_grad=True), torch.randn((*shape[:-1], 40))
    held = [given, *layer.parameters()]
    wanted = torch.autograd.grad(layer(given), held, slopes)
    training._quicken(torch.nn.Sequential(layer, thin))
    assert layer.forward.func is training._product and "forward" not in vars(thin)
    torch.testing.assert_close(torch.autograd.grad(layer(given), held, slopes), wanted, rtol=1e-4, atol=1e-5)


def test_a_torch_without_onednn_trains_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    text, problem = "cnn:shape=8x8x1,hidden=1024", _image()  # a wide layer: 4 x 64 inputs
    x = np.random.default_rng(1).uniform(-1, 1, (40, 64))
    job = Job(x, (x[:, 0] > 0).astype(np.int64), 0)
    found = []
    for there in (training._has_onednn(), False):
        monkeypatch.setattr(training, "_has_onednn", lambda there=there: there)
        found.append(training.fit(text, problem, network.initial(text, problem), job, Training(epochs=1)))
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], atol=1e-4)


def _image() -> Problem:
    return Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(64)), (1.0,) * 64, 100)
