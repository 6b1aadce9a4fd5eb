"""Traditional federated learning, for comparison: FedAvg, FedProx and FedAdam, many rounds of the same clients.

In every round each client that takes part starts from the global weights, trains on its own rows, and sends what it
has; the server takes a weighted mean, or a step in its direction:

    w_k      = train(w) on client k's rows, E epochs of stochastic gradient descent with rate η
    Δ        = Σ n_k (w_k − w) / Σ n_k
    FedAvg   w ← w + Δ                                                     McMahan et al., 2017
    FedProx  as FedAvg, but clients minimise loss + μ/2 ‖w_k − w‖²          Li et al., 2020
    FedAdam  m ← β₁ m + (1 − β₁) Δ;  v ← β₂ v + (1 − β₂) Δ²;  w ← w + η_s m / (√v + τ)      Reddi et al., 2021

What learns is a `Learner`: a linear head on features (NumPy), or a network by name (torch). Rivals get the features
brought to mean 0 and variance 1 by all clients' moments, free of charge: without it they fall far behind.

Source  McMahan, Moore, Ramage, Hampson, Agüera y Arcas, Communication-Efficient Learning of Deep Networks from
        Decentralized Data, 2017; Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, Federated Optimization in Heterogeneous
        Networks, 2020; Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, Adaptive Federated
        Optimization, 2021
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import network
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Problem
from fusionlearn.sums import softmax

Weights: TypeAlias = dict[str, NDArray[Any]]
Rows: TypeAlias = tuple[NDArray[Any], NDArray[Any]]  # features (n, d), classes (n,) or values (n,)
ALGORITHMS = ("fedavg", "fedprox", "fedadam")
BETA1, BETA2, TAU = 0.9, 0.99, 1e-3  # of FedAdam, as published
BYTES = 4  # of a weight on the wire


@dataclass(frozen=True)
class Local:
    """How a client trains in one round."""

    epochs: int = 1
    batch_size: int = 32
    rate: float = 0.1
    proximal: float = 0.0  # μ of FedProx


class Learner(Protocol):
    """What is trained: weights by name, and how they learn and answer."""

    def start(self) -> Weights:
        """The weights before the first round."""

    def train(self, weights: Weights, rows: Rows, local: Local, seed: tuple[int, ...]) -> Weights:
        """Weights after a client's epochs; those given are not changed."""

    def answer(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities (n, c), or values (n,)."""


@dataclass(frozen=True)
class Head:
    """A linear head on features: softmax regression, or least squares for numbers."""

    problem: Problem

    def start(self) -> Weights:
        """All 0: the head's loss is convex."""
        outputs = max(1, self.problem.num_classes)
        return {
            "weight": np.zeros((self.problem.num_features, outputs), np.float32),
            "bias": np.zeros(outputs, np.float32),
        }

    def train(self, weights: Weights, rows: Rows, local: Local, seed: tuple[int, ...]) -> Weights:
        """Stochastic gradient descent on the cross-entropy, or half the squared error."""
        x, y = rows
        weight, bias = weights["weight"].copy(), weights["bias"].copy()
        for epoch in range(local.epochs):
            order = np.random.default_rng((*seed, epoch)).permutation(len(x))
            for first in range(0, len(x), local.batch_size):
                chosen = order[first : first + local.batch_size]
                part = x[chosen]
                wrong = self._residual(part @ weight + bias, y[chosen]) / np.float32(len(chosen))
                weight -= local.rate * (part.T @ wrong + local.proximal * (weight - weights["weight"]))
                bias -= local.rate * (wrong.sum(axis=0) + local.proximal * (bias - weights["bias"]))
        return {"weight": weight, "bias": bias}

    def _residual(self, scores: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """The loss's slope in each score."""
        if not self.problem.labels:
            return np.asarray(scores - y[:, None], np.float32)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        scores[np.arange(len(y)), y] -= 1
        return np.asarray(scores, np.float32)

    def answer(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float64]:
        """Softmax of the scores, or the value."""
        scores = (x @ weights["weight"] + weights["bias"]).astype(np.float64)
        return softmax(scores) if self.problem.labels else scores[:, 0]


@dataclass(frozen=True)
class Net:
    """A network by name, trained by plain stochastic gradient descent."""

    problem: Problem
    name: str  # NAME[:key=value,…]
    seed: int = 0

    def start(self) -> Weights:
        """Public random weights, as `average` starts from."""
        return dict(network.initial(self.name, self.problem, self.seed))

    def train(self, weights: Weights, rows: Rows, local: Local, seed: tuple[int, ...]) -> Weights:
        """The network's weights after the client's epochs."""
        torch = network.torch_for("a multi-round rival")
        module = network.module_with(self.name, self.problem, weights)
        module.train()
        x, y = torch.from_numpy(np.ascontiguousarray(rows[0], np.float32)), torch.from_numpy(rows[1])
        given = [value.detach().clone() for value in module.parameters()]
        descent = torch.optim.SGD(module.parameters(), lr=local.rate)
        for epoch in range(local.epochs):
            order = torch.from_numpy(np.random.default_rng((*seed, epoch)).permutation(len(x)))
            for chosen in order.split(local.batch_size):
                if len(chosen) < 2 and len(x) > 1:
                    continue  # batch statistics need two rows
                scores = module(x[chosen])
                if self.problem.labels:
                    loss = torch.nn.functional.cross_entropy(scores, y[chosen])
                else:
                    loss = ((scores[:, 0] - y[chosen].float()) ** 2).mean() / 2
                if local.proximal:
                    moved = zip(module.parameters(), given, strict=True)
                    loss = loss + local.proximal / 2 * sum(((now - then) ** 2).sum() for now, then in moved)
                descent.zero_grad(set_to_none=True)
                loss.backward()
                descent.step()
        return dict(network.state(module))

    def answer(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float64]:
        """Softmax of the scores, or the value."""
        from fusionlearn import training

        module = network.module_with(self.name, self.problem, weights)
        scores = training.scores(module, np.asarray(x, np.float32))
        return softmax(scores) if self.problem.labels else np.asarray(scores[:, 0], np.float64)


# --- the server's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rival:
    """A multi-round algorithm and its settings."""

    algorithm: str = "fedavg"
    rounds: int = 50
    local: Local = field(default_factory=Local)
    server_rate: float = 0.1  # of FedAdam
    per_round: int = 0  # clients that take part in a round; 0: all

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise SettingsError(f"no algorithm is called '{self.algorithm}'; there are {', '.join(ALGORITHMS)}.")
        if self.rounds < 1:
            raise SettingsError(f"federated learning takes 1 or more rounds; got {self.rounds}.")


@dataclass
class Server:
    """The global weights, and what FedAdam remembers."""

    weights: Weights
    rival: Rival
    first: Weights = field(default_factory=dict)
    second: Weights = field(default_factory=dict)

    def step(self, change: Weights) -> None:
        """Move the weights by the clients' mean change, as the algorithm has it."""
        if self.rival.algorithm != "fedadam":
            self.weights = {name: value + change[name] for name, value in self.weights.items()}
            return
        for name, value in self.weights.items():
            self.first[name] = BETA1 * self.first.get(name, np.zeros_like(value)) + (1 - BETA1) * change[name]
            self.second[name] = BETA2 * self.second.get(name, np.zeros_like(value)) + (1 - BETA2) * change[name] ** 2
        self.weights = {
            name: value + self.rival.server_rate * self.first[name] / (np.sqrt(self.second[name]) + TAU)
            for name, value in self.weights.items()
        }


def mean_change(weights: Weights, trained: Sequence[Weights], counts: Sequence[int]) -> Weights:
    """Δ = Σ n_k (w_k − w) / Σ n_k."""
    shares = np.array(counts, np.float64) / sum(counts)
    return {
        name: np.tensordot(shares, np.stack([found[name] for found in trained]).astype(np.float64) - value, axes=1)
        for name, value in weights.items()
    }


@dataclass(frozen=True)
class Curve:
    """What a rival reached after each round, and what it cost by then."""

    value: tuple[float, ...]  # of the metric
    client_seconds: tuple[float, ...]  # processor time of all clients, from the start
    slowest: tuple[float, ...]  # of the slowest client in each round
    elapsed: float
    weights_bytes: int  # what travels one way, once
    taking_part: int  # clients in a round


def federate(
    learner: Learner,
    clients: Sequence[Rows],
    rival: Rival,
    judge: Callable[[NDArray[np.float64]], float],
    test: NDArray[Any],
    *,
    seed: int = 0,
    seen: Callable[[int, Weights, list[Weights]], None] | None = None,
) -> Curve:
    """Run a rival for its rounds.

    clients  features and labels of each client that has rows
    judge    the metric of answers on the test rows
    seen     is shown each round's number, the weights it began with and what the clients sent: what a server sees
    """
    server = Server(learner.start(), rival)
    rng = np.random.default_rng([seed, 0x726F])
    values: list[float] = []
    spent: list[float] = []
    slowest: list[float] = []
    total, began = 0.0, time.perf_counter()
    taking = min(len(clients), rival.per_round or len(clients))
    for number in range(rival.rounds):
        chosen = np.sort(rng.permutation(len(clients))[:taking])
        trained, seconds = [], []
        for client in chosen:
            at = time.process_time()
            local = (seed, number, int(client))
            trained.append(learner.train(server.weights, clients[client], rival.local, local))
            seconds.append(time.process_time() - at)
        if seen is not None:
            seen(number, server.weights, trained)
        server.step(mean_change(server.weights, trained, [len(clients[client][0]) for client in chosen]))
        server.weights = {name: value.astype(np.float32) for name, value in server.weights.items()}
        total += sum(seconds)
        spent.append(total)
        slowest.append(max(seconds))
        values.append(judge(np.nan_to_num(learner.answer(server.weights, test))))
    size = BYTES * sum(value.size for value in server.weights.values())
    return Curve(tuple(values), tuple(spent), tuple(slowest), time.perf_counter() - began, size, taking)
