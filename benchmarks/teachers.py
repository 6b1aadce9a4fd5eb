"""What a teacher would take to send, and what is left of it when it is cut to a student's bytes.

The controls of benchmarks/distill.py and benchmarks/distill_frozen.py: a round in which clients send their teachers,
cut until they are as small as a student, and the server keeps them all as an ensemble.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import network, teacher, training
from fusionlearn.methods.forest import Forest
from fusionlearn.problem import Problem
from fusionlearn.sums import softmax
from fusionlearn.teacher import Taught, Teacher

A_MOVE = 3  # bytes of a weight that is kept: one for its value, two for how many were left out before it

Parts = Sequence[NDArray[np.int64]]


@dataclasses.dataclass(frozen=True)
class Remembered(Teacher):
    """A teacher that does not learn the same rows twice, so that every way to teach gets the same teacher."""

    of: Teacher
    seed: int
    known: dict[str, Taught] = dataclasses.field(default_factory=dict)

    def fit(self, x: Any, y: Any, problem: Problem, *, rng: Any) -> Taught:  # noqa: ARG002
        """What was learned of these rows before, or now."""
        name = hashlib.sha256(np.ascontiguousarray(x).tobytes() + np.ascontiguousarray(y).tobytes()).hexdigest()
        if name not in self.known:
            self.known[name] = self.of.fit(x, y, problem, rng=np.random.default_rng(self.seed))
        return self.known[name]


@dataclasses.dataclass(frozen=True)
class Silent(Teacher):
    """No teacher, for students who learn from labels alone."""

    def fit(self, x: Any, y: Any, problem: Problem, *, rng: Any) -> Taught:  # noqa: ARG002
        """Nothing is learned: every class is as likely as the others."""
        return Taught(lambda rows: np.full((len(rows), problem.num_classes), 1 / problem.num_classes), 0)


def num_bytes(taught: Taught) -> int:
    """Bytes of the arrays of a trained teacher as a safetensors file."""
    from safetensors.numpy import save

    return len(save(arrays_of(taught)))


def arrays_of(taught: Taught) -> dict[str, NDArray[Any]]:
    """The arrays a teacher's answers stand on."""
    made_of = inspect.getclosurevars(taught.answer).nonlocals
    if "learned" in made_of:
        return dict(made_of["learned"])
    if "forest" in made_of:
        trees = [tree.tree_ for tree in made_of["forest"].estimators_]
        names = {"feature": np.int32, "threshold": np.float32, "children_left": np.int32, "children_right": np.int32}
        found = {name: np.concatenate([getattr(tree, name) for tree in trees]).astype(to) for name, to in names.items()}
        return found | {"value": np.concatenate([tree.value[:, 0] for tree in trees]).astype(np.float32)}
    if "boosted" in made_of:
        trees = [tree.nodes for one in made_of["boosted"]._predictors for tree in one]
        names = {"value": np.float32, "feature_idx": np.int32, "num_threshold": np.float32, "left": np.int32,
                 "right": np.int32}  # fmt: skip
        return {name: np.concatenate([nodes[name] for nodes in trees]).astype(to) for name, to in names.items()}
    return {"row": np.asarray(made_of["row"], np.float64)}  # of a client with one class


def in_int8(taught: Taught, problem: Problem, text: str) -> tuple[Taught, int]:
    """A network in a byte a weight and a scale a channel, and the bytes that takes; other teachers as they are."""
    state = _weights(taught)
    if state is None:
        return taught, num_bytes(taught)
    weights, size = {}, 0
    for name, value in state.items():
        weights[name], size = value, size + 4 * len(value)
        if value.ndim > 1:
            flat = value.reshape(len(value), -1)
            scale = np.maximum(np.abs(flat).max(axis=1, keepdims=True), 1e-30) / 127
            weights[name], size = (np.rint(flat / scale) * scale).reshape(value.shape), size + value.size
    return _answering(text, weights, problem), size


