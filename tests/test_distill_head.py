"""Distillation in closed form: all teachers on all rows, in one upload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import fusionlearn as fl
from fusionlearn import cli, run, sums, teacher
from fusionlearn.arrays import add
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.file import to_bytes
from fusionlearn.heads import HeadSums
from fusionlearn.methods.distill_head import DistillHead
from fusionlearn.problem import Problem

pytest.importorskip("sklearn")

CLASSES = Problem("multiclass", ("a", "b", "c"), ("u", "v"), (3.0, 3.0), 1000)
NUMBER = Problem("regression", (), ("u", "v"), (3.0, 3.0), 1000, 2.0)
TEACHERS = ("forest:trees=10", "boosting:rounds=10", "forest:trees=5,min_leaf=1")
COLUMNS = {"u": fl.Number(-3.0, 3.0, 0.0, 1.0), "v": fl.Number(-3.0, 3.0, 0.0, 1.0)}
LABEL = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"], "c": ["2"]})


def rows(seed: int, count: int = 60) -> dict[str, Any]:
    x = np.random.default_rng(seed).uniform(-3, 3, (count, 2))
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)}


def summaries(method: DistillHead, problem: Problem = CLASSES, data: list[dict[str, Any]] | None = None) -> list[Any]:
    """Three clients with three teachers."""
    data = data or [rows(seed) for seed in range(3)]
    return [
        method.summarize(part, problem, {}, rng=np.random.default_rng(k), local={"teacher": TEACHERS[k]})
        for k, part in enumerate(data)
    ]


def fused(method: DistillHead, parts: list[Any], problem: Problem = CLASSES) -> Any:
    return method.fuse(parts, problem, {}, rng=np.random.default_rng(0))[0]


def all_targets(method: DistillHead, problem: Problem, data: list[dict[str, Any]]) -> Any:
    return np.concatenate([
        method.targets(teacher.parse(TEACHERS[k]), part["x"], part["y"], problem, np.random.default_rng(k))
        for k, part in enumerate(data)
    ])  # fmt: skip


@pytest.mark.parametrize("mix", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["classes", "number"])
def test_the_fused_student_is_the_one_all_teachers_teach_on_the_pooled_rows(mix: float, kind: str) -> None:
    problem = CLASSES if kind == "classes" else NUMBER
    data = [rows(seed) for seed in range(3)]
    if kind == "number":
        data = [part | {"y": np.sin(part["x"][:, 0])} for part in data]
    method = DistillHead(mix=mix, penalty=0.01)
    model = fused(method, summaries(method, problem, data), problem)
    x, targets = np.concatenate([part["x"] for part in data]), all_targets(method, problem, data)
    centred, scale = x - x.mean(axis=0), x.std(axis=0)
    z = centred / scale
    weights = np.linalg.solve(z.T @ z + 0.01 * len(z) * np.eye(2), z.T @ (targets - targets.mean(axis=0)))
    np.testing.assert_allclose(model["weights"], weights / scale[:, None], rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        model["bias"], targets.mean(axis=0) - x.mean(axis=0) @ (weights / scale[:, None]), rtol=0, atol=1e-9
    )


def test_it_is_the_matrix_weighted_average_of_the_local_students() -> None:
    method = DistillHead(penalty=0.0)
    parts = summaries(method)
    model = fused(method, parts)
    reals = [HeadSums(CLASSES).decode(part) for part in parts]
    students = [np.linalg.solve(real.gram, real.moment) for real in reals]
    pulled = sum(real.gram @ student for real, student in zip(reals, students, strict=True))
    average = np.linalg.solve(sum(real.gram for real in reals), pulled)
    np.testing.assert_allclose(np.vstack([model["bias"], model["weights"]]), average, atol=1e-8)


def test_sums_may_be_summed_first() -> None:
    method = DistillHead()
    a, b, c = summaries(method)
    whole, part, one = (fused(method, some) for some in ([a, b, c], [add(a, b), c], [add(add(a, b), c)]))
    for name in whole:
        np.testing.assert_array_equal(whole[name], part[name])
        np.testing.assert_array_equal(whole[name], one[name])


def test_without_a_share_for_the_teacher_it_is_ridge_regression_bit_for_bit() -> None:
    def model(method: Any, local: dict[str, str] | None) -> Any:
        task = fl.new_task("t", COLUMNS, LABEL, method=method, privacy="none")
        parts = [columns(seed) for seed in range(3)]
        return fl.fuse(task, [fl.summarize(task, part, local=local) for part in parts])[0].arrays

    ours, ridge = model(DistillHead(mix=0.0), {"teacher": "forest"}), model("ridge", None)
    assert DistillHead(mix=0.0).exact and not DistillHead(mix=0.1).exact
    for name in ("weights", "bias"):
        np.testing.assert_array_equal(ours[name], ridge[name])


def columns(seed: int) -> dict[str, Any]:
    part = rows(seed)
    return {"u": part["x"][:, 0], "v": part["x"][:, 1], "kind": part["y"]}


def test_temperature_softens_and_mix_weighs() -> None:
    part = rows(0)
    taught = teacher.parse(TEACHERS[0])

    def targets(**settings: float) -> Any:
        made = DistillHead(folds=3, **settings)  # type: ignore[arg-type]
        return made.targets(taught, part["x"], part["y"], CLASSES, np.random.default_rng(0))

    plain, soft, hard = targets(mix=1.0), targets(mix=1.0, temperature=3.0), targets(mix=0.0)
    np.testing.assert_array_equal(hard, sums.one_hot(part["y"], 3))
    np.testing.assert_allclose(soft.sum(axis=1), 1.0)
    sure = plain.max(axis=1) < 1
    assert (soft.max(axis=1) < plain.max(axis=1))[sure].all()
    raised = plain ** (1 / 3)
    np.testing.assert_allclose(soft, raised / raised.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(targets(mix=0.25), 0.25 * plain + 0.75 * hard)


def test_the_teacher_stays_at_home() -> None:
    task = fl.new_task("t", COLUMNS, LABEL, method="distill_head", privacy="none")
    update = fl.summarize(task, columns(0), local={"teacher": "boosting:rounds=3"})
    assert set(update.arrays) == {"gram", "moment", "square", "count"}
    assert b"boosting" not in to_bytes(update) and b"forest" not in to_bytes(update)
    other = fl.summarize(task, columns(0), local={"teacher": "forest:trees=3"})
    np.testing.assert_array_equal(update.arrays["gram"], other.arrays["gram"])
    assert (update.arrays["moment"] != other.arrays["moment"]).any()  # it was taught by somebody else


def test_a_local_choice_a_method_does_not_leave_is_refused() -> None:
    ridge = fl.new_task("t", COLUMNS, LABEL, privacy="none")
    with pytest.raises(SettingsError, match="method 'ridge' has no local choice 'teacher': it leaves nothing to a"):
        fl.summarize(ridge, columns(0), local={"teacher": "forest"})
    task = fl.new_task("t", COLUMNS, LABEL, method="distill_head", privacy="none")
    with pytest.raises(SettingsError, match="no local choice 'pupil': it leaves teacher to a client"):
        run.client_pass(task, columns(0), local={"pupil": "forest"})


@pytest.mark.parametrize("settings", [{"mix": 1.1}, {"temperature": 0.0}, {"folds": -1}, {"penalty": -1.0}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"distill_head: {next(iter(settings))} is "):
        DistillHead(**settings)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_rows_or_one_class_are_accepted(count: int) -> None:
    method = DistillHead()
    few = {"x": rows(0, count)["x"], "y": np.zeros(count, np.int64)}
    part = method.summarize(few, CLASSES, {}, rng=np.random.default_rng(0))
    method.check(part, CLASSES, {}, "update")
    with pytest.raises(UpdateError, match="one class only"):
        fused(method, [part])
    assert np.isfinite(fused(method, [part, *summaries(method)])["weights"]).all()


def test_a_summary_that_no_rows_gave_is_refused() -> None:
    method = DistillHead()
    part = summaries(method)[0]
    with pytest.raises(UpdateError, match="class counts do not sum to the rows"):
        method.check(part | {"moment": part["moment"] + 2**50}, CLASSES, {}, "update")


def test_the_loss_needs_no_rows() -> None:
    method = DistillHead()
    data = [rows(seed) for seed in range(3)]
    parts = summaries(method, data=data)
    model = fused(method, parts)
    targets = all_targets(method, CLASSES, data)[:60]
    missed = ((data[0]["x"] @ model["weights"] + model["bias"] - targets) ** 2).sum(axis=1).mean()
    assert method.loss(model, parts[0], CLASSES) == pytest.approx(missed, rel=1e-9)
    told = method.moments(parts[0], CLASSES)
    assert told is not None and told.class_count is not None
    np.testing.assert_allclose(told.class_count, targets.sum(axis=0))


def test_the_command_takes_a_teacher(tmp_path: Path) -> None:
    task = fl.new_task("t", COLUMNS, LABEL, method="distill_head", privacy=fl.Privacy("none", "allow"))
    fl.write(tmp_path / "task.fusion", task)
    part = columns(0)
    lines = ["u,v,kind", *(f"{u},{v},{kind}" for u, v, kind in zip(part["u"], part["v"], part["kind"], strict=True))]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    given = ["summarize", str(tmp_path / "task.fusion"), str(tmp_path / "data.csv"), "-o", str(tmp_path / "u.fusion"),
             "--allow-unsigned", "--unsigned", "--accept-small-cells", "--json", "--teacher"]  # fmt: skip
    done = CliRunner().invoke(cli.main, [*given, "boosting:rounds=5"])
    assert done.exit_code == 0, done.output
    assert fl.read(tmp_path / "u.fusion", fl.Update).arrays["count"] == 60
    refused = CliRunner().invoke(cli.main, [*given, "oracle"])
    assert refused.exit_code == 1 and "no teacher is called 'oracle'" in refused.output
    listed = json.loads(CliRunner().invoke(cli.main, ["teachers", "--json"]).output)
    assert [row["name"] for row in listed["teachers"]] == sorted(teacher.TEACHERS)
