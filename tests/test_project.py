"""`project` and `max_bytes`: fewer features, known before any data is seen, additive and exact as before."""

import dataclasses

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import encoder, errors, file, settings
from fusionlearn.encoder import Features
from fusionlearn.encoders.project import MEAN, MIXTURE, Project
from fusionlearn.pretrain import pretrain

COLUMNS = {"pixels": fl.Vector(60, -8, 8)}
LABEL = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"], "c": ["2"]})


def rows(count=400, seed=0):
    """Three classes in 60 columns that lie near a space of 8 dimensions."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(8, 60)) / 3
    kind = rng.integers(0, 3, count)
    hidden = rng.normal(size=(count, 8))
    hidden[:, :3] += 3 * np.eye(3)[kind]
    return {"pixels": np.clip(hidden @ basis + rng.normal(0, 0.1, (count, 60)), -8, 8), "kind": kind}


def task_of(project, **more):
    return fl.new_task("t", COLUMNS, LABEL, encoder=["table", project], method="ridge", privacy="none", **more)


def encode(task, data):
    return task.encoder.encode(task.schema.read(data).data, task.schema, task.prior)["x"]


@pytest.mark.parametrize("directions", ["random", "learned"])
def test_fewer_features_still_tell_classes_apart_whatever_the_split(directions):
    task = task_of(Project(16 if directions == "random" else 8, directions))
    if directions == "learned":
        task = pretrain(task, {"pixels": rows(seed=5)["pixels"]})
    data, fresh = rows(), rows(seed=1)
    by_class = [{name: cells[data["kind"] == kind] for name, cells in data.items()} for kind in range(3)]
    pooled, _ = fl.fuse(task, [fl.summarize(task, data)])
    fused, _ = fl.fuse(task, [fl.summarize(task, part) for part in by_class])
    np.testing.assert_allclose(fused.arrays["weights"], pooled.arrays["weights"], rtol=1e-9, atol=1e-12)
    answers = fl.predict(fused, {"pixels": fresh["pixels"]})["probability"].argmax(axis=1)
    assert (answers == fresh["kind"]).mean() > 0.85


@pytest.mark.parametrize("directions", ["random", "learned"])
def test_a_row_is_projected_the_same_in_any_company(directions):
    task = task_of(Project(8, directions))
    if directions == "learned":
        task = pretrain(task, {"pixels": rows(seed=5)["pixels"]})
    data = rows(300)
    alone = [encode(task, {name: cells[i : i + 1] for name, cells in data.items()})[0] for i in (0, 255, 256, 299)]
    assert np.array_equal(encode(task, data)[[0, 255, 256, 299]], alone)


def test_random_mixtures_keep_inner_products():
    x = np.random.default_rng(0).uniform(-1, 1, (50, 400))
    schema = fl.Schema({"x": fl.Vector(400, -1, 1)}, LABEL)
    mixed = Project(4000).encode({"x": x}, schema, {})["x"]
    before, after = x @ x.T / 400, mixed @ mixed.T / 4000
    assert np.abs(before - after).max() < 0.03
    assert before.diagonal().min() > 0.25


def test_mixtures_stay_within_the_bounds_they_declare():
    ahead = Features(("a", "b", "c"), (1.0, 2.0, 5.0))
    schema = fl.Schema({"x": fl.Vector(3, -5, 5)}, LABEL)
    made = Project(20)
    told = made.features(schema, ahead)
    corners = np.array(np.meshgrid(*([-b, b] for b in ahead.bounds))).reshape(3, -1).T
    reached = np.abs(made.encode({"x": corners}, schema, {})["x"]).max()
    assert reached == pytest.approx(told.bounds[0])


@pytest.mark.parametrize("count", [30, 200])  # fewer and more rows than columns
def test_learned_mixtures_have_variance_one_and_the_most_of_it(count):
    public = rows(count, seed=5)
    task = pretrain(task_of(Project(8, "learned")), {"pixels": public["pixels"]})
    mixed = encode(task, public)
    np.testing.assert_allclose(mixed.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(mixed, rowvar=False, bias=True), np.eye(8), atol=1e-3)
    scaled = public["pixels"] / public["pixels"].std(axis=0)
    centred = scaled - scaled.mean(axis=0)
    left = centred - mixed @ np.linalg.lstsq(mixed, centred, rcond=None)[0]
    assert (left**2).sum() < 0.05 * (centred**2).sum()


def test_roots_are_taken_of_sizes_first():
    ahead = Features(("a", "b", "c"), (1.0, 4.0, 9.0))
    schema = fl.Schema({"x": fl.Vector(3, -9, 9)}, LABEL)
    x = np.random.default_rng(3).uniform(-1, 1, (50, 3)) * ahead.bounds
    made, plain = Project(20, roots=True), Project(20)
    told = made.features(schema, ahead)
    mixed = made.encode({"x": x}, schema, {})["x"]
    np.testing.assert_allclose(mixed, plain.encode({"x": np.sign(x) * np.abs(x) ** 0.5}, schema, {})["x"])
    assert np.abs(mixed).max() <= told.bounds[0] == pytest.approx(6 / 3**0.5)
    assert made.encode({"x": x.astype(np.float32)}, schema, {})["x"].dtype == np.float32


@pytest.mark.parametrize("count", [30, 200])  # fewer and more rows than columns
def test_agreement_favours_what_features_say_together(count):
    """Twelve columns follow two hidden numbers, thirty speak for themselves: the latter have the greater variance."""
    rng = np.random.default_rng(8)
    hidden = rng.normal(size=(count, 2))
    together = hidden @ rng.normal(size=(2, 12)) + 0.3 * rng.normal(size=(count, 12))
    x = np.hstack([together, rng.normal(size=(count, 30)), np.zeros((count, 1))])
    schema = fl.Schema({"x": fl.Vector(43, -99, 99)}, LABEL)
    centred = (x - x.mean(axis=0))[:, :42]
    correlated = np.sqrt((np.corrcoef(centred, rowvar=False) ** 2).sum(axis=0))
    weight = correlated / np.median(correlated)
    shares = {}
    for agreement in (0.0, 1.0, 2.0):
        made = Project(8, "learned", agreement=agreement)
        prior = made.pretrain({"x": x}, schema, rng=rng)
        mixed = made.encode({"x": x}, schema, prior)["x"]
        np.testing.assert_allclose(np.cov(mixed, rowvar=False, bias=True), np.eye(8), atol=1e-3)
        assert not prior[MIXTURE][42].any()  # the column that says nothing
        scaled = centred / centred.std(axis=0) * weight**agreement
        basis = np.linalg.svd(scaled, full_matrices=False)[0][:, :8]  # what principal components of these say
        assert np.linalg.norm(basis - mixed @ np.linalg.lstsq(mixed, basis, rcond=None)[0]) < 0.1
        shares[agreement] = (prior[MIXTURE][:12] ** 2).sum() / (prior[MIXTURE][:42] ** 2).sum()
    assert shares[0.0] < shares[1.0] < shares[2.0]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Project(8, "learned", agreement=5.0), "agreement is 5; it may be 0 to 4"),
        (lambda: Project(8, agreement=1.0), "set directions to learned"),
    ],
)
def test_an_agreement_that_cannot_be_is_refused(made, told):
    with pytest.raises(errors.SettingsError, match=told):
        made()


def test_a_limit_on_the_upload_is_met():
    for limit in (20_000, 30_000, 100_000):
        task = task_of(Project(0), max_bytes=limit)
        width = task.problem.num_features
        assert file.num_bytes(fl.summarize(task, rows())) <= limit
    assert width == 60  # never more than there are
    with pytest.raises(errors.SettingsError, match="with num_features = 0 it makes the 1 that fit"):
        task_of(Project(60), max_bytes=16_500)


def test_a_limit_that_nothing_meets_names_the_least():
    with pytest.raises(
        errors.SettingsError, match=r"max_bytes is 16400, but an update of 'ridge' takes (\d+) bytes"
    ) as told:
        task_of(Project(0), max_bytes=16_400)
    least = int(str(told.value).split(" takes ")[1].split()[0])
    assert task_of(Project(0), max_bytes=least).problem.num_features == 1
    with pytest.raises(errors.SettingsError, match=f"takes {least} bytes at the least"):
        task_of(Project(0), max_bytes=least - 1)
    with pytest.raises(
        errors.SettingsError, match=f"with one feature an update takes {least} bytes, the least there is"
    ):
        task_of(Project(8), max_bytes=100)


def test_settings_in_toml_may_leave_the_number_to_the_limit(tmp_path):
    path = tmp_path / "task.toml"
    path.write_text(
        'name = "t"\nmax_bytes = 30_000\nencoder = ["table", {name = "project", num_features = 0}]\n'
        "[columns.pixels]\nlength = 60\nlow = -8\nhigh = 8\n"
        '[label]\ncolumn = "kind"\n[label.classes]\na = ["0"]\nb = ["1"]\n[privacy]\nmode = "none"\n'
    )
    task = settings.task_from_toml(path)
    assert 1 < task.problem.num_features < 60
    assert file.num_bytes(fl.summarize(task, rows(50) | {"kind": np.arange(50) % 2})) <= 30_000


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: task_of(Project(0)), "num_features = 0 means as many as max_bytes allows"),
        (lambda: Project(-1), "num_features is -1; it may be 0 to 65536"),
        (lambda: fl.new_task("t", COLUMNS, LABEL, encoder="project", privacy="none"), "project needs features ahead"),
        (lambda: encode(task_of(Project(4, "learned")), rows(3)), r"the task has no 'project\.mean': run"),
        (lambda: pretrain(task_of(Project(20, "learned")), rows(10)), "10 public rows span 9 directions, 20 are"),
        (lambda: pretrain(task_of(Project(2, "learned")), {"pixels": np.ones((5, 60))}), "are all the same"),
    ],
)
def test_what_cannot_work(made, told):
    with pytest.raises(errors.SettingsError, match=told):
        made()


def test_a_prior_for_another_number_of_features_is_refused():
    task = pretrain(task_of(Project(4, "learned")), {"pixels": rows()["pixels"]})
    assert {name: array.shape for name, array in task.prior.items()} == {MEAN: (60,), MIXTURE: (60, 4)}
    other = dataclasses.replace(task, prior=task.prior | {MIXTURE: task.prior[MIXTURE][:, :3]})
    with pytest.raises(errors.SettingsError, match=r"prior array 'project\.mixture' is \(60, 3\) float32, \(60, 4\)"):
        encode(other, rows(3))


def test_signs_come_from_the_seed():
    schema = fl.Schema({"x": fl.Vector(5, -1, 1)}, LABEL)
    first, again, other = (
        encoder.make("project", {"num_features": 7, "seed": seed}).encode({"x": np.eye(5)}, schema, {})["x"]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert set(np.abs(first).ravel()) == {1 / np.sqrt(5)}
