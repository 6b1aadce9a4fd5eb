"""The nouns: frozen, and refused when they are made wrong rather than when they are used."""

import dataclasses

import numpy as np
import pytest
from tests import rounds

from fusionlearn import errors, file, run, types
from fusionlearn.problem import Category, ClassLabel, Number, Vector
from fusionlearn.types import Member, Privacy, Task, Total, Update

HEX, HIGHER = "0" * 63 + "a", "0" * 63 + "b"


def refused(told: str, **changes: object) -> None:
    with pytest.raises(errors.SettingsError, match=told):
        dataclasses.replace(rounds.task(signed=False), **changes)


def with_columns(**columns: object) -> dict:
    schema = rounds.task().schema
    return {"schema": dataclasses.replace(schema, columns=columns)}


@pytest.mark.parametrize("kind", file.KINDS.values())
def test_nouns_are_frozen(kind: type):
    assert dataclasses.is_dataclass(kind)
    noun = next(noun for noun in rounds.round_of("ridge").values() if isinstance(noun, kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        noun.signer = "x"


def test_a_task_needs_a_name_to_be_known_by():
    told = "a name of 1 to 200 printable characters"
    for name in ("", "  ", "n" * 201, "a\nb", "\x1b[2J"):
        refused(told, name=name)
    for name in ("n" * 200, "Krebs, Süd"):
        assert dataclasses.replace(rounds.task(signed=False), name=name).name == name


def test_the_bounds_of_records_and_bytes():
    task = rounds.task(signed=False)
    for count in (0, -1, 2**40 + 1):
        refused("it may be 1 to 2\\^40", max_records=count)
    assert dataclasses.replace(task, max_records=1).problem.max_records == 1
    d, c = 4, 2
    declared = 8 * ((d + 1) * (d + 2) // 2 + (d + 1) * c + c + 1)
    assert task.problem.num_features == d and task.max_bytes == declared + 256 * 1024
    assert dataclasses.replace(task, max_bytes=declared).max_bytes == declared
    most = 2**34 + 256 * 1024
    assert dataclasses.replace(task, max_bytes=most).max_bytes == most
    for size in (declared - 1, -1, 1, most + 1):
        refused(f"max_bytes is {size}, .* {declared} ", max_bytes=size)


def test_who_may_answer():
    refused("at least one public key", clients=())
    refused("at least one public key", clients=("me",))
    refused("at least one public key", clients=(rounds.public(1), "x"))
    assert dataclasses.replace(rounds.task(signed=False), clients=(rounds.public(1),))


def test_every_task_states_its_privacy():
    with pytest.raises(TypeError, match="privacy"):
        run.new_task("wards", rounds.COLUMNS, rounds.CLASSES)
    for mode in ("local", "two_servers"):
        with pytest.raises(errors.PrivacyError, match="not available yet"):
            Privacy(mode)
    with pytest.raises(errors.SettingsError, match="is not known; it may be none, local, two_servers"):
        Privacy("total")
    with pytest.raises(errors.SettingsError, match="it may be refuse or allow"):
        Privacy("none", "hide")
    assert Privacy("none").small_cells == "refuse" and types.SMALL_CELL == 25


def test_tables_too_wide_are_refused_before_a_name_is_made_for_each_column():
    refused("65536 are the most", **with_columns(v=Vector(2**16 + 1, 0, 1)))
    refused("65536 are the most", **with_columns(v=Vector(2**15, 0, 1), w=Vector(2**15 + 1, 0, 1)))
    refused("an update of 'ridge' with 65536 features takes", **with_columns(v=Vector(2**16, 0, 1)))
    assert (
        dataclasses.replace(rounds.task(signed=False), **with_columns(v=Vector(100, 0, 1))).problem.num_features == 100
    )


def test_ranges_too_wide_to_compute_with():
    for column in (Number(0, 1, scale=1e-101), Number(0, 1, scale=1e-300), Number(-1e300, 1e300, scale=1.0)):
        refused("fraction bits|are the most|too wide", **with_columns(a=column))


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x00", "\u202eabc", "a\u2028b", "\x9b", "\ud800", "x" * 201])
def test_texts_that_are_no_names(text: str):
    told = "control characters"
    refused(told, **with_columns(**{text: Number(0, 1)}))
    refused(told, **with_columns(a=Number(0, 1, unit=text)))
    schema = rounds.task().schema
    refused(told, schema=dataclasses.replace(schema, label=ClassLabel(text, rounds.CLASSES.classes)))
    groups = ((text, ("0",)), ("yes", ("1",)))
    refused(told, schema=dataclasses.replace(schema, label=ClassLabel("ill", groups)))
    if len(text) < 200:
        refused(told, **with_columns(a=Category((text, "b"))))
        values = (("no", (text,)), ("yes", ("1",)))
        refused(told, schema=dataclasses.replace(schema, label=ClassLabel("ill", values)))


def test_a_name_of_200_letters_is_one():
    assert dataclasses.replace(rounds.task(signed=False), **with_columns(**{"x" * 200: Number(0, 1)}))


@pytest.mark.parametrize(
    "members",
    [
        (),
        ((HIGHER, ""), (HEX, "")),
        ((HEX, ""), (HEX, "")),
        ((HEX, rounds.public(1)), (HIGHER, rounds.public(1))),
    ],
)
def test_members_are_sorted_and_count_once(members: tuple[Member, ...]):
    with pytest.raises(errors.SettingsError, match="in rising order, at least one, no signer twice"):
        Total(HEX, {}, members)
    report = rounds.round_of("ridge")["report"]
    with pytest.raises(errors.SettingsError, match="rising order"):
        dataclasses.replace(report, members=members)


def test_unsigned_members_may_be_many():
    assert Total(HEX, {}, ((HEX, ""), (HIGHER, ""))).members


def test_digests_within_an_update():
    arrays = {"a": np.zeros(1)}
    for wrong in ("abc", "A" * 64, "g" * 64):
        with pytest.raises(errors.SettingsError, match="by its whole digest"):
            Update(HEX, arrays, replaces=wrong)
        with pytest.raises(errors.SettingsError, match="nonce of an update is 64 hex digits"):
            Update(HEX, arrays, nonce=wrong)
    assert Update(HEX, arrays, replaces=HEX, nonce=HIGHER)


def test_the_problem_is_derived_and_travels_once():
    """No file says twice what schema and encoder say already, so the two cannot part."""
    task = rounds.task()
    header = file.describe(task)["header"]
    assert not {"problem", "features", "labels", "bounds"} & set(header)
    back: Task = file.from_bytes(file.to_bytes(task))
    assert back.problem == task.problem and back.features == task.features
    model = rounds.round_of("ridge")["model"]
    assert model.problem == rounds.round_of("ridge")["task"].problem
    assert "problem" not in file.describe(model)["header"]


def test_seventeen_encoders_are_too_many():
    task = rounds.task(signed=False)
    part = task.encoder.encoders[0]
    refused("17 encoders; 16 are the most", encoder=dataclasses.replace(task.encoder, encoders=(part,) * 17))
