"""MiniLM as a graph for onnxruntime: the pieces of one text → the mean of each layer's outputs over the pieces.

An embedding and six transformer layers, 384 wide, 12 heads; after each sum a layer normalisation.

Source   Wang, Wei, Dong, Bao, Yang, Zhou, MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
         Pre-Trained Transformers, 2020; tuned on pairs of sentences: Reimers, Gurevych, Sentence-BERT: Sentence
         Embeddings using Siamese BERT-Networks, 2019
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.graphs import Builder

PIECES, LONGEST, WIDTH, INNER, LAYERS, HEADS = 30_522, 512, 384, 1536, 6, 12
EPSILON = 1e-12  # of the layer normalisations


def graph(weights: Mapping[str, NDArray[Any]], onnx: Any) -> bytes:
    """The network as an onnx file: "pieces" (l,) int64, "places" (l,) int64 0…l−1 → "features" (LAYERS + 1, WIDTH).

    weights  named as in the published file
    onnx     the library
    Errors: FileError when weights are missing or have other shapes.
    """
    return _Graph("MiniLM", weights, onnx).build()


class _Graph(Builder):
    def build(self) -> bytes:
        table = self.constant(self.weight("embeddings.word_embeddings.weight", (PIECES, WIDTH)))
        first = self.weight("embeddings.token_type_embeddings.weight", (2, WIDTH))[0]
        places = self.constant(self.weight("embeddings.position_embeddings.weight", (LONGEST, WIDTH)) + first)
        x = self.node("Add", [self.node("Gather", [table, "pieces"]), self.node("Gather", [places, "places"])])
        x = self.normalised(x, "embeddings.LayerNorm")
        means = [self.mean(x)]
        for number in range(LAYERS):
            x = self.layer(x, f"encoder.layer.{number}.")
            means.append(self.mean(x))
        self.node("Concat", means, "features", axis=0)
        whole = self.onnx.TensorProto.INT64
        return self.file([("pieces", whole, ["l"]), ("places", whole, ["l"])], [("features", [LAYERS + 1, WIDTH])])

    def layer(self, x: str, name: str) -> str:
        query, key, value = (self.dense(x, f"{name}attention.self.{part}") for part in ("query", "key", "value"))
        split = self.constant([0, HEADS, WIDTH // HEADS], np.int64)
        heads = [self.node("Reshape", [part, split]) for part in (query, key, value)]
        q, v = (self.node("Transpose", [part], perm=[1, 0, 2]) for part in (heads[0], heads[2]))
        k = self.node("Transpose", [heads[1]], perm=[1, 2, 0])
        small = self.constant(1 / math.sqrt(WIDTH // HEADS))
        looks = self.node("Softmax", [self.node("Mul", [self.node("MatMul", [q, k]), small])], axis=-1)
        seen = self.node("Transpose", [self.node("MatMul", [looks, v])], perm=[1, 0, 2])
        seen = self.node("Reshape", [seen, self.constant([0, WIDTH], np.int64)])
        told = self.dense(seen, f"{name}attention.output.dense")
        x = self.normalised(self.node("Add", [x, told]), f"{name}attention.output.LayerNorm")
        inner = self.gelu(self.dense(x, f"{name}intermediate.dense", (INNER, WIDTH)))
        out = self.dense(inner, f"{name}output.dense", (WIDTH, INNER))
        return self.normalised(self.node("Add", [x, out]), f"{name}output.LayerNorm")

    def dense(self, x: str, name: str, shape: tuple[int, int] = (WIDTH, WIDTH)) -> str:
        kernel = self.constant(self.weight(f"{name}.weight", shape).T)
        return self.node(
            "Add", [self.node("MatMul", [x, kernel]), self.constant(self.weight(f"{name}.bias", shape[:1]))]
        )

    def normalised(self, x: str, name: str) -> str:
        parts = [self.constant(self.weight(f"{name}.{part}", (WIDTH,))) for part in ("weight", "bias")]
        return self.node("LayerNormalization", [x, *parts], axis=-1, epsilon=EPSILON)

    def gelu(self, x: str) -> str:
        bent = self.node("Erf", [self.node("Mul", [x, self.constant(1 / math.sqrt(2))])])
        half = self.node("Mul", [x, self.constant(0.5)])
        return self.node("Mul", [half, self.node("Add", [bent, self.constant(1.0)])])

    def mean(self, x: str) -> str:
        return self.node("ReduceMean", [x, self.constant([0], np.int64)], keepdims=1)
