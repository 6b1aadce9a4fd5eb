"""The server's verbs: one model whatever the order, and one sentence for whoever does not belong."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import rounds

from fusionlearn import errors, file, run
from fusionlearn.problem import ClassLabel
from fusionlearn.types import Model, Task, Total, Update

ROOT = Path(__file__).resolve().parents[1]
ADDITIVE = ("ridge", "gaussian")


def model_of(task: Task, *answers: Update | Total, **settings: object) -> str:
    """The digest of the fused model."""
    return file.digest(run.fuse(task, list(answers), **settings)[0])


def refused(told: str, task: Task, *answers: Update | Total, **settings: object) -> str:
    with pytest.raises(errors.FusionlearnError, match=told) as caught:
        run.fuse(task, list(answers), **settings)
    sentence = str(caught.value)
    assert sentence[-1] in ".?" and sentence.isprintable()
    return sentence


@pytest.fixture(scope="module")
def ridge() -> tuple[Task, list[Update]]:
    task = rounds.task("ridge")
    return task, rounds.updates(task, 4)


# --- one digest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", rounds.METHODS)
def test_every_order_gives_the_same_model(method: str):
    task = rounds.task(method)
    updates = rounds.updates(task, 4)
    orders = list(itertools.permutations(updates))
    reports = {file.digest(run.fuse(task, order)[1]) for order in orders}
    assert len({model_of(task, *order) for order in orders}) == 1 and len(reports) == 1
    assert model_of(task, *updates) != model_of(task, *updates[:3])


def groupings(items: list) -> list[list[list]]:
    """Every partition of the items into groups."""
    if not items:
        return [[]]
    first, *others = items
    found = []
    for parts in groupings(others):
        found.append([[first], *parts])
        found += [[*parts[:i], [first, *parts[i]], *parts[i + 1 :]] for i in range(len(parts))]
    return found


@pytest.mark.parametrize("method", ADDITIVE)
def test_every_grouping_into_totals_gives_the_same_model(method: str):
    task = rounds.task(method)
    updates = rounds.updates(task, 4)
    whole = model_of(task, *updates)
    assert len(groupings(updates)) == 15
    totals = set()
    for groups in groupings(updates):
        parts = [file.sign(run.add(task, *group), rounds.key(0)) for group in groups]
        assert model_of(task, *parts) == whole
        mixed = [part if len(group) > 1 else group[0] for part, group in zip(parts, groups, strict=True)]
        assert model_of(task, *reversed(mixed)) == whole
        totals.add(file.digest(run.add(task, *parts)))
    assert len(totals) == 1, "totals of totals are one total"


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_tree_of_sums_and_differences_gives_the_same_total(ridge: tuple[Task, list[Update]], data: st.DataObject):
    task, updates = ridge
    left = data.draw(st.permutations(updates))
    total = run.add(task, left[0])
    for update in left[1:]:
        total = run.add(task, *data.draw(st.permutations([total, update])))
    gone = data.draw(st.lists(st.sampled_from(updates), unique_by=file.digest, max_size=3))
    for update in gone:
        total = run.subtract(task, total, update)
    rest = [update for update in updates if file.digest(update) not in {file.digest(other) for other in gone}]
    assert file.digest(total) == file.digest(run.add(task, *rest))


PROGRAM = """
import json, sys
import numpy as np, threadpoolctl
from fusionlearn import file, run
from tests import rounds
digests = {}
for method in sys.argv[1].split(","):
    # random features of 3,000 rows: products large enough for BLAS to share out among its threads
    task = rounds.task(method, encoder=["table", "random_features"] if method != "forest" else "table")
    answers = [file.sign(run.summarize(task, rounds.records(i, 3000)), rounds.key(i)) for i in (3, 1, 2)]
    answers = [file.from_bytes(file.to_bytes(answer)) for answer in answers]
    digests[method] = [*map(file.digest, answers), file.digest(run.fuse(task, answers)[0])]
