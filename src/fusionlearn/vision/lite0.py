"""EfficientNet-Lite0 as a graph for onnxruntime, which yields the pooled outputs of its layers.

The network is a stem, 16 inverted bottlenecks (widen 1x1, one filter per channel, narrow 1x1, and a shortcut where
nothing changes size) and a head; every convolution is followed by a batch normalisation, which is folded into it, and
all but the narrowing ones by a cut to [0, 6]. Convolutions pad as TensorFlow does: an odd pixel goes below and right.

Source   Tan, Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019; the Lite variants:
         TensorFlow TPU repository, models/official/efficientnet/lite, 2020
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.graphs import Builder

MEAN, SCALE = 127.0, 128.0  # of pixels from 0 to 255, as it was trained

STEM, HEAD = 32, 1280  # channels
STAGES = (  # blocks, side of the filters, stride of the first block, widening, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPSILON = 1e-3  # of the batch normalisations

Taps = tuple[tuple[str, int, bool], ...]


def taps() -> Taps:
    """Every output that can be pooled, in order: its name, its channels, whether it was cut to [0, 6]."""
    found: list[tuple[str, int, bool]] = [("stem", STEM, True)]
    channels, number = STEM, 0
    for blocks, _, _, widening, out in STAGES:
        for _ in range(blocks):
            found += [(f"wide{number}", channels * widening, True), (f"block{number}", out, False)]
            channels, number = out, number + 1
    return (*found, ("head", HEAD, True))


def graph(weights: Mapping[str, NDArray[Any]], side: int, chosen: tuple[tuple[str, str], ...], onnx: Any) -> bytes:
    """The network as an onnx file: "image" (n, 3, side, side) float32 → "features" (n, d) float32.

    weights  named as in the published checkpoint
    chosen   (tap, "mean" or "max") in the order in which they are put side by side
    onnx     the library
    Errors: FileError when weights are missing or have other shapes.
    """
    return _Graph(weights, chosen, onnx).build(side)


class _Graph(Builder):
    """A graph under construction, and the pooled outputs so far."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], chosen: tuple[tuple[str, str], ...], onnx: Any) -> None:
        Builder.__init__(self, "EfficientNet-Lite0", weights, onnx)
        self.chosen = chosen
        self.pooled: dict[tuple[str, str], str] = {}
        self.cut = (self.constant(0.0), self.constant(6.0))

    def build(self, side: int) -> bytes:
        x, side = self.convolve("image", side, "_conv_stem", "_bn0", (STEM, 3, 3), stride=2)
        self.pool("stem", x)
        channels, number = STEM, 0
        for blocks, size, stride, widening, out in STAGES:
            for i in range(blocks):
                x, side = self.block(x, side, number, channels, (widening, size, stride if i == 0 else 1, out))
                channels, number = out, number + 1
        x, side = self.convolve(x, side, "_conv_head", "_bn1", (HEAD, channels, 1))
        self.pool("head", x)
        self.node("Concat", [self.pooled[key] for key in self.chosen], "features", axis=1)
        return self.file([("image", self.onnx.TensorProto.FLOAT, ["n", 3, "side", "side"])], [("features", ["n", "d"])])

    def block(self, x: str, side: int, number: int, channels: int, plan: tuple[int, int, int, int]) -> tuple[str, int]:
        widening, size, stride, out = plan
        name, wide, inner, before = f"_blocks.{number}.", channels * widening, x, side
        if widening > 1:
            inner, side = self.convolve(inner, side, f"{name}_expand_conv", f"{name}_bn0", (wide, channels, 1))
        each = f"{name}_depthwise_conv"
        inner, side = self.convolve(inner, side, each, f"{name}_bn1", (wide, 1, size), stride=stride, groups=wide)
        self.pool(f"wide{number}", inner)
        inner, _ = self.convolve(inner, side, f"{name}_project_conv", f"{name}_bn2", (out, wide, 1), cut=False)
        if side == before and out == channels:
            inner = self.node("Add", [inner, x])
        self.pool(f"block{number}", inner)
        return inner, side

    def convolve(
        self,
        x: str,
        side: int,
        convolution: str,
        normalisation: str,
        shape: tuple[int, int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        cut: bool = True,
    ) -> tuple[str, int]:
        """A convolution with its batch normalisation γ(x - μ)/σ + β folded in; the output and its side."""
        out, channels, size = shape
        kernel = self.weight(f"{convolution}.weight", (out, channels, size, size))
        gamma, beta, mean, variance = (
            self.weight(f"{normalisation}.{part}", (out,)) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        inputs = [x, self.constant(kernel * scale[:, None, None, None]), self.constant(beta - mean * scale)]
        wanted = -(-side // stride)
        padding = max((wanted - 1) * stride + size - side, 0)
        first, last = padding // 2, padding - padding // 2
        pads = [first, first, last, last]
        x = self.node("Conv", inputs, kernel_shape=[size] * 2, strides=[stride] * 2, group=groups, pads=pads)
        return self.node("Clip", [x, *self.cut]) if cut else x, wanted

    def pool(self, tap: str, x: str) -> None:
        for how, operation in (("mean", "GlobalAveragePool"), ("max", "GlobalMaxPool")):
            if (tap, how) in self.chosen:
                self.pooled[tap, how] = self.node("Flatten", [self.node(operation, [x])])
