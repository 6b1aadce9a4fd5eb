"""The `patches` encoder: the same function of one image everywhere, exact for any split, and what it refuses."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import encoder, errors, file
from fusionlearn.encoders.patches import BOUND, FILTERS, OFFSET, Patches

SHAPE = (12, 12, 1)
SMALL = {"shape": SHAPE, "filters": 6, "sizes": (4,)}
FOUR, SHIFT = FILTERS.format(4), OFFSET.format(4)
CLASSES = fl.ClassLabel("kind", {"across": ["0"], "down": ["1"]})


def stripes(count, seed=0):
    """Noisy stripes across or down, uint8 images (n, 12, 12, 1), and which they are."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, count)
    wave = np.sin(np.arange(12) * 1.5 + rng.uniform(0, 6, (count, 1)))
    across = np.repeat(wave[:, :, None], 12, axis=2)
    pictures = np.where(kind[:, None, None] == 0, across, across.transpose(0, 2, 1))
    noisy = 128 + 60 * pictures + rng.normal(0, 20, pictures.shape)
    return {"image": np.clip(noisy, 0, 255).astype(np.uint8)[..., None], "kind": kind}


def task_of(**settings):
    return fl.new_task(
        "stripes", {"image": fl.Vector(144, 0, 255)}, CLASSES, privacy="none", max_records=1000,
        encoder=encoder.make("patches", SMALL), **settings,
    )  # fmt: skip


def encode(task, data, prior=None):
    table = task.schema.read(data)
    return task.encoder.encode(table.data, task.schema, prior or {})["x"]


def part(data, rows):
    return {name: cells[rows] for name, cells in data.items()}


def test_a_head_on_patches_tells_stripes_apart_whatever_the_split():
    task, data, fresh = task_of(), stripes(300), stripes(200, seed=1)
    by_class = [part(data, data["kind"] == kind) for kind in (0, 1)]
    one_each = [part(data, slice(i, i + 1)) for i in range(5)]
    models = [
        fl.fuse(task, [fl.summarize(task, client) for client in clients])[0]
        for clients in ([data], by_class, [part(data, slice(5, None)), *one_each])
    ]
    for model in models[1:]:
        np.testing.assert_allclose(model.arrays["weights"], models[0].arrays["weights"], rtol=1e-9, atol=1e-12)
    answers = fl.predict(models[0], {"image": fresh["image"]})["probability"].argmax(axis=1)
    assert (answers == fresh["kind"]).mean() > 0.95


def test_an_image_has_the_same_features_in_any_company():
    task, data = task_of(), stripes(40)
    together = encode(task, data)
    alone = np.concatenate([encode(task, part(data, slice(i, i + 1))) for i in range(40)])
    assert together.dtype == np.float32
    assert np.array_equal(together, alone)
    assert np.abs(together).max() <= np.sqrt(BOUND)
    assert together.std(axis=0).min() > 0


def test_features_follow_their_definition():
    data = stripes(3)
    patches = Patches(**SMALL, mirror=False, threshold=0.25)
    task = fl.new_task("one", {"image": fl.Vector(144, 0, 255)}, CLASSES, privacy="none", encoder=patches)
    filters, offset = patches._learned({}, 4, 6)
    expected = []
    for picture in data["image"][..., 0] / 255.0:
        responses = np.zeros((9, 9, 6))
        for i, j in np.ndindex(9, 9):
            seen = picture[i : i + 4, j : j + 4].ravel()
            responses[i, j] = (seen - seen.mean()) / (seen.std() + 0.01) @ filters - offset
        cells = [responses[a, b] for a in (slice(0, 5), slice(5, 9)) for b in (slice(0, 5), slice(5, 9))]
        features = [np.maximum(sign * cell - 0.25, 0).mean(axis=(0, 1)) for sign in (1, -1) for cell in cells]
        expected.append(np.sqrt(np.concatenate(features)))
    np.testing.assert_allclose(encode(task, data), expected, atol=1e-3)


def test_an_image_and_its_mirror_image_are_one():
    task, data = task_of(), stripes(10)
    mirrored = data | {"image": data["image"][:, :, ::-1]}
    np.testing.assert_allclose(encode(task, data), encode(task, mirrored), atol=1e-6)


def test_filters_may_be_learned_from_public_images_and_travel_in_the_prior():
    task, public = task_of(), stripes(50, seed=2)
    table = task.schema.read({"image": public["image"]}, with_label=False)
    prior = task.encoder.encoders[0].pretrain(table.data, task.schema, rng=np.random.default_rng(0))
    assert {name: array.shape for name, array in prior.items()} == {FOUR: (16, 6), SHIFT: (6,)}
    told = task_of(prior=prior)
    received = file.from_bytes(file.to_bytes(told))
    assert np.array_equal(encode(received, public, received.prior), encode(told, public, prior))
    assert not np.allclose(encode(task, public, prior), encode(task, public))


