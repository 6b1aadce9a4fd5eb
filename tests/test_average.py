"""Averaging of networks: additive, per class in the head, batch statistics by the law of total variance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import averaging, network
from fusionlearn.arrays import add
from fusionlearn.averaging import WeightSums
from fusionlearn.errors import MissingExtra, SettingsError, UpdateError
from fusionlearn.methods.average import Average
from fusionlearn.problem import Problem

pytest.importorskip("torch")

CLASSES = Problem("multiclass", ("a", "b", "c"), ("u", "v"), (3.0, 3.0), 1000)
NUMBER = Problem("regression", (), ("u", "v"), (3.0, 3.0), 1000, 2.0)
METHOD = Average(network="mlp:hidden=8", epochs=2)
COLUMNS = {"u": fl.Number(-3.0, 3.0, 0.0, 1.0), "v": fl.Number(-3.0, 3.0, 0.0, 1.0)}
LABEL = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"], "c": ["2"]})


def rows(seed: int, count: int = 60) -> dict[str, Any]:
    x = np.random.default_rng(seed).uniform(-3, 3, (count, 2))
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)}


def summarize(data: dict[str, Any], problem: Problem = CLASSES, method: Average = METHOD, **more: Any) -> Any:
    return method.summarize(data, problem, {}, rng=np.random.default_rng(0), **more)


def fuse(parts: list[Any], problem: Problem = CLASSES, method: Average = METHOD) -> Any:
    return method.fuse(parts, problem, {}, rng=np.random.default_rng(0))[0]


def test_weights_are_averaged_by_rows_and_the_head_by_the_rows_of_each_class() -> None:
    one, two = rows(0, 60), rows(1, 20)
    two = {"x": two["x"][two["y"] < 2], "y": two["y"][two["y"] < 2]}  # has never seen class c
    alone = [fuse([summarize(part)]) for part in (one, two, one)]
    both = fuse([summarize(one), summarize(two)])
    n = np.array([len(one["y"]), len(two["y"])])
    body = (n[0] * alone[0]["network.body.0.weight"] + n[1] * alone[1]["network.body.0.weight"]) / n.sum()
    np.testing.assert_allclose(both["network.body.0.weight"], body, atol=1e-6)
    for k in range(3):
        share = (one["y"] == k).sum() / ((one["y"] == k).sum() + (two["y"] == k).sum())
        head = share * alone[0]["network.head.weight"][k] + (1 - share) * alone[1]["network.head.weight"][k]
        if k == 2:
            head = alone[0]["network.head.weight"][k]
        np.testing.assert_allclose(both["network.head.weight"][k], head, atol=1e-6)


def test_sums_may_be_summed_first() -> None:
    a, b, c = (summarize(rows(seed)) for seed in range(3))
    whole, part, one = (fuse(some) for some in ([a, b, c], [add(a, b), c], [add(add(a, b), c)]))
    for name in whole:
        np.testing.assert_array_equal(whole[name], part[name])
        np.testing.assert_array_equal(whole[name], one[name])


def test_batch_statistics_follow_the_law_of_total_variance() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(-3, 1, 1000), rng.normal(5, 2, 3000)]
    text, problem = "cnn5:shape=8x8x1,width=1,hidden=1,norm=batch", _image_problem()
    start = network.initial(text, problem)
    parts = []
    for group in groups:
        weights = dict(start)
        weights["body.2.running_mean"] = np.array([group.mean()], np.float32)
        weights["body.2.running_var"] = np.array([group.var()], np.float32)
        counts = {"count": np.asarray(len(group)), "class_count": np.array([len(group), 0])}
        parts.append(WeightSums(text, problem).encode(weights, counts))
    fused = WeightSums(text, problem).mean(add(*parts), start)
    pooled = np.concatenate(groups)
    assert fused["body.2.running_mean"] == pytest.approx(pooled.mean(), rel=1e-5)
    assert fused["body.2.running_var"] == pytest.approx(pooled.var(), rel=1e-5)


def _image_problem() -> Problem:
    return Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(64)), (1.0,) * 64, 10_000)


def test_separate_networks_are_averaged_as_their_sums_are() -> None:
    parts = [rows(0), rows(1, 30)]
    sums = [summarize(part) for part in parts]
    weights = [network.weights_of(fuse([part]), METHOD.network, CLASSES, "") for part in sums]
    counts = [averaging.counts_of(part["y"], CLASSES) for part in parts]
    mean, total = averaging.mean_of(weights, counts)
    assert int(total["count"]) == 90
    for name, value in network.weights_of(fuse(sums), METHOD.network, CLASSES, "").items():
        np.testing.assert_allclose(mean[name], value, atol=1e-6)


def test_sums_of_32_bits_take_half_the_bytes_and_round_by_little() -> None:
    parts, half = [rows(seed, 100) for seed in range(4)], dataclasses.replace(METHOD, word=32)
    told = {}
    for method in (METHOD, half):
        sums = [method.summarize(part, CLASSES, {}, rng=np.random.default_rng(7)) for part in parts]
        total = add(add(sums[0], sums[1]), sums[2])
        model, _ = method.fuse([total, sums[3]], CLASSES, {}, rng=np.random.default_rng(0))
        told[method.word] = network.weights_of(model, method.network, CLASSES, "")
        size = sum(array.nbytes for name, array in sums[0].items() if name.startswith("network."))
        assert size == 8 * sum(array.size for array in told[method.word].values()) * method.word / 64
    for name, value in told[64].items():
        np.testing.assert_allclose(told[32][name], value, atol=0.01)
    assert any((told[32][name] != value).any() for name, value in told[64].items())
    with pytest.raises(SettingsError, match="passed 128"):
        WeightSums(METHOD.network, CLASSES, 32).encode(
            {name: value + 200 for name, value in told[64].items()}, averaging.counts_of(parts[0]["y"], CLASSES)
        )


def test_a_class_nobody_holds_never_wins() -> None:
    part = rows(0)
    part = {"x": part["x"][part["y"] < 2], "y": part["y"][part["y"] < 2]}
    model, findings = METHOD.fuse([summarize(part)], CLASSES, {}, rng=np.random.default_rng(0))
    assert findings["absent_classes"] == ["c"]
    assert METHOD.predict(model, rows(3), CLASSES, {})["probability"][:, 2].max() < 1e-6
    alone = {"x": part["x"], "y": np.zeros(len(part["x"]), np.int64)}
    with pytest.raises(UpdateError, match="one class only"):
        fuse([summarize(alone)])


def test_numbers_are_learned_too() -> None:
    method = Average(network="mlp:hidden=16", epochs=30)
    data = [rows(seed, 150) for seed in range(2)]
    data = [part | {"y": np.sin(part["x"][:, 0])} for part in data]
    model = fuse([summarize(part, NUMBER, method) for part in data], NUMBER, method)
    found = method.predict(model, data[0], NUMBER, {})["value"]
    assert ((found - data[0]["y"]) ** 2).mean() < 0.3 * data[0]["y"].var()


def test_one_row_is_accepted() -> None:
    part = summarize(rows(0, 1))
    METHOD.check(part, CLASSES, {}, "update")
    assert np.isfinite(fuse([part, summarize(rows(1))])["network.head.weight"]).all()


def test_sums_that_no_weights_gave_are_refused() -> None:
    part = summarize(rows(0))
    METHOD.check(part, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match="the class counts do not sum to the rows"):
        METHOD.check(part | {"class_count": part["class_count"] + 1}, CLASSES, {}, "update")
    larger = part["network.head.bias"] + WeightSums(METHOD.network, CLASSES).grid.encode(np.float64(61 * 2.0**16))
    with pytest.raises(UpdateError, match=r"weights 'head\.bias' are larger than its number of rows allows"):
        METHOD.check(part | {"network.head.bias": larger}, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match=r"^update lacks network"):
        METHOD.check({name: part[name] for name in part if "head" not in name}, CLASSES, {}, "update")


def test_weights_out_of_bounds_are_told_before_they_are_sent() -> None:
    weights = network.initial(METHOD.network, CLASSES)
    weights["head.bias"][0] = 1e6
    with pytest.raises(SettingsError, match=r"training went astray: weights 'head\.bias' passed 65536"):
        WeightSums(METHOD.network, CLASSES).encode(weights, averaging.counts_of(rows(0)["y"], CLASSES))


def test_a_round_from_a_prior_that_the_model_does_not_carry() -> None:
    prior = network.named(network.initial(METHOD.network, CLASSES, seed=9))
    task = fl.new_task("t", COLUMNS, LABEL, method=METHOD, privacy="none", prior=prior)
    parts = [rows(seed) for seed in range(3)]
    raw = [{"u": part["x"][:, 0], "v": part["x"][:, 1], "kind": part["y"]} for part in parts]
    updates = [fl.summarize(task, part, rng=np.random.default_rng(k)) for k, part in enumerate(raw)]
    model, _ = fl.fuse(task, updates)
    again, _ = fl.fuse(task, [fl.add(task, *updates[:2]), updates[2]])
    assert fl.digest(model) == fl.digest(again)
    assert model.prior == {}
    assert fl.evaluate(model, raw[0])["rows"] == 60
    other = fl.new_task("t", COLUMNS, LABEL, method=METHOD, privacy="none")
    assert (
        fl.summarize(other, raw[0]).arrays["network.head.bias"].tolist()
        != updates[0].arrays["network.head.bias"].tolist()
    )
    with pytest.raises(SettingsError, match="the task's prior has unknown the weights 'body\\.0"):
        fl.new_task("t", COLUMNS, LABEL, method=Average(network="linear"), privacy="none", prior=prior)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingsError, match="no network is called 'rnn'"):
        Average(network="rnn")
    with pytest.raises(SettingsError, match="epochs may be 0 to 100000"):
        Average(epochs=-1)


def test_without_torch_the_message_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    network.shapes.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    problem = Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(64)), (1.0,) * 64, 100)
    with pytest.raises(MissingExtra, match=r'PyTorch: pip install "fusionlearn\[torch\]"'):
        Average(network="lenet5:shape=8x8x1").declare(problem, {})
    METHOD.declare(CLASSES, {})  # a dense network needs none


def test_a_client_says_nothing_of_classes_it_has_never_seen() -> None:
    start = network.initial(METHOD.network, CLASSES)
    one = {"x": rows(0)["x"], "y": np.zeros(60, np.int64)}
    method = Average(network=METHOD.network, epochs=3, decay=0.0)
    alone = method.summarize(one, CLASSES, {}, rng=np.random.default_rng(0))
    weights = WeightSums(method.network, CLASSES).grid.decode(alone["network.body.0.weight"]) / len(one["y"])
    np.testing.assert_allclose(weights, start["body.0.weight"], atol=1e-6)  # with one class there is nothing to learn
    loud = Average(network=METHOD.network, epochs=3, decay=0.0, classes="all")
    moved = loud.summarize(one, CLASSES, {}, rng=np.random.default_rng(0))
    other = WeightSums(method.network, CLASSES).grid.decode(moved["network.body.0.weight"]) / len(one["y"])
    assert np.abs(other - start["body.0.weight"]).max() > 1e-3
