"""A model as an ONNX graph, for programs that have no Python: raw columns in, predictions out.

Inputs, one a column, under the column's name: a number (n,) float64, NaN where missing; a vector (n, length) float64;
a category (n,) int64, the place of its value among the task's values, -1 where missing.
Output "probability" (n, c) float64, classes in the order of the metadata entry "labels"; or "value" (n,) float64 in the
label's unit. The graph holds the encoders `table`, `identity` and `random_features`, then a linear head or a network.
What it answers is what `fusionlearn predict` answers, to 1e-5. Values out of range, which predict may refuse, it clips.
"""

from __future__ import annotations

import importlib
import json
import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import network
from fusionlearn.encoder import Features
from fusionlearn.encoders import random_features
from fusionlearn.errors import MissingExtra, SettingsError
from fusionlearn.file import digest
from fusionlearn.problem import Category, NumberLabel, Text, Vector
from fusionlearn.types import Model

OPSET = 17  # of ONNX operators: onnxruntime 1.12 and later


def to_onnx(model: Model) -> bytes:
    """The model as bytes of an ONNX file.

    Errors: SettingsError when its method or an encoder has no graph; MissingExtra without onnx, or torch for networks.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise MissingExtra("export", "onnx", "onnx") from error
    if model.method.graph is None:
        raise SettingsError(
            f"method '{model.method.name}' has no graph: models of ridge, distill_head, average, distill and "
            f"synthesize have one."
        )
    graph = _Graph(onnx)
    name, answer = _answer(graph, model, _features(graph, model))
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, answer)]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "fusionlearn", graph.inputs, outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="fusionlearn",
    )
    values = {name: column.values for name, column in model.schema.columns.items() if isinstance(column, Category)}
    onnx.helper.set_model_props(
        made,
        {"name": model.name, "digest": digest(model), "labels": json.dumps(model.schema.labels),
         "categories": json.dumps(values)},
    )  # fmt: skip
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


class _Graph:
    """Nodes, inputs and constants as they come about; every step gives the name of its result."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: list[Any] = []

    def take(self, name: str, shape: list[Any], whole: bool = False) -> str:
        """An input column, under a name no step of ours has."""
        kind = self.onnx.TensorProto.INT64 if whole else self.onnx.TensorProto.DOUBLE
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def put(self, value: Any) -> str:
        """A constant."""
        name = f"constant:{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def step(self, kind: str, *given: str, **settings: Any) -> str:
        """The result of an operator."""
        return self.steps(kind, 1, *given, **settings)[0]

    def steps(self, kind: str, count: int, *given: str, **settings: Any) -> list[str]:
        """The results of an operator that has several."""
        names = [f"step:{len(self.nodes)}:{i}" for i in range(count)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(given), names, **settings))
        return names

    def name(self, what: str, result: str) -> str:
        """Give a result its public name."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [result], [what]))
        return what


# --- columns to features --------------------------------------------------------------------------------------------


def _features(graph: _Graph, model: Model) -> str:
    """The encoders, one after another: x (n, d) float64."""
    x = ""
    before: Features | None = None
    for encoder in model.encoder.encoders:
        if encoder.name in ("table", "identity"):
            x = x or graph.step("Concat", *_columns(graph, model, encoder.name == "table"), axis=1)
        elif encoder.name == "random_features":
            assert before is not None  # a task with nothing ahead of them is refused when it is made
            x = _cosines(graph, x, len(before.names), encoder)
        else:
            raise SettingsError(f"encoder '{encoder.name}' has no graph: table, identity and random_features have.")
        before = encoder.features(model.schema, before)
        bounds = np.array(before.bounds)
        x = graph.step("Min", graph.step("Max", x, graph.put(-bounds)), graph.put(bounds))
    return x


def _columns(graph: _Graph, model: Model, scaled: bool) -> list[str]:
    """Every column as one or more columns of features, (n, k) each."""
    parts = []
    for name, column in model.schema.columns.items():
        marks = model.schema.missing_rule(name) == "indicator"
        if isinstance(column, Category):
            codes = graph.step("Unsqueeze", graph.take(name, ["n"], whole=True), graph.put(np.array([1])))
            known = [*range(1, len(column.values))]
            if marks or model.schema.missing_rule(name) == "center":
                known.append(-1)
            hits = graph.step("Equal", codes, graph.put(np.array([known], np.int64)))
            parts.append(graph.step("Cast", hits, to=graph.onnx.TensorProto.DOUBLE))
            continue
        assert not isinstance(column, Text)  # no encoder that is exported reads text
        value = graph.take(name, ["n", column.length] if isinstance(column, Vector) else ["n"])
        if not isinstance(column, Vector):
            value = graph.step("Unsqueeze", value, graph.put(np.array([1])))
        if not scaled:
            parts.append(value)
            continue
        missing = graph.step("IsNaN", value)
        moved = graph.step("Sub", value, graph.put(np.float64(column.center or 0.0)))
        value = graph.step("Div", moved, graph.put(np.float64(column.scale or 1.0)))
        parts.append(graph.step("Where", missing, graph.put(np.float64(0.0)), value))
        if marks and not isinstance(column, Vector):
            parts.append(graph.step("Cast", missing, to=graph.onnx.TensorProto.DOUBLE))
    return parts


def _cosines(graph: _Graph, x: str, inputs: int, encoder: Any) -> str:
    directions, phases = random_features._draw(inputs, encoder.num_features, encoder.seed)
    turned = graph.step("MatMul", x, graph.put(directions / encoder.bandwidth))
    # cos as a sine: onnxruntime has the sine for float64, the cosine for float32 only.
    return graph.step("Sin", graph.step("Add", turned, graph.put(phases + math.pi / 2)))


# --- features to answers --------------------------------------------------------------------------------------------


def _answer(graph: _Graph, model: Model, x: str) -> tuple[str, list[Any]]:
    """The output's name and shape."""
    assert model.method.graph is not None
    kind, text = model.method.graph
    if kind == "linear":
        product = graph.step("MatMul", x, graph.put(model.arrays["weights"]))
        scores = graph.step("Add", product, graph.put(model.arrays["bias"]))
    else:
        scores = _network(graph, model, text, x)
    label = model.schema.label
    if isinstance(label, NumberLabel):
        value = graph.step("Squeeze", scores, graph.put(np.array([1])))
        scaled = graph.step("Mul", value, graph.put(np.float64(label.scale or 1.0)))
        return graph.name("value", graph.step("Add", scaled, graph.put(np.float64(label.center or 0.0)))), ["n"]
    nearest = (kind, text) == ("linear", "")
    probability = _simplex(graph, scores, model) if nearest else graph.step("Softmax", scores, axis=1)
    return graph.name("probability", probability), ["n", len(model.schema.labels)]


