"""Two convolutions of 5×5 and one hidden layer: 1,663,370 weights on 28×28 images with ten classes.

Takes    (n, h·w·c), images row by row with their channels last
Source   McMahan, Moore, Ramage, Hampson, Agüera y Arcas, Communication-Efficient Learning of Deep Networks from
         Decentralized Data, 2017
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fusionlearn import layers
from fusionlearn.network import Module, Network, torch_for
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class Cnn(Network):
    name: ClassVar[str] = "cnn"

    shape: tuple[int, ...] = (28, 28, 1)  # height, width, channels
    width: int = 32  # channels of the first convolution; the second has twice as many
    hidden: int = 512  # units behind the convolutions

    def __post_init__(self) -> None:
        layers.check_widths("cnn", (self.width, self.hidden))

    def build(self, problem: Problem) -> Module:
        nn = torch_for("network 'cnn'").nn
        image = layers.image(self.shape, problem, "cnn")
        height, width, channels = self.shape
        pooled = max(height // 4, 1) * max(width // 4, 1)
        body = [
            image,
            # The largest of four, then rectified: the same the other way round, with a quarter to rectify.
            *(nn.Conv2d(channels, self.width, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(self.width, 2 * self.width, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(2 * self.width * pooled, self.hidden), nn.ReLU()),
        ]
        return layers.network(body, self.hidden, problem)
