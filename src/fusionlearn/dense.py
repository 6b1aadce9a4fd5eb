"""Dense networks in NumPy: linear layers with rectifiers between them, one client's or those of many at once.

A step of such a network is small, and most of what it costs elsewhere is the way there: loading a framework,
recording the step, walking its graph. Here gradients are written out. The weights of k networks are stacked along a
leading axis; a stacked product rounds each of its products as it would alone, and everything else is done element by
element, so that k clients at once learn bit for bit what each of them learns alone.

    forward   a_0 = x;  a_i = max(0, a_{i-1} W_iᵀ + b_i);  scores = a_L W_{L+1}ᵀ + b_{L+1}
    backward  δ = slope of the loss in the scores;  ∂W_i = δᵀ a_{i-1};  ∂b_i = Σ δ;  δ ← (δ W_i) · [a_{i-1} > 0]
    descent   v ← μ v + ∂ + λ w;  w ← w − η v
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
HEAD = "head"  # the last layer's name


def names(widths: Sequence[int]) -> tuple[str, ...]:
    """What the layers are called, as PyTorch counts them: rectifiers have a number too."""
    return (*(f"body.{2 * place}" for place in range(len(widths) - 2)), HEAD)


def shapes(widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Name → shape of weights and biases, for so many units from the features to the scores."""
    found: dict[str, tuple[int, ...]] = {}
    for name, before, after in zip(names(widths), widths, widths[1:], strict=False):
        found |= {f"{name}.weight": (after, before), f"{name}.bias": (after,)}
    return found


class Stack:
    """The weights of many networks of one shape, and what momentum they have."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], count: int) -> None:
        """All of them begin with the same weights, named as in `shapes`."""
        self.names = list(weights)
        self.weights: list[Floats] = []  # (count, out, in) and (count, 1, out) in turns
        for value in weights.values():
            one = np.asarray(value, np.float32)
            self.weights.append(np.repeat((one if one.ndim == 2 else one[None])[None], count, axis=0))
        self.moving = [np.zeros_like(weight) for weight in self.weights]

    def of(self, place: int) -> dict[str, Floats]:
        """One network's weights."""
        pairs = zip(self.names, self.weights, strict=True)
        return {name: (value[place] if name.endswith(".weight") else value[place, 0]).copy() for name, value in pairs}

    def forward(self, x: Floats, first: int = 0) -> list[Floats]:
        """Every layer's input, and the scores, of networks from `first` on: (k, b, d) → (k, b, …)."""
        passed = [x]
        for weight, bias in zip(self.weights[::2], self.weights[1::2], strict=True):
            passed.append(passed[-1] @ weight[first:].transpose(0, 2, 1))
            passed[-1] += bias[first:]
            if len(passed) <= len(self.weights) // 2:
                np.maximum(passed[-1], 0, out=passed[-1])
        return passed

    def descend(
        self, passed: Sequence[Floats], slope: Floats, rates: Floats, momentum: float, decay: float, first: int = 0
    ) -> None:
        """One step of the networks from `first` on, each at its rate (k,), from the slopes (k, b, c) in the scores."""
        each = rates[:, None, None]
        for layer in reversed(range(len(self.weights) // 2)):
            weight = self.weights[2 * layer][first:]
            by_weight = slope.transpose(0, 2, 1) @ passed[layer]
            by_bias = slope.sum(axis=1, keepdims=True)
            if layer:
                slope = slope @ weight
                slope *= passed[layer] > 0
            self._move(2 * layer, first, by_weight, each, momentum, decay)
            self._move(2 * layer + 1, first, by_bias, each, momentum, decay)

    def _move(self, place: int, first: int, change: Floats, each: Floats, momentum: float, decay: float) -> None:
        weight = self.weights[place][first:]
        if decay:
            change += np.float32(decay) * weight
        if momentum:
            moving = self.moving[place][first:]
            moving *= np.float32(momentum)
            moving += change
            np.multiply(moving, each, out=change)
        else:
            change *= each
        weight -= change
