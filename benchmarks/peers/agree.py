"""Flower's FedAvg and ours, from the same weights on the same batches: what differs after each of three rounds.

Five clients of unlike sizes and classes (agreed.py), one epoch of plain stochastic gradient descent a round, the mean
weighted by rows. Flower's clients train with PyTorch's own optimiser and its server aggregates; ours is
`simulate.rounds.federate`, which `compare` runs as a rival. Flower's weights are kept with the result, so that ours
can be held against them where Flower is not installed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import agreed, setup
from fusionlearn import network
from fusionlearn.problem import Problem
from fusionlearn.simulate import rounds

FOLDER = Path(__file__).resolve().parent
NETWORK = f"mlp:hidden={agreed.HIDDEN}"
PROBLEM = Problem(
    "multiclass", tuple(f"c{code}" for code in range(agreed.CLASSES)),
    tuple(f"x{place}" for place in range(agreed.FEATURES)), (10.0,) * agreed.FEATURES, 10_000,
)  # fmt: skip


def start() -> network.Weights:
    """The weights both begin with."""
    return network.initial(NETWORK, PROBLEM)


def ours() -> list[rounds.Weights]:
    """The global weights after each round."""
    found: list[rounds.Weights] = []
    clients = [agreed.rows(number) for number in range(agreed.CLIENTS)]
    local = rounds.Local(1, agreed.BATCH, agreed.RATE)
    for number in range(1, agreed.ROUNDS + 1):  # a run of so many rounds begins like a longer one
        weights: list[rounds.Weights] = []
        learner = _Watched(PROBLEM, NETWORK, answered=weights)
        rival = rounds.Rival("fedavg", number, local)
        rounds.federate(learner, clients, rival, lambda _: 0.0, clients[0][0], seed=agreed.SEED)
        found.append(weights[-1])
    return found


class _Watched(rounds.Net):
    """Keeps the weights that are judged."""

    def __init__(self, problem: Problem, name: str, *, answered: list[rounds.Weights]) -> None:
        super().__init__(problem, name)
        object.__setattr__(self, "answered", answered)

    def answer(self, weights: rounds.Weights, x: Any) -> Any:
        self.answered.append(weights)  # type: ignore[attr-defined]
        return super().answer(weights, x)


def flower() -> list[rounds.Weights]:
    """Flower's global weights after each round. Errors: CalledProcessError."""
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "start.npz", **start())
        command = [setup.python("flower"), FOLDER / "round_flower.py"]
        settings = {"AGREE": name, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=FOLDER, env=os.environ | settings, check=True, capture_output=True)
        found = []
        for number in range(1, agreed.ROUNDS + 1):
            with np.load(Path(name) / f"flower{number}.npz") as held:
                found.append({key: held[key] for key in held.files})
    return found


def difference(left: rounds.Weights, right: rounds.Weights) -> float:
    """The largest of any weight."""
    return max(float(np.abs(left[name] - np.asarray(right[name])).max()) for name in left)


def measure() -> dict[str, Any]:
    """How far apart both are after each round, and Flower's weights."""
    theirs, mine = flower(), ours()
    return {
        "clients": agreed.CLIENTS, "rounds": agreed.ROUNDS, "seed": agreed.SEED, "rows": list(agreed.SIZES),
        "network": NETWORK, "moved": difference(start(), theirs[-1]),
        "difference": [difference(one, two) for one, two in zip(mine, theirs, strict=True)],
        "flower": [{name: value.tolist() for name, value in weights.items()} for weights in theirs],
    }  # fmt: skip
