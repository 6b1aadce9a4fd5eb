"""Weights in a byte each: what a network moved from its start, rounded, with one scale for each output channel.

Of a matrix or convolution W with start W₀, known to everybody, a client sends round((W − W₀)_c / s_c) as int8 with
s_c = max |W − W₀|_c / 127 for every output channel c: a move is smaller than the weight it changes, so its rounding is
finer. Vectors, which are few, go as they are.

    network.NAME  as the weights  int8     multiples of the channel's scale; float32 for vectors
    scale.NAME    (channels,)     float32  for matrices and convolutions
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Arrays, ArraySpec
from fusionlearn.network import PREFIX, Weights

SCALE = "scale."
TOP = 127  # the largest multiple
LARGEST = 2.0**16  # of any weight


def declare(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, ArraySpec]:
    """What coded weights of these shapes look like."""
    specs = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            specs[PREFIX + name] = ArraySpec("float32", shape, -LARGEST, LARGEST)
        else:
            specs[PREFIX + name] = ArraySpec("int8", shape, -TOP, TOP)
            specs[SCALE + name] = ArraySpec("float32", (shape[0],), 0.0, LARGEST)
    return specs


def encode(weights: Weights, start: Weights) -> dict[str, NDArray[np.int8] | NDArray[np.float32]]:
    """Weights as arrays to send."""
    coded: dict[str, NDArray[np.int8] | NDArray[np.float32]] = {}
    for name, value in weights.items():
        if value.ndim < 2:
            coded[PREFIX + name] = value.astype(np.float32)
            continue
        moved = (value - start[name]).reshape(len(value), -1).astype(np.float64)
        scale = (np.abs(moved).max(axis=1) / TOP).astype(np.float32)
        steps = np.rint(moved / np.where(scale > 0, scale, 1.0)[:, None])
        coded[PREFIX + name] = np.clip(steps, -TOP, TOP).astype(np.int8).reshape(value.shape)
        coded[SCALE + name] = scale
    return coded


def decode(coded: Arrays, start: Weights) -> Weights:
    """The weights that the arrays stand for."""
    weights: Weights = {}
    for name, value in start.items():
        sent = np.asarray(coded[PREFIX + name], np.float32)
        if value.ndim >= 2:
            sent = value + sent * coded[SCALE + name].reshape(-1, *[1] * (value.ndim - 1))
        weights[name] = sent.astype(np.float32)
    return weights