def _simplex(graph: _Graph, scores: str, model: Model) -> str:
    """The nearest probabilities, as `sums.to_simplex` finds them."""
    count = len(model.schema.labels)
    ordered = graph.steps("TopK", 2, scores, graph.put(np.array([count])), axis=1)[0]
    excess = graph.step("Sub", graph.step("CumSum", ordered, graph.put(np.int64(1))), graph.put(np.float64(1.0)))
    share = graph.step("Div", excess, graph.put(np.arange(1, count + 1, dtype=np.float64)))
    kept = graph.step("Cast", graph.step("Greater", ordered, share), to=graph.onnx.TensorProto.INT64)
    number = graph.step("ReduceSum", kept, graph.put(np.array([1])), keepdims=1)
    last = graph.step("GatherElements", share, graph.step("Sub", number, graph.put(np.int64(1))), axis=1)
    return graph.step("Max", graph.step("Sub", scores, last), graph.put(np.float64(0.0)))


# --- networks -------------------------------------------------------------------------------------------------------


def _network(graph: _Graph, model: Model, text: str, x: str) -> str:
    """A torch module, traced, layer by layer; float32 inside as when it predicts."""
    torch = network.torch_for("export of a network")
    weights = network.weights_of(model.arrays, text, model.problem, "the model")
    module = network.module_with(text, model.problem, weights)
    traced = torch.fx.symbolic_trace(module)
    layers = dict(traced.named_modules())
    results: dict[str, str] = {}
    found = ""
    for node in traced.graph.nodes:
        given = [results[part.name] for part in node.args if hasattr(part, "name") and part.name in results]
        if node.op == "placeholder":
            results[node.name] = graph.step("Cast", x, to=graph.onnx.TensorProto.FLOAT)
        elif node.op == "output":
            found = given[0]
        elif node.op == "call_module":
            results[node.name] = _layer(graph, layers[node.target], given[0], text)
        elif node.op == "call_method" and node.target == "permute":
            results[node.name] = graph.step("Transpose", given[0], perm=list(node.args[1:]))
        elif node.target in (operator.add, torch.add):
            results[node.name] = graph.step("Add", *given)
        elif node.target is torch.nn.functional.relu:
            results[node.name] = graph.step("Relu", given[0])
        else:
            raise SettingsError(f"network '{text}' has a step '{node.target}' that has no graph.")
    return graph.step("Cast", found, to=graph.onnx.TensorProto.DOUBLE)