def test_synthetic_filters_depend_on_the_seed_alone():
    first, again, other = (Patches(**SMALL, seed=seed)._learned({}, 4, 6)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.isfinite(first).all()


@pytest.mark.parametrize(
    ("settings", "columns", "told"),
    [
        ({"shape": (12, 12, 3)}, {"image": fl.Vector(144, 0, 255)}, "12x12x3 hold 432 numbers, column .image. holds"),
        ({"shape": (12, 12)}, {"image": fl.Vector(144, 0, 255)}, "shape is 12x12; it is height x width x channels"),
        ({}, {"image": fl.Vector(144, 0, 255), "age": fl.Number(0, 9)}, "needs a table of one vector column"),
        ({"sizes": (13,)}, {"image": fl.Vector(144, 0, 255)}, "no more than an image's side"),
        ({"grid": 10}, {"image": fl.Vector(144, 0, 255)}, "there are not so many places"),
        ({"sizes": (4, 4)}, {"image": fl.Vector(144, 0, 255)}, "each once, at least one"),
        ({"filters": 0}, {"image": fl.Vector(144, 0, 255)}, "filters is 0"),
        ({"threshold": 10.0}, {"image": fl.Vector(144, 0, 255)}, "threshold is 10"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(settings, columns, told):
    with pytest.raises(errors.SettingsError, match=told):
        fl.new_task("t", columns, CLASSES, privacy="none", encoder=encoder.make("patches", SMALL | settings))


def test_patches_come_first():
    with pytest.raises(errors.SettingsError, match="it can only come first"):
        fl.new_task(
            "t", {"image": fl.Vector(144, 0, 255)}, CLASSES, privacy="none",
            encoder=["identity", encoder.make("patches", SMALL)],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((3, 12, 12, 1), np.uint8), "every image is blank"),
        (np.tile(stripes(1)["image"], (3, 1, 1, 1)), "all 3 images are the same"),
        (np.zeros((3, 13, 13, 1), np.uint8), r"rows of shape \(13, 13, 1\), the task says \(144,\)"),
    ],
)
def test_what_is_no_collection_of_images(image, told):
    with pytest.raises(errors.DataError, match=told):
        fl.summarize(task_of(), {"image": image, "kind": [0, 1, 1]})


def test_one_image_and_one_class_are_accepted():
    task = task_of()
    lone = fl.summarize(task, part(stripes(9), slice(0, 1)))
    assert lone.arrays["count"] == 1
    blank = np.zeros((2, 12, 12, 1), np.uint8)
    model, _ = fl.fuse(task, [lone, fl.summarize(task, stripes(30))])
    assert np.isfinite(fl.predict(model, {"image": blank})["probability"]).all()


@pytest.mark.parametrize("fault", ["missing", "shape", "dtype"])
def test_a_prior_that_does_not_fit(fault):
    prior = {FOUR: np.zeros((16, 6), np.float32), SHIFT: np.zeros(6, np.float32)}
    if fault == "missing":
        del prior[SHIFT]
    elif fault == "shape":
        prior[SHIFT] = np.zeros(7, np.float32)
    else:
        prior[SHIFT] = np.zeros(6)
    with pytest.raises(errors.SettingsError, match=r"prior array 'patches\.offset\.4'"):
        encode(task_of(), stripes(2), prior)


def test_public_images_that_are_blank():
    patches = Patches(shape=(8, 8, 1), filters=6, sizes=(4,), grid=1)
    schema = fl.Schema({"image": fl.Vector(64, 0, 255)}, CLASSES)
    with pytest.raises(errors.SettingsError, match="no filters can be learned"):
        patches.pretrain({"image": np.full((5, 64), 7.0)}, schema, rng=np.random.default_rng(0))


def test_several_sizes_share_the_filters_and_stand_side_by_side():
    data = stripes(5)
    both = Patches(shape=SHAPE, filters=7, sizes=(3, 5))
    task = fl.new_task("t", {"image": fl.Vector(144, 0, 255)}, CLASSES, privacy="none", encoder=both)
    x = encode(task, data)
    assert both._counts() == [(3, 4), (5, 3)]
    assert x.shape == (5, 56)
    alone = {"shape": SHAPE, "filters": 4, "sizes": (3,)}
    task = fl.new_task("t", {"image": fl.Vector(144, 0, 255)}, CLASSES, privacy="none", encoder=Patches(**alone))
    assert np.array_equal(x[:, :32], encode(task, data))