threads = {lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"}
print(json.dumps({"threads": sorted(threads), "digests": digests}))
"""


def in_a_new_process(threads: int, methods: str) -> dict:
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONHASHSEED": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, methods], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_a_restart_and_the_number_of_blas_threads_change_nothing():
    """Three processes, the third with two threads: the same updates and models to the last bit."""
    methods = ",".join(rounds.METHODS)
    first, again, two = in_a_new_process(1, methods), in_a_new_process(1, methods), in_a_new_process(2, methods)
    assert first["threads"] == [1] and two["threads"] in ([2], [1, 2] if os.cpu_count() != 1 else [1])
    assert first["digests"] == again["digests"] == two["digests"]


# --- taking out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ADDITIVE)
@pytest.mark.parametrize("gone", range(4))
def test_a_client_taken_out_was_never_there(method: str, gone: int):
    task = rounds.task(method)
    updates = rounds.updates(task, 4)
    rest = [update for i, update in enumerate(updates) if i != gone]
    never = model_of(task, *rest)
    total = run.subtract(task, run.add(task, *updates), updates[gone])
    assert file.digest(total) == file.digest(run.add(task, *rest))
    assert model_of(task, total) == never
    assert model_of(task, *updates, without=[file.digest(updates[gone])]) == never
    assert model_of(task, *updates, without=[updates[gone].signer[:8]]) == never
    pair = run.add(task, updates[gone], rest[0])
    assert file.digest(run.subtract(task, run.add(task, *updates), pair)) == file.digest(run.add(task, *rest[1:]))


@pytest.mark.parametrize("method", rounds.METHODS)
def test_leaving_out_names_whom(method: str):
    task = rounds.task(method)
    updates = rounds.updates(task, 3)
    model, report = run.fuse(task, updates, without=[updates[0].signer])
    assert file.digest(model) == model_of(task, *updates[1:])
    assert report.findings["left_out"] == [file.digest(updates[0])]
    assert [name for name, _ in report.members] == sorted(map(file.digest, updates[1:]))
    refused("no update or signer begins with 00000000", task, *updates, without=["00000000"])
    refused("first 8 hex digits", task, *updates, without=["abc"])
    refused("first 8 hex digits", task, *updates, without=["site one"])
    refused(r"nothing|no update to fuse \(all were left out\)", task, updates[0], without=[updates[0].signer])
    shown = " ".join(updates[0].signer[i : i + 4] for i in range(0, 16, 4)).upper()
    assert model_of(task, *updates, without=[shown + "…"]) == file.digest(model)


def test_leaving_out_of_a_total_is_told_how(ridge):
    task, updates = ridge
    total = run.add(task, *updates[:2])
    refused("fusionlearn subtract", task, total, updates[2], without=[updates[0].signer])
    assert model_of(task, total, *updates[2:], without=[updates[2].signer]) == model_of(task, *updates[:2], updates[3])


def test_only_members_can_be_subtracted(ridge):
    task, updates = ridge
    total = run.add(task, *updates[:2])
    for answers, told in (
        ([updates[2]], "is not in total"),
        ([updates[0], updates[0]], "is not in total"),
        ([run.add(task, updates[0], updates[2])], "is not in total"),
        (updates[:2], "nothing would be left"),
        ([total], "nothing would be left"),
    ):
        with pytest.raises(errors.UpdateError, match=told):
            run.subtract(task, total, *answers)
    with pytest.raises(errors.UpdateError, match="belongs to another task"):
        run.subtract(rounds.task(max_records=77), total, updates[0])
    liar = dataclasses.replace(total, members=(*total.members[:1],))
    with pytest.raises(errors.UpdateError, match="is not in total"):
        run.subtract(task, liar, *updates[:2])


def test_a_member_is_added_once(ridge):
    task, updates = ridge
    total = run.add(task, *updates[:2])
    for answers in ((total, updates[0]), (updates[0], total), (total, run.add(task, *updates[1:3]))):
        with pytest.raises(errors.UpdateError, match="counted already"):
            run.add(task, *answers)
        refused("counted already", task, *answers)
    with pytest.raises(errors.UpdateError, match="given twice"):
        run.add(task, updates[0], updates[0])
    with pytest.raises(errors.UpdateError, match="no update to add"):
        run.add(task)


@pytest.mark.parametrize("method", ["ensemble", "forest"])
def test_methods_that_need_every_update_make_no_totals(method: str):
    task = rounds.task(method)
    updates = rounds.updates(task, 2)
    with pytest.raises(errors.UpdateError, match="cannot be added: fuse the updates themselves"):
        run.add(task, *updates)
    members = tuple(sorted((file.digest(update), update.signer) for update in updates))
    refused("needs every update separately", task, Total(file.digest(task), updates[0].arrays, members))


# --- who does not belong --------------------------------------------------------------------------------------------


def test_an_update_of_another_task(ridge):
    task, updates = ridge
    other = rounds.task(max_records=999)
    sentence = refused("not this one", task, updates[0], rounds.update(other, 2))
    assert file.digest(other)[:12] in sentence and file.digest(task)[:12] in sentence
    other_key = file.sign(task, rounds.key(9))
    refused("answers task", task, rounds.update(other_key, 1))


def test_the_same_bytes_count_once_and_others_are_refused(ridge):
    task, updates = ridge
    model, report = run.fuse(task, [*updates, updates[2], updates[0]])
    assert file.digest(model) == model_of(task, *updates) and report.findings["repeated"] == 2
    second = rounds.update(task, 1, rows=41)
    sentence = refused("second answer of", task, *updates, second)
    assert f"--replaces {file.digest(updates[0])}" in sentence and "--accept-replacement" in sentence
    refused("second answer of", task, run.add(task, *updates), second)


def test_a_replacement_is_the_way_to_correct(ridge):
    task, updates = ridge
    old = file.digest(updates[0])
    new = rounds.update(task, 1, rows=41, replaces=old)
    wanted = model_of(task, rounds.update(task, 1, rows=41), *updates[1:])
    refused("accept that with --accept-replacement", task, new, *updates[1:])
    for order in itertools.permutations([new, *updates]):
        assert model_of(task, *order, accept_replacements=True) == wanted
    assert model_of(task, new, *updates[1:], accept_replacements=True) == wanted, "the old one need not be there"
    last = rounds.update(task, 1, rows=42, replaces=file.digest(new))
    assert model_of(task, *updates, new, last, accept_replacements=True) == model_of(
        task, rounds.update(task, 1, rows=42), *updates[1:]
    )
    _, report = run.fuse(task, [*updates, new], accept_replacements=True)
    assert any(old[:12] in notice and "was replaced" in notice for notice in report.findings["notices"])
    assert file.digest(run.add(task, *updates, new, accept_replacements=True)) == file.digest(
        run.add(task, new, *updates[1:], accept_replacements=True)
    )


def test_nobody_replaces_another_s_update(ridge):
    task, updates = ridge
    theirs = rounds.update(task, 5, replaces=file.digest(updates[0]))
    refused("replaces one's own only", task, theirs, *updates, accept_replacements=True)
    own = rounds.update(task, 1, rows=41, replaces=file.digest(updates[0]))
    refused("both say that they replace", task, own, theirs, *updates, accept_replacements=True)
    assert model_of(task, own, theirs, *updates, accept_replacements=True, without=[theirs.signer]) == model_of(
        task, own, *updates[1:], accept_replacements=True
    )
    nobodys = rounds.update(task, 1, signed=False, replaces=file.digest(updates[0]))
    refused("not signed, so nobody knows|another signer", task, nobodys, accept_replacements=True)
    refused("which was replaced", task, own, run.add(task, *updates), accept_replacements=True)
    with pytest.raises(errors.UpdateError, match="give a list, not a generator"):
        run.fuse(task, iter([own, *updates]), accept_replacements=True)


def test_wrong_unknown_and_missing_signatures(ridge):
    task, updates = ridge
    forged = dataclasses.replace(updates[0], signer=rounds.public(7))
    with pytest.raises(errors.SignatureError, match="signature is wrong"):
        run.fuse(task, [forged, *updates[1:]])
    altered = dataclasses.replace(updates[0], arrays=updates[1].arrays)
    with pytest.raises(errors.SignatureError, match="signature is wrong"):
        run.fuse(task, [altered])
    unsigned = rounds.update(task, 1, signed=False)
    assert model_of(task, unsigned, *updates[1:]) == model_of(task, *updates)
    refused("is not signed", task, unsigned, *updates[1:], allow_unsigned=False)


def test_only_enrolled_clients_answer():
    task = rounds.task(clients=(rounds.public(1), rounds.public(2)))
    one, two, three = rounds.updates(task, 3)
    assert model_of(task, one, two)
    sentence = refused("a key that the task does not list", task, one, three)
    assert " ".join(three.signer[i : i + 4] for i in range(0, 16, 4)) in sentence
    refused("is by nobody", task, rounds.update(task, 1, signed=False))
    total = file.sign(run.add(task, one, two), rounds.key(0))
    assert model_of(task, total) == model_of(task, one, two)
    refused("does not list", task, file.sign(run.add(task, one, two), rounds.key(3)))
    smuggled = dataclasses.replace(total, members=tuple(sorted([*total.members, (file.digest(three), three.signer)])))
    refused("does not list", task, file.sign(smuggled, rounds.key(0)))


@pytest.mark.parametrize("method", rounds.METHODS)
def test_arrays_that_do_not_fit_are_refused(method: str):
    task = rounds.task(method)
    good = rounds.update(task, 1, signed=False)
    for name, array in good.arrays.items():
        without = {key: value for key, value in good.arrays.items() if key != name}
        refused(f"lacks {name}", task, dataclasses.replace(good, arrays=without))
        other = "float32" if array.dtype != np.float32 else "float64"
        refused("has dtype", task, dataclasses.replace(good, arrays={**good.arrays, name: array.astype(other)}))
        stacked = np.stack([array, array])
        refused("the task says", task, dataclasses.replace(good, arrays={**good.arrays, name: stacked}))
    refused("has unknown extra", task, dataclasses.replace(good, arrays={**good.arrays, "extra": np.zeros(1)}))


def test_an_update_larger_than_the_task_allows():
    task = rounds.task("ridge")
    small = rounds.task("ridge", max_bytes=task.max_bytes - 256 * 1024)
    big = dataclasses.replace(rounds.update(small, 1, signed=False), extras={"note": "x" * 10_000})
    refused("bytes, the task allows", small, big)


def test_more_records_than_the_task_allows():
    task = rounds.task("ridge", max_records=100)
    updates = rounds.updates(task, 3)
    refused("hold more than the 100 records .* larger max_records", task, *updates)
    with pytest.raises(errors.UpdateError, match="hold more than the 100 records"):
        run.add(task, *updates)
    assert model_of(task, *updates[:2])
    with pytest.raises(errors.DataError, match="has 101 rows, the task allows 100"):
        rounds.update(task, 1, rows=101)


# --- lean clients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", rounds.METHODS)
@pytest.mark.parametrize(("rows", "classes"), [(40, "0"), (1, "1"), (3, "012"), (2, "1")])
def test_lean_clients_are_accepted(method: str, rows: int, classes: str):
    """One class, one row, fewer rows than columns."""
    task = rounds.task(method)
    lean = rounds.update(task, 9, rows=rows, classes=classes)
    model, report = run.fuse(task, [*rounds.updates(task, 2), lean])
    assert (file.digest(lean), lean.signer) in report.members
    found = run.predict(model, rounds.records(5))["probability"]
    assert found.shape == (40, 2) and np.allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("method", rounds.METHODS)
def test_a_total_of_one_class_is_refused(method: str):
    task = rounds.task(method)
    refused("class", task, *[rounds.update(task, i, classes="0") for i in (1, 2)])


@pytest.mark.parametrize("method", ADDITIVE)
def test_a_class_nobody_has_is_told(method: str):
    label = ClassLabel("ill", (("no", ("0",)), ("yes", ("1", "2")), ("never", ("9",))))
    task = run.new_task("wards", rounds.COLUMNS, label, method=method, privacy="none")
    updates = [run.summarize(task, rounds.records(i)) for i in (1, 2)]
    model, report = run.fuse(task, updates)
    assert report.findings["absent_classes"] == ["never"]
    assert "never" not in run.predict(model, rounds.records(3))["label"]


def test_nothing_to_fuse(ridge):
    refused("give at least one", ridge[0])


def test_models_say_what_they_came_from(ridge):
    task, updates = ridge
    model, report = run.fuse(task, updates)
    assert isinstance(model, Model) and model.task == report.task == file.digest(task)
    assert report.model == file.digest(model)
    assert set(report.members) == {(file.digest(update), update.signer) for update in updates}
    assert (model.schema, model.encoder, model.method) == (task.schema, task.encoder, task.method)