def _layer(graph: _Graph, layer: Any, x: str, text: str) -> str:
    """One of torch's layers as ONNX operators."""
    nn = network.torch_for("export of a network").nn

    def held(value: Any) -> str:
        return graph.put(value.detach().numpy())

    if isinstance(layer, nn.Linear):
        bias = [held(layer.bias)] if layer.bias is not None else []
        return graph.step("Gemm", x, held(layer.weight), *bias, transB=1)
    if isinstance(layer, nn.Conv2d):
        bias = [held(layer.bias)] if layer.bias is not None else []
        (down, across), groups = layer.padding, layer.groups
        settings = {"strides": list(layer.stride), "pads": [down, across, down, across], "group": groups}
        return graph.step("Conv", x, held(layer.weight), *bias, kernel_shape=list(layer.kernel_size), **settings)
    if isinstance(layer, nn.MaxPool2d):
        side = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
        step = layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) * 2
        return graph.step("MaxPool", x, kernel_shape=list(side), strides=list(step))
    if isinstance(layer, nn.BatchNorm2d):
        known = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
        return graph.step("BatchNormalization", x, *map(held, known), epsilon=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return _group_norm(graph, layer, x)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return graph.step("GlobalAveragePool", x)
    if isinstance(layer, nn.Flatten):
        return graph.step("Flatten", x, axis=1)
    if isinstance(layer, nn.Unflatten):
        return graph.step("Reshape", x, graph.put(np.array([-1, *layer.unflattened_size])))
    if isinstance(layer, nn.ReLU):
        return graph.step("Relu", x)
    if isinstance(layer, nn.Identity):
        return x
    raise SettingsError(f"network '{text}' has a layer '{type(layer).__name__}' that has no graph.")


def _group_norm(graph: _Graph, layer: Any, x: str) -> str:
    """Each group of channels laid out as one, normalised, laid out again, scaled."""
    groups, channels = layer.num_groups, layer.num_channels
    shape = graph.step("Shape", x)
    rows = graph.step("Reshape", x, graph.put(np.array([0, groups, -1])))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normed = graph.step("InstanceNormalization", rows, graph.put(ones), graph.put(zeros), epsilon=layer.eps)
    back = graph.step("Reshape", normed, shape)
    weight, bias = (value.detach().numpy().reshape(channels, 1, 1) for value in (layer.weight, layer.bias))
    return graph.step("Add", graph.step("Mul", back, graph.put(weight)), graph.put(bias))


def columns_for(model: Model, raw: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Raw columns as the graph takes them. Errors: DataError."""
    return dict(model.schema.read(raw, with_label=False).data)
