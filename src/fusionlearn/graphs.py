"""Graphs of networks for onnxruntime: built from published weights, or read from a file, and made ready to run.

Each run uses one thread, so that a record's features are the same in any company and on any number of cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.download import needed
from fusionlearn.errors import FileError

OPSET, IR = 18, 8


def session(content: bytes, who: str, extra: str = "vision") -> Any:
    """A graph ready to run, each run on one thread. Errors: MissingExtra; FileError when it is no graph."""
    runtime = needed("onnxruntime", who=who, extra=extra)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the library raises a dozen kinds of its own, all of which mean this
        raise FileError(f"{who}: the weights are no onnx graph that can be run ({type(error).__name__}).") from None


class Builder:
    """A graph under construction: nodes and constants so far, and the weights it is made of."""

    def __init__(self, title: str, weights: Mapping[str, NDArray[Any]], onnx: Any) -> None:
        self.title, self.weights, self.onnx = title, weights, onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def weight(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """A named weight. Errors: FileError when it is missing or of another shape."""
        have = self.weights.get(name)
        if have is None or have.shape != shape:
            told = "are missing" if have is None else f"are {have.shape}"
            raise FileError(f"{self.title}: the weights '{name}' {told}, {shape} is expected.")
        return have.astype(np.float64)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of a constant."""
        name = f"constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operation: str, inputs: Sequence[str], output: str = "", **settings: Any) -> str:
        """The name of an operation's output."""
        output = output or f"{operation.lower()}{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operation, list(inputs), [output], **settings))
        return output

    def file(
        self, inputs: Sequence[tuple[str, Any, Sequence[Any]]], outputs: Sequence[tuple[str, Sequence[Any]]]
    ) -> bytes:
        """The whole as an onnx file: inputs by name, element type and shape, outputs (float32) by name and shape."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        taken = [helper.make_tensor_value_info(name, of, shape) for name, of, shape in inputs]
        given = [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs]
        whole = helper.make_graph(self.nodes, self.title, taken, given, self.constants)
        model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        return bytes(model.SerializeToString())
