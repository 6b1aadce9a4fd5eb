"""Backbone: what a network pre-trained on a large public data set sees in an image.

EfficientNet-Lite0, trained on ImageNet, stretches each image to `side` pixels and answers with the mean and maximum
of its layers' outputs over the image, averaged with those of the mirror image. Early layers see colours and textures,
late ones objects: together they tell images apart better than the last layer alone. The network is the same on every
client, its weights named by their SHA-256, so a head fused from sums is exact for any split. onnxruntime runs it on
the CPU; features are kept in this client's cache.

Needs    a table of one vector column, the images; comes first; the extra `vision`
Emits    x (n, d) float32; outputs "head": d = 1,280, "blocks": 6,240, "wide": 11,520, "all": 15,200
Bounds   6 where the network cuts its layers there, else 100
Source   Tan, Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019; all layers rather
         than the last: Evci et al., Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning, 2022
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fusionlearn import graphs, image, weights
from fusionlearn.arrays import Arrays, Data
from fusionlearn.download import needed
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Schema
from fusionlearn.vision import graph, lite0

UNCUT = 100.0  # bound of an output the network does not cut; on photographs they stay below

Outputs = Literal["head", "blocks", "wide", "all"]


@dataclass(frozen=True)
class Backbone(Encoder):
    name: ClassVar[str] = "backbone"
    SLOW: ClassVar[bool] = True

    model: Literal["efficientnet_lite0"] = "efficientnet_lite0"  # the network
    weights: str = weights.LITE0.sha256  # SHA-256 of its weights
    shape: tuple[int, ...] = (32, 32, 3)  # height, width, channels of an image
    side: int = 160  # pixels along the side of what the network sees: more is slower and, up to 224, better
    outputs: Outputs = "blocks"  # the last layer, every block's output, the widened layers inside blocks, or both
    mirror: bool = True  # average over the image and its mirror image

    def __post_init__(self) -> None:
        if not 32 <= self.side <= 512:
            raise SettingsError(f"backbone: side is {self.side}; it may be 32 to 512 pixels.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        image.check(self.name, self.shape, schema, before is None)
        facts = {name: (channels, 6.0 if cut else UNCUT) for name, channels, cut in lite0.taps()}
        names: list[str] = []
        bounds: list[float] = []
        for tap, how in _chosen(self.outputs):
            channels, bound = facts[tap]
            names += [f"{tap} {how}[{i}]" for i in range(channels)]
            bounds += [bound] * channels
        return Features(tuple(names), tuple(bounds))

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        images = image.pixels(data, schema, self.shape) * np.float32(255.0)
        session = _session(self.weights, self.side, self.outputs)
        x = graph.features(session, images, self.side, (lite0.MEAN,), (lite0.SCALE,), self.mirror)
        encoded: dict[str, Any] = {X: x}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})


@functools.cache
def _chosen(outputs: str) -> tuple[tuple[str, str], ...]:
    """(tap, pooling) of every feature block, in order."""
    if outputs == "head":
        return (("head", "mean"),)
    kinds = {"blocks": ("stem", "block", "head"), "wide": ("wide", "head"), "all": ("stem", "block", "wide", "head")}
    poolings = {"block": ("mean", "max"), "stem": ("mean", "max"), "head": ("mean", "max"), "wide": ("mean",)}
    pairs = []
    for tap, _, _ in lite0.taps():
        kind = tap.rstrip("0123456789")
        if kind in kinds[outputs]:
            pairs += [(tap, how) for how in poolings[kind]]
    return tuple(pairs)


@functools.lru_cache(maxsize=2)
def _session(sha256: str, side: int, outputs: str) -> Any:
    """The network ready to run: built once a process from its weights, which takes half a second."""
    onnx = needed("onnx", who="backbone", extra="vision")
    wanted = dataclasses.replace(weights.LITE0, sha256=sha256)
    named = weights.read_torch(weights.content_of(wanted, "backbone"), wanted.file)
    return graphs.session(lite0.graph(named, side, _chosen(outputs), onnx), "backbone")
