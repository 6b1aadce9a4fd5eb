"""Encoders: what they emit, what they declare, what they refuse."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import encoder, testing
from fusionlearn.encoder import Chain, Features
from fusionlearn.encoders import random_features
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Category, ClassLabel, Number, Schema, Vector

LABEL = ClassLabel("ill", {"no": ["0"], "yes": ["1"]})


def encoded(schema, raw, *parts):
    chain = Chain(tuple(encoder.make(part) if isinstance(part, str) else part for part in parts))
    features = chain.features(schema)
    data = chain.encode(schema.read(raw).data, schema, {})
    return features, data["x"]


def test_table_centres_scales_and_compares_with_the_first_value():
    schema = Schema(
        {"age": Number(0, 100, center=50, scale=10), "cp": Category(("1", "2", "3")), "v": Vector(2, 0, 4)}, LABEL
    )
    features, x = encoded(schema, {"age": [50, 70], "cp": [1, 3], "v": [[0, 4], [2, 2]], "ill": [0, 1]}, "table")
    assert features == Features(("age", "cp=2", "cp=3", "v[0]", "v[1]"), (5.0, 1.0, 1.0, 1.0, 1.0))
    assert x.tolist() == [[0, 0, 0, -1, 1], [2, 0, 1, 0, 0]]


@pytest.mark.parametrize("rule", ["center", "indicator"])
def test_table_says_what_was_missing(rule):
    schema = Schema({"age": Number(0, 100), "cp": Category(("1", "2"))}, LABEL, missing=rule)
    features, x = encoded(schema, {"age": [None, 75], "cp": [2, None], "ill": [0, 1]}, "table")
    marks = ("age missing",) if rule == "indicator" else ()
    assert features.names == ("age", *marks, "cp=2", "cp missing")
    assert x.tolist() == [[0, *(1,) * len(marks), 1, 0], [0.5, *(0,) * len(marks), 0, 1]]


def test_identity_leaves_numbers_as_they_are():
    schema = Schema({"a": Number(-3, 2), "v": Vector(2, 0, 4)}, LABEL)
    features, x = encoded(schema, {"a": [-3, 2], "v": [[0, 4], [2, 2]], "ill": [0, 1]}, "identity")
    assert features == Features(("a", "v[0]", "v[1]"), (3.0, 4.0, 4.0))
    assert x.tolist() == [[-3, 0, 4], [2, 2, 2]]
    single = Schema({"v": Vector(3, 0, 1)}, LABEL)
    raw = {"v": np.ones((4, 3), np.float32), "ill": [0, 1, 0, 1]}
    assert encoded(single, raw, "identity")[1].tolist() == np.ones((4, 3)).tolist()


def test_identity_after_another_changes_nothing():
    schema = Schema({"a": Number(-3, 2)}, LABEL)
    raw = {"a": [-3, 2], "ill": [0, 1]}
    assert encoded(schema, raw, "table", "identity")[1].tolist() == encoded(schema, raw, "table")[1].tolist()


@pytest.mark.parametrize("schema", [
    Schema({"cp": Category(("1", "2"))}, LABEL),
    Schema({"a": Number(0, 1, missing="center")}, LABEL),
    Schema({"a": Number(0, 1)}, LABEL, missing="indicator"),
])  # fmt: skip
def test_identity_refuses_what_is_no_number(schema):
    with pytest.raises(SettingsError, match="use 'table'"):
        encoder.make("identity").features(schema, None)


def test_random_features_approach_the_gaussian_kernel():
    rng = np.random.default_rng(0)
    schema = Schema({"v": Vector(5, -3, 3, center=0, scale=1)}, LABEL)
    x = rng.uniform(-1, 1, (30, 5))
    raw = {"v": x, "ill": [0, 1] * 15}
    cosines = encoder.make("random_features", {"num_features": 20_000, "bandwidth": 1.5})
    _, z = encoded(schema, raw, "table", cosines)
    distance = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    assert np.abs(2 * z @ z.T / 20_000 - np.exp(-distance / (2 * 1.5**2))).max() < 0.05
    assert np.abs(z).max() <= 1


def test_random_features_are_the_same_everywhere_and_for_ever():
    directions, phases = random_features._draw(2, 3, 7)
    again = random_features._draw.__wrapped__(2, 3, 7)
    assert (directions == again[0]).all()
    # Golden numbers of version 0.1.0: another draw would change what every task with cosines means.
    assert directions.ravel()[:2] == pytest.approx(GOLDEN[:2], rel=1e-12)
    assert phases[0] == pytest.approx(GOLDEN[2], rel=1e-12)
    assert (random_features._draw(2, 3, 8)[0] != directions).all()


GOLDEN = (-0.6790906938481056, 0.3763191742336103, 0.9473323426095205)


def test_random_directions_are_normal_and_phases_uniform():
    directions, phases = random_features._draw(50, 4000, 0)
    assert directions.mean() == pytest.approx(0, abs=0.01)
    assert directions.std() == pytest.approx(1, abs=0.01)
    assert (directions**4).mean() == pytest.approx(3, abs=0.1)
    assert np.histogram(phases, 8, (0, 2 * np.pi))[0] == pytest.approx(500, rel=0.2)


def test_unscaled_columns_ahead_of_cosines_are_refused_when_the_task_is_made():
    for parts in (["identity", "random_features"], ["random_features"]):
        with pytest.raises(SettingsError, match=r"not scaled|first"):
            fl.new_task("t", {"salary": Number(0, 1e6)}, LABEL, encoder=parts, privacy="none")
    with pytest.raises(SettingsError, match="not scaled"):
        fl.new_task(
            "t", {"a": Number(0, 1e6, center=0, scale=1)}, LABEL, encoder=["table", "random_features"], privacy="none"
        )
    fl.new_task("t", {"salary": Number(0, 1e6)}, LABEL, encoder=["table", "random_features"], privacy="none")


@pytest.mark.parametrize(
    "settings", [{"num_features": 0}, {"num_features": 65_537}, {"bandwidth": 0.0}, {"bandwidth": -1.0}]
)
def test_settings_out_of_reach_are_refused(settings):
    with pytest.raises(SettingsError, match="random_features"):
        encoder.make("random_features", settings)


def test_table_comes_first_and_a_chain_is_not_empty():
    with pytest.raises(SettingsError, match="first"):
        fl.new_task("t", {"a": Number(0, 1)}, LABEL, encoder=["table", "table"], privacy="none")
    with pytest.raises(SettingsError, match="at least one encoder"):
        fl.new_task("t", {"a": Number(0, 1)}, LABEL, encoder=[], privacy="none")


def test_chains_travel_as_names_and_settings():
    chain = Chain((encoder.make("table"), encoder.make("random_features", {"num_features": 3})))
    told = encoder.chain_to_json(chain)
    assert encoder.chain_from_json(told) == chain
    assert told[1] == {
        "name": "random_features",
        "revision": 1,
        "settings": {"bandwidth": 1.0, "num_features": 3, "seed": 0},
    }
    for wrong in (
        "table",
        [{"name": "nowhere"}],
        [{}],
        [{"name": "table", "revision": 9}],
        [{"name": "table", "settings": 3}],
    ):
        with pytest.raises(SettingsError):
            encoder.chain_from_json(wrong)


def test_promises_behind_one_another():
    testing.check_encoder(encoder.make("random_features", {"num_features": 7}), after=["table"])
