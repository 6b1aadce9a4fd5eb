"""LeNet-5 with rectifiers and max-pooling, as it is commonly trained today: 61,706 weights on 28×28 images.

Takes    (n, h·w·c), images row by row with their channels last; at least 12×12
Source   LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fusionlearn import layers
from fusionlearn.errors import SettingsError
from fusionlearn.network import Module, Network, torch_for
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class LeNet5(Network):
    name: ClassVar[str] = "lenet5"

    shape: tuple[int, ...] = (28, 28, 1)  # height, width, channels

    def build(self, problem: Problem) -> Module:
        nn = torch_for("network 'lenet5'").nn
        image = layers.image(self.shape, problem, "lenet5")
        height, width, channels = self.shape
        if min(height, width) < 12:
            raise SettingsError("lenet5: images of at least 12 x 12 are needed.")
        pooled = (height // 2 - 4) // 2 * ((width // 2 - 4) // 2)
        body = [
            image,
            *(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16 * pooled, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        ]
        return layers.network(body, 84, problem)
