"""What networks are made of besides torch's own layers: flat rows as images, and norms by name.

Imported by the files of `networks/` inside their functions' reach: torch is loaded when a layer is made.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

from fusionlearn.errors import SettingsError
from fusionlearn.network import Module, torch_for
from fusionlearn.problem import Problem

LARGEST_SIDE = 1024  # pixels


def network(body: list[Module], width: int, problem: Problem) -> Module:
    """A body and a linear head of `width` inputs."""
    nn = torch_for("a network").nn
    return nn.Sequential(OrderedDict(body=nn.Sequential(*body), head=nn.Linear(width, problem.num_classes)))


def image(shape: tuple[int, ...], problem: Problem, name: str) -> Module:
    """Rows (n, height·width·channels) → images (n, channels, height, width), in memory as they came (channels last).

    Errors: SettingsError when the shape is none or the features are not as many.
    """
    if len(shape) != 3 or not all(1 <= side <= LARGEST_SIDE for side in shape):
        raise SettingsError(f"{name}: shape is {'x'.join(map(str, shape))}; height x width x channels is expected.")
    if math.prod(shape) != problem.num_features:
        raise SettingsError(
            f"{name}: an image of {'x'.join(map(str, shape))} has {math.prod(shape)} numbers, "
            f"the task's rows have {problem.num_features}: set the shape to height x width x channels of your images."
        )
    nn = torch_for(f"network '{name}'").nn

    class Channels(nn.Module):  # type: ignore[misc,name-defined]
        """(n, h, w, c) → (n, c, h, w), a view."""

        def forward(self, pixels: Any) -> Any:
            return pixels.permute(0, 3, 1, 2)

    return nn.Sequential(nn.Unflatten(1, tuple(shape)), Channels())


def norm(kind: str, channels: int, groups: int = 8) -> Module:
    """Group normalisation, which knows no batch; batch normalisation; or nothing."""
    nn = torch_for("a network").nn
    if kind == "group":
        # At least two channels a group: a single one of a single pixel would always be normalised to 0.
        return nn.GroupNorm(math.gcd(min(groups, max(channels // 2, 1)), channels), channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Errors: SettingsError for a layer of no units or of more than 65536."""
    if not all(1 <= width <= 2**16 for width in widths):
        raise SettingsError(f"{name}: a layer has 1 to 65536 units, not {'x'.join(map(str, widths))}.")
