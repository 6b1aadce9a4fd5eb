"""ResNet-18 for small images: a stem of 3×3 without pooling, four stages of two blocks, the mean over the image.

Takes    (n, h·w·c), images row by row with their channels last
Source   He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016; group normalisation, which skewed
         clients need: Hsieh, Phanishayee, Mutlu, Gibbons, The Non-IID Data Quagmire of Decentralized Machine
         Learning, 2020
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fusionlearn import layers
from fusionlearn.network import Module, Network, torch_for
from fusionlearn.problem import Problem


@dataclass(frozen=True)
class ResNet18(Network):
    name: ClassVar[str] = "resnet18"

    shape: tuple[int, ...] = (32, 32, 3)  # height, width, channels
    width: int = 64  # channels of the first stage; each stage has twice those of the one before
    norm: Literal["group", "batch"] = "group"

    def __post_init__(self) -> None:
        layers.check_widths("resnet18", (self.width,))

    def build(self, problem: Problem) -> Module:
        nn = torch_for("network 'resnet18'").nn
        body = [layers.image(self.shape, problem, "resnet18"), *_conv(self.shape[2], self.width, 1, self.norm)]
        before = self.width
        for stage in range(4):
            after = self.width * 2**stage
            body += [_block(before, after, 1 if stage == 0 else 2, self.norm), _block(after, after, 1, self.norm)]
            before = after
        body += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return layers.network(body, before, problem)


def _conv(before: int, after: int, stride: int, norm: str) -> list[Module]:
    nn = torch_for("network 'resnet18'").nn
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), layers.norm(norm, after, 32), nn.ReLU()]


def _block(before: int, after: int, stride: int, norm: str) -> Module:
    nn = torch_for("network 'resnet18'").nn

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        """relu(f(x) + shortcut(x)), f two convolutions."""

        def __init__(self) -> None:
            super().__init__()
            first, second = _conv(before, after, stride, norm), _conv(after, after, 1, norm)[:-1]
            self.path = nn.Sequential(*first, *second)
            same = before == after and stride == 1
            matched = [nn.Conv2d(before, after, 1, stride, bias=False), layers.norm(norm, after, 32)]
            self.shortcut = nn.Identity() if same else nn.Sequential(*matched)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.path(x) + self.shortcut(x))

    return Block()