def cut(
    taught: Taught, problem: Problem, text: str, seed: int | Sequence[int], size: int, x: NDArray[Any]
) -> tuple[Taught, int]:
    """A network's largest weights, or the largest moves from where its seed started it, in int8: what `size` holds.

    Of the two it is the one that agrees more with the teacher on the client's own rows x. Teachers of one class have
    nothing to cut.
    """
    state = _weights(taught)
    if state is None:
        return taught, num_bytes(taught)
    matrices = [name for name, value in state.items() if value.ndim > 1]
    vectors = sum(4 * value.size for name, value in state.items() if name not in matrices)
    channels = sum(4 * len(state[name]) for name in matrices)
    count = max(0, (size - vectors - channels) // A_MOVE)
    own = taught.answer(x).argmax(axis=1)
    blank = {name: np.zeros_like(value) for name, value in state.items()}
    found = []
    for start in (blank, network.initial(text, problem, int(np.random.default_rng(seed).integers(2**31)))):
        kept = dict(state)
        moves = {name: state[name] - start[name] for name in matrices}
        every = np.concatenate([np.abs(moves[name]).ravel() for name in matrices])
        least = np.partition(every, -count)[-count] if 0 < count < every.size else (np.inf if count == 0 else 0.0)
        for name, move in moves.items():
            flat = np.where(np.abs(move) >= least, move, 0).reshape(len(move), -1)
            scale = np.maximum(np.abs(flat).max(axis=1, keepdims=True), 1e-30) / 127
            kept[name] = (start[name] + (np.rint(flat / scale) * scale).reshape(move.shape)).astype(np.float32)
        one = _answering(text, kept, problem)
        found.append((float((one.answer(x).argmax(axis=1) == own).mean()), one))
    return max(found, key=lambda pair: pair[0])[1], vectors + channels + A_MOVE * count


def smaller_forest(problem: Problem, size: int) -> Forest:
    """The forest of the product that fits into so many bytes: as many trees of 16 leaves, or one with fewer."""
    node = 24 + 4 * problem.num_classes
    for leaves in (16, 8, 4, 2):
        trees = size // ((2 * leaves - 1) * node)
        if trees >= 1:
            return Forest(trees=int(min(trees, 100)), max_leaves=leaves)
    return Forest(trees=1, max_leaves=2)


def together(answers: Sequence[NDArray[Any]], counts: NDArray[Any]) -> NDArray[np.float64]:
    """What several models say, each heard by its share of a class's rows; counts (clients, classes)."""
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    return np.asarray(sum(share * answer for share, answer in zip(shares, answers, strict=True)))


def chosen(
    names: Sequence[str], x: NDArray[Any], y: NDArray[Any], parts: Parts, problem: Problem
) -> tuple[str, Mapping[str, float]]:
    """The most accurate teacher on a fifth of each client's rows, held out, all clients' rows together."""
    scores: dict[str, list[bool]] = {name: [] for name in names}
    for rows in parts:
        rows = np.random.default_rng(0).permutation(rows)
        back, kept = rows[: len(rows) // 5], rows[len(rows) // 5 :]
        for name in names:
            taught = teacher.parse(name).fit(x[kept], y[kept], problem, rng=np.random.default_rng(0))
            scores[name] += (taught.answer(x[back]).argmax(axis=1) == y[back]).tolist()
    means = {name: round(float(np.mean(right)), 4) for name, right in scores.items()}
    return max(means, key=lambda name: means[name]), means


def network_of(name: str) -> str:
    """The network that a teacher's name asks for, empty for trees."""
    return str(getattr(teacher.parse(name), "network", ""))


def _weights(taught: Taught) -> network.Weights | None:
    found: network.Weights | None = inspect.getclosurevars(taught.answer).nonlocals.get("learned")
    return found


def _answering(text: str, weights: network.Weights, problem: Problem) -> Taught:
    return Taught(lambda rows: softmax(training.scores_of(text, problem, weights, rows)), 0)
