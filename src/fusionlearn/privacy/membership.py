"""Membership inference, measured: how well whoever sees what a server sees can tell who is in it.

A client's rows are halved: one half learns, the other is kept out, so that members and outsiders are of the very same
kind and only membership tells them apart. Every row of both halves gets a score, low for "member". What a server sees
of a client is attacked in two ways on either side, and the better one counts:

    one-shot      the leverage of a row in the second moments the update holds (where it holds any), and the loss of
                  the model that the update alone makes
    many rounds   by how much the client's training lowered a row's loss, summed over all rounds, and the loss under
                  the client's last upload

These need no shadow models and no other data; an attacker with both may do better, on either side. AUC 0.5 is
guessing and 1 is certainty. Scores of several clients are ranked within each client, then put together.

Source  Yeom, Giacomelli, Fredrikson, Jha, Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting,
        2018 (loss); Nasr, Shokri, Houmansadr, Comprehensive Privacy Analysis of Deep Learning, 2019 (over the rounds)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.fixed import one_blas_thread
from fusionlearn.privacy.leakage import Attack, attack

OUTSIDE = 1e6  # score of a direction that no member shows: it cannot be a member's
LEAST = 10  # rows of each half below which a client tells nothing

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]  # of members, of outsiders; low says "member"


@dataclass(frozen=True)
class Measured:
    """The best of the attacks that were tried."""

    attack: str  # its name
    auc: float
    low: float  # 95 % interval
    high: float
    found: float  # share of members found at 1 % false alarms
    clients: int
    tried: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.auc:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass
class Seen:
    """Scores of one attack after another, client by client."""

    scores: dict[str, list[Scores]] = field(default_factory=dict)

    def add(self, name: str, members: NDArray[np.float64], outsiders: NDArray[np.float64]) -> None:
        """One client's scores under one attack; values that are no numbers count as the least telling."""
        both = np.concatenate([members, outsiders])
        finite = both[np.isfinite(both)]
        middle = float(np.median(finite)) if len(finite) else 0.0
        clean = [np.nan_to_num(part, nan=middle, posinf=np.inf, neginf=-np.inf) for part in (members, outsiders)]
        self.scores.setdefault(name, []).append((clean[0], clean[1]))

    def best(self) -> Measured | None:
        """The attack with the largest AUC; None when no client told anything."""
        if not self.scores:
            return None
        found = {name: together(scores) for name, scores in self.scores.items()}
        name = max(found, key=lambda one: found[one].auc)
        chosen = found[name]
        clients = len(self.scores[name])
        return Measured(name, chosen.auc, chosen.low, chosen.high, chosen.found, clients, tuple(found))


def together(scores: Sequence[Scores]) -> Attack:
    """AUC, interval and members found over several clients, each row ranked among its own client's."""
    members, outsiders = [], []
    for inside, outside in scores:
        both = np.concatenate([inside, outside])
        order = np.sort(both)
        rank = (np.searchsorted(order, both, "left") + np.searchsorted(order, both, "right")) / (2 * len(both))
        members.append(rank[: len(inside)])
        outsiders.append(rank[len(inside) :])
    return attack(np.concatenate(members), np.concatenate(outsiders))


def halves(part: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """A client's rows in two halves, one to learn from and one to keep out; None where there are too few."""
    if len(part) < 2 * LEAST:
        return None
    order = rng.permutation(part)
    cut = len(part) // 2
    return np.sort(order[:cut]), np.sort(order[cut : 2 * cut])


def leverage(gram: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """zᵀG⁺z of each row z = [1 x], and much more where z has a direction that no row behind G shows.

    gram  (d+1, d+1) second moments, or (d+1,) their diagonal
    x     (m, d)
    """
    z = np.hstack([np.ones((len(x), 1)), x.astype(np.float64)])
    if gram.ndim == 1:
        shown = np.where(gram > 0, z**2 / np.where(gram > 0, gram, 1.0), 0.0).sum(axis=1)
        return np.asarray(shown + OUTSIDE * ((gram <= 0) & (z != 0)).sum(axis=1))
    scale = np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1.0))
    with one_blas_thread():
        values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    used = values > max(values.max(), 0.0) * 1e-9
    turned = (z / scale) @ vectors
    inside = (turned[:, used] ** 2 / values[used]).sum(axis=1)
    length = np.maximum((turned**2).sum(axis=1), 1e-12)
    beyond = (turned[:, ~used] ** 2).sum(axis=1) / length
    return np.asarray(inside + OUTSIDE * np.where(beyond > 1e-8, beyond, 0.0))


def loss(answers: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.float64]:
    """Each row's loss: minus the log of its class' probability (m, c), or the squared error of values (m,)."""
    if answers.ndim == 1:
        return np.asarray((answers - y) ** 2)
    return np.asarray(-np.log(np.clip(answers[np.arange(len(y)), y.astype(int)], 1e-12, None)))


@dataclass
class Rounds:
    """What a server sees of one client over many rounds, as two scores for each row."""

    answer: Callable[[Any, NDArray[Any]], NDArray[np.float64]]  # a learner's
    members: tuple[NDArray[Any], NDArray[Any]]  # x, y
    outsiders: tuple[NDArray[Any], NDArray[Any]]
    drop: list[NDArray[np.float64]] = field(default_factory=list)
    last: list[NDArray[np.float64]] = field(default_factory=list)

    def see(self, before: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """One round: the global weights, and what the client made of them."""
        after = [loss(self.answer(sent, x), y) for x, y in (self.members, self.outsiders)]
        then = [loss(self.answer(before, x), y) for x, y in (self.members, self.outsiders)]
        change = [now - old for now, old in zip(after, then, strict=True)]
        self.drop = change if not self.drop else [old + new for old, new in zip(self.drop, change, strict=True)]
        self.last = after

    def tell(self, seen: Seen) -> None:
        """Both attacks' scores."""
        seen.add("loss lowered over the rounds", self.drop[0], self.drop[1])
        seen.add("loss under the last upload", self.last[0], self.last[1])
