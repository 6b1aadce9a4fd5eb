"""Distillation of networks: what the student learns, what it costs to send, and what the server makes of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import averaging, coding, densities, mixture, network, plugin, teacher, training
from fusionlearn.arrays import add
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.methods.distill import Distill
from fusionlearn.problem import Problem

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

CLASSES = Problem("multiclass", ("a", "b", "c"), ("u", "v"), (3.0, 3.0), 1000)
NUMBER = Problem("regression", (), ("u", "v"), (3.0, 3.0), 1000, 2.0)
METHOD = Distill(student="mlp:hidden=8", epochs=3)
LOCAL = {"teacher": "forest:trees=5"}


def rows(seed: int, count: int = 60) -> dict[str, Any]:
    x = np.random.default_rng(seed).uniform(-3, 3, (count, 2))
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)}


def summarize(data: dict[str, Any], method: Distill = METHOD, problem: Problem = CLASSES, prior: Any = None) -> Any:
    return method.summarize(data, problem, prior or {}, rng=np.random.default_rng(0), local=LOCAL)


def fuse(parts: list[Any], method: Distill = METHOD, problem: Problem = CLASSES, **more: Any) -> Any:
    return method.fuse(parts, problem, {}, rng=np.random.default_rng(0), **more)[0]


def accuracy(model: Any, method: Distill = METHOD) -> float:
    data = rows(99, 500)
    return float((method.predict(model, data, CLASSES, {})["probability"].argmax(axis=1) == data["y"]).mean())


def test_a_round_learns() -> None:
    method = Distill(student="mlp:hidden=16", epochs=30)
    assert accuracy(fuse([summarize(rows(seed, 150), method) for seed in range(3)], method), method) > 0.9
    numbers = [part | {"y": np.sin(part["x"][:, 0])} for part in (rows(seed, 150) for seed in range(2))]
    model = fuse([summarize(part, method, NUMBER) for part in numbers], method, NUMBER)
    found = method.predict(model, numbers[0], NUMBER, {})["value"]
    assert ((found - numbers[0]["y"]) ** 2).mean() < 0.3 * numbers[0]["y"].var()


def test_a_weight_travels_in_a_byte_and_its_error_is_half_a_step() -> None:
    problem = Problem("binary", ("a", "b"), tuple(f"x{i}" for i in range(50)), (1.0,) * 50, 100)
    text = "mlp:hidden=40"
    start = network.initial(text, problem)
    rng = np.random.default_rng(0)
    weights = {name: (value + rng.normal(0, 0.1, value.shape)).astype(np.float32) for name, value in start.items()}
    sent = coding.encode(weights, start)
    back = coding.decode(sent, start)
    for name, value in weights.items():
        if value.ndim < 2:
            np.testing.assert_array_equal(back[name], value)
        else:
            assert sent["network." + name].dtype == np.int8
            step = np.abs(value - start[name]).max(axis=1, keepdims=True) / 127
            assert (np.abs(back[name] - value) <= 0.5001 * step + 1e-7).all()
    size = sum(array.nbytes for array in sent.values())
    assert size == 50 * 40 + 40 * 2 + 4 * (40 + 2) + 4 * (40 + 2)
    specs = coding.declare(network.shapes(text, problem))
    assert size == sum(spec.max_bytes for spec in specs.values()) and set(specs) == set(sent)
    still = coding.decode(coding.encode(start, start), start)
    for name, value in start.items():
        np.testing.assert_array_equal(still[name], value)


def test_students_are_averaged_by_rows_and_by_class() -> None:
    parts = [rows(0, 60), rows(1, 30)]
    sent = [summarize(part) for part in parts]
    start = network.initial(METHOD.student, CLASSES)
    students = [coding.decode(one, start) for one in sent]
    mean, _ = averaging.mean_of(students, [averaging.counts_of(part["y"], CLASSES) for part in parts])
    body = (60 * students[0]["body.0.weight"] + 30 * students[1]["body.0.weight"]) / 90
    np.testing.assert_allclose(mean["body.0.weight"], body, atol=1e-6)
    for name, value in fuse(sent).items():
        np.testing.assert_array_equal(value, mean[name.removeprefix("network.")])


def test_fixed_point_students_are_additive_and_nearly_the_same() -> None:
    fixed = Distill(student="mlp:hidden=8", epochs=3, coding="fixed")
    assert fixed.additive and not METHOD.additive
    a, b = (summarize(rows(seed), fixed) for seed in range(2))
    whole, summed = fuse([a, b], fixed), fuse([add(a, b)], fixed)
    bytewise = fuse([summarize(rows(seed)) for seed in range(2)])
    for name in whole:
        np.testing.assert_array_equal(whole[name], summed[name])
        np.testing.assert_allclose(whole[name], bytewise[name], atol=0.02)


def test_the_loss_is_the_softened_teacher_and_the_label() -> None:
    method = Distill(mix=0.3, temperature=4.0)
    scores = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]], np.float32)
    soft = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    label = np.eye(3)[[0, 2]]
    targets = np.hstack([soft, label]).astype(np.float32)
    found, slopes = method._loss(CLASSES)(scores, targets)

    def entropy(target: Any, raw: Any) -> Any:
        return -(target * (raw - np.log(np.exp(raw).sum(axis=1, keepdims=True)))).sum(axis=1)

    wanted = 0.3 * 16 * entropy(soft, scores / 4) + 0.7 * entropy(label, scores)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for place in range(3):  # the slope of each score, by a small difference
        step = np.eye(3)[place] * 1e-5
        up, down = (method._loss(CLASSES)(scores.astype(np.float64) + sign * step, targets)[0] for sign in (1, -1))
        np.testing.assert_allclose(slopes[:, place], (up - down) / 2e-5, atol=1e-3)


def test_targets_are_softened_held_out_and_go_on_over_public_rows() -> None:
    data, public = rows(0), np.random.default_rng(1).uniform(-3, 3, (7, 2)).astype(np.float32)
    taught = teacher.parse("forest:trees=10,min_leaf=1")

    def targets(prior: Any, **settings: Any) -> Any:
        made = Distill(**settings)
        return made.targets(taught, data["x"], data["y"], CLASSES, prior, np.random.default_rng(0))

    plain = targets({}, temperature=1.0)
    np.testing.assert_array_equal(plain[:, 3:], np.eye(3)[data["y"]])
    assert plain.shape == (60, 6)
    soft = targets({}, temperature=2.0)[:, :3]
    roots = np.sqrt(np.clip(plain[:, :3], 1e-12, None))
    np.testing.assert_allclose(soft, roots / roots.sum(axis=1, keepdims=True), atol=1e-5)
    held = targets({}, temperature=1.0, folds=5)[:, :3]
    right = np.arange(60), data["y"]
    assert held[right].mean() < plain[:, :3][right].mean()  # it has not seen them
    for folds in (0, 5):
        more = targets({"public": public}, temperature=1.0, folds=folds)
        assert more.shape == (67, 6)
        np.testing.assert_allclose(more[60:, :3], more[60:, 3:], atol=1e-9)


def test_public_rows_let_the_average_learn_from_the_students_together() -> None:
    # Each client sees half of the plane, so the average of their students knows neither half well.
    every = rows(5, 600)
    left = every["x"][:, 0] < 0
    halves = [{name: cells[side] for name, cells in every.items()} for side in (left, ~left)]
    method = Distill(student="mlp:hidden=16", epochs=20)
    parts = [summarize(half, method) for half in halves]
    public = {"x": np.random.default_rng(6).uniform(-3, 3, (500, 2))}
    model, findings = method.fuse(parts, CLASSES, {}, rng=np.random.default_rng(0), public=public)
    together = method._together(
        [coding.decode(part, network.initial(method.student, CLASSES)) for part in parts], parts, public["x"], CLASSES
    )
    agreed = training.answers(method.student, CLASSES, model, public["x"])["probability"].argmax(axis=1)
    assert findings["public_rows"] == 500
    plain = training.answers(method.student, CLASSES, fuse(parts, method), public["x"])["probability"].argmax(axis=1)
    assert (agreed == together.argmax(axis=1)).mean() > max(0.9, (plain == together.argmax(axis=1)).mean())
    np.testing.assert_allclose(together.sum(axis=1), 1.0)


def test_densities_let_the_average_learn_without_public_rows() -> None:
    every = rows(5, 600)
    left = every["x"][:, 0] < 0
    halves = [{name: cells[side] for name, cells in every.items()} for side in (left, ~left)]
    plain = Distill(student="mlp:hidden=16", epochs=20)
    told = dataclasses.replace(plain, components=3, drawn_rows=600)
    parts = [summarize(half, told) for half in halves]
    for part in parts:
        told.check(part, CLASSES, {}, "update")
    model, findings = told.fuse(parts, CLASSES, {}, rng=np.random.default_rng(0))
    assert findings["drawn_rows"] == 600 and "public_rows" not in findings
    assert accuracy(model, told) > max(0.9, accuracy(fuse([summarize(half, plain) for half in halves], plain), plain))
    public = {"x": np.random.default_rng(6).uniform(-3, 3, (40, 2))}
    both, findings = told.fuse(parts, CLASSES, {}, rng=np.random.default_rng(0), public=public)
    assert (findings["public_rows"], findings["drawn_rows"]) == (40, 600)
    assert any((both[name] != model[name]).any() for name in both)


def test_what_is_drawn_does_not_depend_on_who_is_first() -> None:
    told = dataclasses.replace(METHOD, components=2, drawn_rows=200)
    parts = [summarize(rows(seed), told) for seed in range(3)]
    model = fuse(parts, told)
    for other in (parts[::-1], parts[1:] + parts[:1]):
        for name, value in fuse(other, told).items():
            np.testing.assert_array_equal(value, model[name])


def test_densities_of_numbers() -> None:
    told = Distill(student="mlp:hidden=16", epochs=20, rate=0.02, components=3, drawn_rows=600)
    parts = [part | {"y": np.sin(part["x"][:, 0])} for part in (rows(seed, 150) for seed in range(2))]
    model = fuse([summarize(part, told, NUMBER) for part in parts], told, NUMBER)
    found = told.predict(model, parts[0], NUMBER, {})["value"]
    assert ((found - parts[0]["y"]) ** 2).mean() < 0.3 * parts[0]["y"].var()


def test_drawn_rows_are_within_bounds_and_those_of_all_clients() -> None:
    told = dataclasses.replace(METHOD, components=2, drawn_rows=2000)
    parts = [summarize(rows(seed, 200), told) for seed in range(2)]
    clients = [densities.decode(part, part["class_count"]) for part in parts]
    narrow = dataclasses.replace(CLASSES, feature_bounds=(3.0, 0.5))
    drawn = told._drawn(clients, narrow, np.random.default_rng(0))
    assert drawn.shape == (2000, 2) and np.abs(drawn[:, 0]).max() <= 3 and np.abs(drawn[:, 1]).max() == 0.5
    assert drawn[:, 0].std() == pytest.approx(3 / np.sqrt(3), rel=0.1)


def test_a_client_is_heard_where_its_rows_lie() -> None:
    start = network.initial("linear", CLASSES)
    bold = [{**start, "head.weight": start["head.weight"] * 0, "head.bias": np.float32(bias)}
            for bias in ([9, 0, 0], [0, 9, 0])]  # fmt: skip
    counts = [{"class_count": np.array([5, 5, 0])}] * 2
    here = [{label: mixture.Mixture(np.ones(1), np.full((1, 2), at), np.ones((1, 2))) for label in (0, 1)}
            for at in (-2.0, 2.0)]  # fmt: skip
    clients = [densities.Densities(np.array([5.0, 5, 0]), own) for own in here]
    together = Distill(student="linear")._together(bold, counts, np.array([[-2.0, -2], [2, 2]]), CLASSES, clients)
    np.testing.assert_array_equal(together.argmax(axis=1), [0, 1])
    np.testing.assert_allclose(together.sum(axis=1), 1.0)
    assert (together[:, 2] == 0).all()  # nobody has seen class c


def test_densities_are_checked_and_told() -> None:
    told = dataclasses.replace(METHOD, components=2)
    part = summarize(rows(0), told)
    told.check(part, CLASSES, {}, "update")
    for name, value in (
        ("density.mean", 3.1),
        ("density.variance", 0.0),
        ("density.weight", 0.1),
        ("density.class", 1),
    ):
        with pytest.raises(UpdateError):
            told.check(part | {name: np.full_like(part[name], value)}, CLASSES, {}, "update")
    moments = told.moments(part, CLASSES)
    assert moments is not None and moments.mean is not None and moments.second is not None
    np.testing.assert_allclose(moments.mean, rows(0)["x"].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(moments.second[1:], (rows(0)["x"] ** 2).sum(axis=0), rtol=1e-2)
    plain = METHOD.moments(summarize(rows(0)), CLASSES)
    assert plain is not None and plain.mean is None
    # Tasks from before densities keep their bytes: the settings are not told unless they are set.
    assert not {"components", "drawn_rows"} & set(plugin.to_json(METHOD)["settings"])


def test_a_client_is_heard_by_its_share_of_a_class() -> None:
    start = network.initial("linear", CLASSES)
    loud = {**start, "head.bias": np.array([9.0, 0.0, 0.0], np.float32)}  # sure of class a, of which it has no row
    calm = {**start, "head.bias": np.array([0.0, 2.0, 0.0], np.float32)}
    counts = [{"class_count": np.array([0, 5, 5])}, {"class_count": np.array([10, 5, 5])}]
    method = Distill(student="linear")
    together = method._together([loud, calm], counts, np.zeros((1, 2)), CLASSES)
    assert together[0].argmax() == 1


def test_the_prior_is_where_the_student_starts() -> None:
    prior = network.named(network.initial(METHOD.student, CLASSES, seed=5))
    idle = Distill(student="mlp:hidden=8", epochs=0)
    part = summarize(rows(0), idle, prior=prior)
    assert (part["network.body.0.weight"] == 0).all()  # it has not moved
    model, _ = idle.fuse([part], CLASSES, prior, rng=np.random.default_rng(0))
    for name, value in model.items():
        np.testing.assert_array_equal(value, prior[name])


def test_few_rows_or_one_class_are_accepted() -> None:
    one = {"x": np.zeros((1, 2)), "y": np.array([1])}
    part = summarize(one)
    METHOD.check(part, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match="one class only"):
        fuse([part])
    assert np.isfinite(accuracy(fuse([part, summarize(rows(0))])))


def test_summaries_that_are_none_are_refused() -> None:
    part = summarize(rows(0))
    METHOD.check(part, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match="class counts do not sum to the rows"):
        METHOD.check(part | {"count": np.asarray(61)}, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match="holds NaN or infinity"):
        METHOD.check(part | {"scale.head.weight": np.full(3, np.nan, np.float32)}, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match="holds entries below 0"):
        METHOD.check(part | {"scale.head.weight": np.full(3, -1, np.float32)}, CLASSES, {}, "update")


@pytest.mark.parametrize(
    "wrong",
    [
        {"mix": 2.0},
        {"temperature": 0.0},
        {"folds": -1},
        {"student": "rnn"},
        {"epochs": -1},
        {"components": -1},
        {"drawn_rows": 0},
        {"components": 1, "coding": "fixed"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Distill(**wrong)


def test_nothing_of_the_teacher_travels() -> None:
    columns = {"u": fl.Number(-3.0, 3.0, 0.0, 1.0), "v": fl.Number(-3.0, 3.0, 0.0, 1.0)}
    label = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"], "c": ["2"]})
    task = fl.new_task("t", columns, label, method=METHOD, privacy="none")
    data = rows(0)
    update = fl.summarize(task, {"u": data["x"][:, 0], "v": data["x"][:, 1], "kind": data["y"]}, local=LOCAL)
    assert set(update.arrays) == set(METHOD.declare(CLASSES, {}))
    from fusionlearn.file import to_bytes

    assert b"forest" not in to_bytes(update)
