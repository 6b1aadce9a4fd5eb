"""Three convolutions of 3×3 with normalisation and pooling, and one hidden layer: five layers with the head.

Takes    (n, h·w·c), images row by row with their channels last; at least 8×8
Source   the size of network that one-shot methods are commonly compared on: Dai, Zhang, Xie, Shi, Li, Liu,
         Enhancing One-Shot Federated Learning through Data and Ensemble Co-Boosting, 2024
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fusionlearn import layers
from fusionlearn.errors import SettingsError
from fusionlearn.network import Module, Network, torch_for
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class Cnn5(Network):
    name: ClassVar[str] = "cnn5"

    shape: tuple[int, ...] = (32, 32, 3)  # height, width, channels
    width: int = 32  # channels of the first convolution; the others have twice and four times as many
    hidden: int = 128  # units behind the convolutions
    norm: Literal["group", "batch", "none"] = "group"

    def __post_init__(self) -> None:
        layers.check_widths("cnn5", (self.width, self.hidden))

    def build(self, problem: Problem) -> Module:
        nn = torch_for("network 'cnn5'").nn
        image = layers.image(self.shape, problem, "cnn5")
        height, width, channels = self.shape
        if min(height, width) < 8:
            raise SettingsError("cnn5: images of at least 8 x 8 are needed.")
        body = [image]
        for wide in (self.width, 2 * self.width, 4 * self.width):
            body += [nn.Conv2d(channels, wide, 3, padding=1), layers.norm(self.norm, wide), nn.ReLU(), nn.MaxPool2d(2)]
            channels = wide
        pooled = height // 8 * (width // 8)
        body += [nn.Flatten(), nn.Linear(channels * pooled, self.hidden), nn.ReLU()]
        return layers.network(body, self.hidden, problem)
