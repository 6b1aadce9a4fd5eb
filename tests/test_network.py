"""Networks by name: what they are made of, where they start, and how weights that do not fit are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusionlearn import network, training
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem

torch = pytest.importorskip("torch")


def problem(features: int, classes: int = 10) -> Problem:
    names = tuple(f"x{i}" for i in range(features))
    labels = tuple(f"c{i}" for i in range(classes))
    kind: Any = "multiclass" if classes else "regression"
    return Problem(kind, labels, names, (1.0,) * features, 1000)


SIZES = [
    ("linear", 784, 7_850),
    ("mlp", 784, 159_010),
    ("mlp:hidden=64x32", 20, 64 * 21 + 32 * 65 + 10 * 33),
    ("cnn", 784, 1_663_370),
    ("lenet5", 784, 61_706),
    ("cnn5", 3072, 357_258),
    ("resnet18", 3072, 11_173_962),
    ("resnet18:norm=batch", 3072, 11_183_562),
]


@pytest.mark.parametrize(("text", "features", "size"), SIZES)
def test_a_network_has_the_weights_its_source_counts(text: str, features: int, size: int) -> None:
    assert network.num_weights(text, problem(features)) == size


@pytest.mark.parametrize(
    ("text", "features"),
    [("linear", 12), ("mlp:hidden=8", 12), ("cnn:shape=8x8x1,width=2,hidden=4", 64), ("lenet5:shape=12x14x1", 168),
     ("cnn5:shape=8x9x3,width=2,hidden=4,norm=batch", 216), ("resnet18:shape=8x8x3,width=4,norm=batch", 192),
     ("resnet18:shape=8x8x3,width=4", 192)],
)  # fmt: skip
@pytest.mark.parametrize("classes", [3, 0])
def test_rows_go_in_and_a_score_for_each_class_comes_out(text: str, features: int, classes: int) -> None:
    posed = problem(features, classes)
    start = network.initial(text, posed)
    module = network.module_with(text, posed, start)
    rows = np.random.default_rng(0).standard_normal((5, features))
    found = training.scores(module, rows)
    assert found.shape == (5, classes or 1) and found.std() > 0
    assert set(network.state(module)) == set(start)
    for name, weights in network.state(module).items():
        np.testing.assert_array_equal(weights, start[name])


def test_images_are_read_row_by_row_with_their_channels_last() -> None:
    posed = problem(4 * 6 * 3)
    from fusionlearn import layers

    images = np.arange(2 * 72, dtype=np.float32).reshape(2, 4, 6, 3)
    seen = layers.image((4, 6, 3), posed, "test")(torch.from_numpy(images.reshape(2, 72)))
    np.testing.assert_array_equal(seen.numpy(), images.transpose(0, 3, 1, 2))


def test_the_start_is_the_same_everywhere_and_keeps_the_scale() -> None:
    posed = problem(400)
    one, two = (network.initial("mlp:hidden=300x200", posed, 7) for _ in range(2))
    other = network.initial("mlp:hidden=300x200", posed, 8)
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, two[name])
    assert (one["body.0.weight"] != other["body.0.weight"]).any()
    assert one["body.0.weight"].flat[0] == np.float32(-0.0021275815)  # written down: another value is another prior
    assert one["body.2.weight"].std() == pytest.approx((2 / 300) ** 0.5, rel=0.02)
    assert (one["body.0.bias"] == 0).all()
    batch = network.initial("cnn5:shape=8x8x3,norm=batch", problem(192))
    assert (batch["body.2.running_var"] == 1).all() and (batch["body.2.running_mean"] == 0).all()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("perceptron", "no network is called 'perceptron'"),
        ("mlp:hidden=0", "a layer has 1 to 65536 units, not 0"),
        ("mlp:depth=3", "'mlp' has no setting 'depth'; its settings are hidden"),
        ("cnn:shape=28x28", "shape is 28x28; height x width x channels is expected"),
        ("cnn:shape=20x20x1", "an image of 20x20x1 has 400 numbers, the task's rows have 784: set the shape"),
        ("resnet18:norm=layer", "setting 'norm' of 'resnet18' is 'layer'"),
    ],
)
def test_a_network_that_cannot_be_is_one_sentence(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        network.shapes(text, problem(784))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_are_not_the_networks_are_refused() -> None:
    posed = problem(6, 2)
    good = network.named(network.initial("mlp:hidden=4", posed))
    faults = {
        "lacks the weights 'head.bias'": {k: v for k, v in good.items() if k != "network.head.bias"},
        "has unknown the weights 'tail.weight'": {**good, "network.tail.weight": np.zeros(3)},
        "weights 'head.weight' are of shape (2, 5), network 'mlp:hidden=4' has (2, 4)": {
            **good, "network.head.weight": np.zeros((2, 5))
        },
        "hold NaN or infinity": {**good, "network.head.bias": np.array([0.0, np.nan])},
    }  # fmt: skip
    for told, arrays in faults.items():
        with pytest.raises(SettingsError) as caught:
            network.start("mlp:hidden=4", posed, arrays)
        assert "the task's prior" in str(caught.value) and told in str(caught.value)
    assert set(network.start("mlp:hidden=4", posed, {"filters": np.zeros(3)})) == set(
        network.initial("mlp:hidden=4", posed)
    )


def test_a_huge_network_is_sized_without_being_built() -> None:
    size = network.num_weights("mlp:hidden=65536x65536x65536", problem(65_536))
    assert size > 1e10
