"""Export: an ONNX graph from raw columns answers what predict answers, to 1e-5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import fusionlearn as fl
from fusionlearn import cli, encoder, network
from fusionlearn.errors import MissingExtra, SettingsError
from fusionlearn.export import columns_for, to_onnx
from fusionlearn.methods.average import Average
from fusionlearn.methods.distill import Distill
from fusionlearn.methods.distill_head import DistillHead
from fusionlearn.methods.ridge import Ridge
from fusionlearn.methods.synthesize import Synthesize

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

COLUMNS = {
    "age": fl.Number(20.0, 90.0, unit="years"),
    "dose": fl.Number(0.0, 5.0, center=1.0, scale=2.0),
    "ward": fl.Category(("north", "south", "west")),
    "trace": fl.Vector(3, -1.0, 1.0),
}
CLASSES = fl.ClassLabel("ill", {"no": ["0"], "yes": ["1"], "perhaps": ["2"]})
NUMBER = fl.NumberLabel("days", 0.0, 30.0, unit="d")


def rows(seed: int, count: int = 80) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 90, count)
    return {
        "age": age,
        "dose": rng.uniform(0, 5, count),
        "ward": np.array(["north", "south", "west"])[rng.integers(0, 3, count)],
        "trace": rng.uniform(-1, 1, (count, 3)),
        "ill": (age > 50).astype(int) + (age > 70),
        "days": np.clip(age / 4 + rng.standard_normal(count), 0, 30),
    }


def exported(model: fl.Model, raw: dict[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    taken = columns_for(model, raw)
    (found,) = session.run(None, {given.name: taken[given.name] for given in session.get_inputs()})
    return found


def agree(model: fl.Model, raw: dict[str, Any]) -> None:
    told = fl.predict(model, raw)
    wanted = told["probability"] if "probability" in told else told["value"]
    found = exported(model, raw)
    assert found.shape == wanted.shape and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert (
        len(wanted) == 1 or wanted.std(axis=0).max() > 1e-4
    )  # a model that always says the same would agree too easily


def model_of(method: Any, label: Any = CLASSES, columns: Any = None, raw: Any = None, **more: Any) -> fl.Model:
    task = fl.new_task(
        "t", columns or COLUMNS, label, method=method, privacy=fl.Privacy("none", "allow"), max_records=1000, **more
    )
    return fl.fuse(task, [fl.summarize(task, part) for part in (raw or [rows(0), rows(1)])])[0]


@pytest.mark.parametrize("label", [CLASSES, NUMBER], ids=["classes", "number"])
@pytest.mark.parametrize(
    "method",
    [
        Ridge(),
        DistillHead(mix=0.0),
        Average(network="mlp:hidden=8", epochs=3),
        Synthesize(student="ridge"),
        Synthesize(student="mlp:hidden=8", samples=300),
    ],
    ids=str,
)
def test_the_graph_answers_as_the_model(method: Any, label: Any) -> None:
    if isinstance(method, Average):
        pytest.importorskip("torch")
    agree(model_of(method, label), rows(2))
    agree(model_of(method, label), rows(2, 1))


def test_a_head_of_log_odds_answers_by_a_softmax() -> None:
    agree(model_of(Synthesize(student="logistic")), rows(2))


@pytest.mark.parametrize("missing", ["indicator", "center"])
def test_missing_values_go_the_same_way(missing: Any) -> None:
    raw = [rows(0), rows(1)]
    for part in raw:
        part["dose"] = np.where(np.arange(80) % 7 == 0, np.nan, part["dose"])
        part["ward"] = np.where(np.arange(80) % 5 == 0, "", part["ward"])
    columns = {name: column for name, column in COLUMNS.items() if name != "trace"}
    model = model_of(Ridge(), columns=columns, raw=raw, missing=missing)
    agree(model, raw[0])


def test_values_out_of_range_are_clipped() -> None:
    model = model_of(Ridge(), out_of_range="clip")
    raw = rows(2)
    raw["age"] = raw["age"] * 3
    agree(model, raw)


def test_random_features_and_identity_are_in_the_graph() -> None:
    agree(model_of(Ridge(), encoder=["table", encoder.make("random_features", {"num_features": 32})]), rows(2))
    columns = {name: COLUMNS[name] for name in ("dose", "trace")}
    agree(model_of(Ridge(), columns=columns, encoder="identity"), rows(2))


NETWORKS = [
    "linear", "cnn:shape=8x8x1,width=3,hidden=5", "lenet5:shape=12x12x1", "cnn5:shape=8x8x1,width=2,hidden=4",
    "cnn5:shape=8x8x2,width=2,hidden=4,norm=batch", "resnet18:shape=16x16x1,width=4",
    "resnet18:shape=8x8x3,width=4,norm=batch",
]  # fmt: skip


@pytest.mark.parametrize("text", NETWORKS)
def test_every_network_has_a_graph(text: str) -> None:
    pytest.importorskip("torch")
    shape = getattr(network.parse(text), "shape", (8, 8, 1))
    size = int(np.prod(shape))
    rng = np.random.default_rng(0)
    raw = [{"pixels": rng.random((30, size)), "ill": np.arange(30) % 3} for _ in range(2)]
    method = Average(network=text) if text == "linear" else Distill(student=text, epochs=4, batch_size=8)
    task = fl.new_task(
        "t", {"pixels": fl.Vector(size, 0.0, 1.0)}, CLASSES, method=method, privacy=fl.Privacy("none", "allow")
    )
    local = {} if text == "linear" else {"teacher": "linear:epochs=1"}
    model = fl.fuse(task, [fl.summarize(task, part, local=local) for part in raw])[0]
    agree(model, raw[0])


def test_the_graph_says_which_model_it_is() -> None:
    model = model_of(Ridge())
    made = onnx.load_from_string(to_onnx(model))
    told = {entry.key: entry.value for entry in made.metadata_props}
    assert told["digest"] == fl.digest(model) and json.loads(told["labels"]) == ["no", "yes", "perhaps"]
    assert json.loads(told["categories"]) == {"ward": ["north", "south", "west"]}
    assert to_onnx(model) == to_onnx(model)


def test_what_has_no_graph_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="method 'gaussian' has no graph: models of ridge, distill_head"):
        to_onnx(model_of("gaussian"))
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r'export needs onnx: pip install "fusionlearn\[onnx\]"'):
        to_onnx(model_of(Ridge()))


def test_the_command_writes_the_graph(tmp_path: Path) -> None:
    model = model_of(Ridge())
    fl.write(tmp_path / "model.fusion", model)
    given = ["export", str(tmp_path / "model.fusion"), "--to", "onnx", "-o", str(tmp_path / "m.onnx"), "--json"]
    done = CliRunner().invoke(cli.main, [*given, "--allow-unsigned"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert (tmp_path / "m.onnx").read_bytes() == to_onnx(model)
    refused = CliRunner().invoke(cli.main, given)
    assert refused.exit_code == 1 and "is not signed" in refused.output
