"""Half the upload: Gram matrices in 32 bits are additive all the same, and what they round away does not matter."""

import dataclasses
from functools import partial

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import arrays, errors, file, method, plugin
from fusionlearn.fixed import FixedPoint
from fusionlearn.methods.distill_head import DistillHead
from fusionlearn.methods.gaussian import Gaussian
from fusionlearn.methods.naive_bayes import NaiveBayes
from fusionlearn.methods.ridge import Ridge
from fusionlearn.problem import Problem

COLUMNS = {"x": fl.Vector(40, -5, 5, center=0, scale=1)}
LABEL = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"], "c": ["2"]})


METHODS = [Ridge, Gaussian, partial(Gaussian, covariance="per_class"), partial(DistillHead, mix=0.0), NaiveBayes]
NAMES = ["ridge", "shared", "per_class", "distill_head", "naive_bayes"]
every_method = pytest.mark.parametrize("kind", METHODS, ids=NAMES)


def task_of(word, kind=Ridge):
    return fl.new_task("t", COLUMNS, LABEL, method=kind(word=word), privacy="none", max_records=20_000)


def rows(count=3000, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, count)
    mixed = rng.normal(size=(count, 40)) @ np.random.default_rng(9).normal(size=(40, 40)) / 8
    mixed[:, :3] += np.eye(3)[kind]
    return {"x": np.clip(mixed, -5, 5), "kind": kind}


def parts(data):
    order = np.argsort(data["kind"], kind="stable")
    return [{name: cells[some] for name, cells in data.items()} for some in np.array_split(order, 30)]


@every_method
def test_an_update_takes_half_the_bytes(kind):
    small, large = (file.num_bytes(fl.summarize(task_of(word, kind), rows())) for word in (32, 64))
    assert 0.5 < small / large < 0.75
    arrays_sent = fl.summarize(task_of(32, kind), rows()).arrays
    assert max(arrays_sent.values(), key=lambda array: array.size).dtype == np.int32


@every_method
def test_sums_of_32_bits_are_additive_bit_for_bit(kind):
    task = task_of(32, kind)
    updates = [fl.summarize(task, part) for part in parts(rows())]
    model, _ = fl.fuse(task, updates)
    grouped, _ = fl.fuse(task, [fl.add(task, *updates[:20]), *updates[20:]])
    assert file.digest(grouped) == file.digest(model)
    without, _ = fl.fuse(task, [fl.subtract(task, fl.add(task, *updates), updates[3])])
    expected, _ = fl.fuse(task, [*updates[:3], *updates[4:]])
    assert file.digest(without) == file.digest(expected)


@every_method
def test_the_model_is_the_one_of_64_bits_but_for_rounding(kind):
    data, fresh = rows(), rows(seed=1)
    told = {}
    for word in (32, 64):
        task = task_of(word, kind)
        model, _ = fl.fuse(task, [fl.summarize(task, part) for part in parts(data)])
        told[word] = fl.predict(model, {"x": fresh["x"]})["probability"]
    np.testing.assert_allclose(told[32], told[64], atol=1e-3)
    assert (told[64].argmax(axis=1) == fresh["kind"]).mean() > 0.6


@every_method
def test_only_64_bits_promise_to_be_exact(kind):
    assert kind().exact
    assert not kind(word=32).exact
    assert kind(word=32).additive


def test_no_sum_can_overflow():
    grid = FixedPoint.for_sums(20_000, 25.0, 32)
    full = np.array([20_000 * 25.0])
    assert grid.dtype == "int32"
    assert grid.decode(grid.encode(full)) == full
    assert 2**29 <= grid.encode(full)[0] <= 2**30
    half = {"gram": np.array([2**30], np.int32)}
    assert arrays.add(half, {"gram": np.array([-(2**30)], np.int32)})["gram"] == 0
    with pytest.raises(errors.UpdateError, match="the sum would overflow"):
        arrays.add(half, {"gram": np.array([2**30 + 1], np.int32)})


def test_words_are_not_mixed():
    with pytest.raises(errors.UpdateError, match="only arrays of one kind of integers"):
        arrays.add({"gram": np.zeros(3, np.int32)}, {"gram": np.zeros(3, np.int64)})
    update = fl.summarize(task_of(64), rows(50))
    forged = dataclasses.replace(update, task=file.digest(task_of(32)))
    with pytest.raises(errors.UpdateError, match="array 'gram' has dtype int64, the task says int32"):
        fl.fuse(task_of(32), [forged])


def test_ranges_too_wide_for_32_bits_are_refused():
    with pytest.raises(errors.SettingsError, match="leave -7 fraction bits of 32, 0 are needed"):
        fl.new_task("t", {"x": fl.Vector(3, -5, 5, center=0, scale=0.001)}, LABEL, method=Ridge(word=32),
                    privacy="none", max_records=5_000)  # fmt: skip


def test_a_task_with_64_bits_is_written_as_before_there_was_a_choice():
    assert all("word" not in plugin.to_json(kind())["settings"] for kind in METHODS)
    assert plugin.to_json(Ridge(word=32))["settings"]["word"] == 32
    for word in (64, 32):
        assert method.from_json(plugin.to_json(Ridge(word=word))) == Ridge(word=word)


def test_rounding_is_not_taken_for_evidence():
    """Features in which rows hardly differ: with 32 bits the smallest penalty looks best, and fits the rounding."""
    rng, mix = np.random.default_rng(0), np.random.default_rng(7)
    few, kinds = np.random.default_rng(99).integers(0, 2, (300, 14)), np.random.default_rng(5).integers(0, 5, 300)
    which = rng.integers(0, 300, 450)
    x = np.cos(few[which] @ mix.normal(size=(14, 400)) / 2 + mix.uniform(0, 6.28, 400))
    y = np.where(rng.random(450) < 0.05, rng.integers(0, 5, 450), kinds[which])
    of = Problem("multiclass", tuple("abcde"), tuple(f"x{j}" for j in range(400)), (1.0,) * 400, 1_000_000)
    largest = {}
    for word in (64, 32):
        subject = Ridge(word=word)
        sums = [subject.summarize({"x": x[k::5], "y": y[k::5]}, of, {}, rng=rng) for k in range(5)]
        model, _ = subject.fuse(sums, of, {}, rng=rng)
        largest[word] = np.abs(model["weights"]).max()
    assert largest[32] < 3 * largest[64]  # without care for it, ten times as large
