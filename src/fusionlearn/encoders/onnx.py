"""Onnx: features from any network the clients have as an onnx file, such as one exported from timm or torchvision.

The file lies in the folder of weights ($FUSIONLEARN_WEIGHTS, else the cache folder) under any name; the task names it
by its SHA-256, so all clients compute the same features or none. Its first input takes images (n, 3, side, side)
float32, its first output is flattened to `width` features.

Needs    a table of one vector column, the images; comes first; the extra `vision`
Emits    x (n, width) float32
Bounds   `bound`; values beyond are cut and counted
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fusionlearn import graphs, image
from fusionlearn import weights as files
from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Schema
from fusionlearn.vision import graph


@dataclass(frozen=True)
class Onnx(Encoder):
    name: ClassVar[str] = "onnx"
    SLOW: ClassVar[bool] = True

    weights: str = ""  # SHA-256 of the file; must be given
    width: int = 1000  # features it emits for an image
    shape: tuple[int, ...] = (32, 32, 3)  # height, width, channels of an image
    side: int = 224  # pixels along the side of what the network sees
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)  # of red, green, blue in 0 to 255; the network sees
    scale: tuple[float, ...] = (58.395, 57.12, 57.375)  # (pixel - mean) / scale
    bound: float = 100.0  # largest size of a feature
    mirror: bool = True  # average over the image and its mirror image

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 65_536:
            raise SettingsError(f"onnx: width is {self.width}; it may be 1 to 65536.")
        if not 1 <= self.side <= 1024:
            raise SettingsError(f"onnx: side is {self.side}; it may be 1 to 1024 pixels.")
        if not 0 < self.bound < math.inf:
            raise SettingsError(f"onnx: bound is {self.bound}; it must be above 0.")
        if {len(self.mean), len(self.scale)} - {1, 3} or not all(0 < scale < math.inf for scale in self.scale):
            raise SettingsError("onnx: mean and scale are one number or three, scale above 0.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        files.check_name(self.weights, "onnx")
        image.check(self.name, self.shape, schema, before is None)
        return Features(tuple(f"output[{i}]" for i in range(self.width)), (self.bound,) * self.width)

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        images = image.pixels(data, schema, self.shape) * np.float32(255.0)
        session = _session(self.weights)
        x = graph.features(session, images, self.side, self.mean, self.scale, self.mirror)
        if x.shape[1] != self.width:
            raise SettingsError(f"onnx: the graph gives {x.shape[1]} features, the task says width = {self.width}.")
        encoded: dict[str, Any] = {X: x}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})


@functools.lru_cache(maxsize=2)
def _session(sha256: str) -> Any:
    return graphs.session(files.own(sha256, ".onnx", "onnx"), "onnx")
