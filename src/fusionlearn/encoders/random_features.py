"""Random cosine features: a linear head on them is close to a kernel machine.

With w ~ N(0, I / bandwidth²) and b ~ U[0, 2π), cos(wᵀx + b) has the Gaussian kernel exp(-‖x - x'‖² / (2 bandwidth²))
as its expected inner product (times 2), so ridge regression on enough of them approaches kernel ridge regression,
yet the statistics still add up. The directions come from SHAKE-256 of a public seed: the same on every machine and
in every version.

Needs    scaled features ahead of it; a task with unscaled ones is refused when it is made
Emits    x (n, num_features) float64;  bounds 1
Source   Rahimi, Recht, Random Features for Large-Scale Kernel Machines, 2007
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Schema

WIDEST = 100.0  # a feature that may reach this many of its own scales was not scaled


@dataclass(frozen=True)
class RandomFeatures(Encoder):
    name: ClassVar[str] = "random_features"

    num_features: int = 512  # cosines to emit
    bandwidth: float = 1.0  # length scale of the kernel, in units of the features ahead
    seed: int = 0  # public

    def __post_init__(self) -> None:
        if not 1 <= self.num_features <= 65_536:
            raise SettingsError(f"random_features: num_features is {self.num_features}; it may be 1 to 65536.")
        if not 0 < self.bandwidth < float("inf"):
            raise SettingsError(f"random_features: bandwidth is {self.bandwidth}; it must be above 0.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        if before is None:
            raise SettingsError("random_features needs features ahead of it: put 'table' or 'identity' first.")
        for name, bound in zip(before.names, before.bounds, strict=True):
            if bound > WIDEST:
                raise SettingsError(
                    f"random_features: feature '{name}' may reach ±{bound:g}, so it is not scaled and would drown the "
                    f"others; declare its center and scale and use 'table', or narrow its range."
                )
        return Features(tuple(f"cos[{i}]" for i in range(self.num_features)), (1.0,) * self.num_features)

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        x = data[X]
        xp = array_api_compat.array_namespace(x)
        directions, phases = _draw(int(x.shape[1]), self.num_features, self.seed)
        device = array_api_compat.device(x)
        directions = xp.asarray(directions / self.bandwidth, device=device)
        encoded = {X: xp.cos(xp.astype(x, xp.float64) @ directions + xp.asarray(phases, device=device))}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})


@functools.lru_cache(maxsize=8)
def _draw(inputs: int, outputs: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal directions (inputs, outputs) and uniform phases (outputs,), by Box-Muller from SHAKE-256."""
    size = inputs * outputs
    label = f"fusionlearn random_features {inputs} {outputs} {seed}".encode()
    stream = hashlib.shake_256(label).digest(8 * (2 * size + outputs))
    # 53 random bits, plus a half: strictly inside (0, 1), so the logarithm is finite.
    uniform = ((np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle, phase = uniform[:size], uniform[size : 2 * size], uniform[2 * size :]
    normal = np.sqrt(-2.0 * np.log(radius)) * np.cos(2 * np.pi * angle)
    return normal.reshape(inputs, outputs), 2 * np.pi * phase
