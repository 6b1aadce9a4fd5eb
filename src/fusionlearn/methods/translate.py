"""Texts answered with texts: transformers trained from one start, and fused in one contact.

Every client teaches the task's network on its own pairs of texts, from the weights in the task's prior (pre-trained on
public pairs, see `fusionlearn pretrain`), and sends what they moved in a byte a weight. The server fuses:

    mean      w₀ + step · Σ n_k (w_k − w₀) / Σ n_k: one network
    pieces    the same, but the row of each piece, which is read and written by it, by how often client k has that
              piece: who never saw a word has learned nothing about it but not to say it
    ensemble  all networks are kept; the probabilities of each next piece are averaged. As many times the size and the
              computation as there are clients
    experts   the same, but each text is answered mostly by those whose texts are like it: client k weighs
              (n_k Π p_k(piece))^sharpness over the pieces of the text read, p_k from its counts of pieces, which is
              naive Bayes asked where the text might come from, and less sure of itself

Before the texts the encoder 'subwords' makes numbers of pieces of them, and texts of the answers.

Update
    network.NAME  as the weights  int8     what the network moved, in multiples of scale.NAME; float32 for vectors
    scale.NAME    (channels,)     float32  one for each output channel
    count         ()              int64    rows
    piece_count   (size,)         int64    how often each piece occurs; with fusing "pieces" and "experts"
Model
    network.NAME  as the weights  float32; with fusing "ensemble" and "experts" one for each client, on
                              a leading axis
    count         (clients,)      int64    with fusing "experts"; rows of each client
    piece_count   (clients, size) int64    with fusing "experts"
Cost     upload 1 byte a weight; client epochs · n forward and backward passes; server nothing
Privacy  weights remember texts: no bound on what one record changes. Counts of pieces tell which words a client has
Source   McMahan, Moore, Ramage, Hampson, Agüera y Arcas, Communication-Efficient Learning of Deep Networks from
         Decentralized Data, 2017; one round of it: Guha, Talwalkar, Smith, One-Shot Federated Learning, 2019; the step:
         Ilharco et al., Editing Models with Task Arithmetic, 2023
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import coding, network, training, translation
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.errors import SettingsError
from fusionlearn.method import Method, Moments
from fusionlearn.network import HEAD, Weights
from fusionlearn.problem import FIRST_PIECE, Problem

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Translate(Method):
    name: ClassVar[str] = "translate"
    LOCAL: ClassVar[tuple[str, ...]] = ("checkpoint",)
    START: ClassVar[tuple[str, ...]] = (network.PREFIX,)
    TEXTS: ClassVar[bool] = True

    network: str = "seq2seq"  # NAME[:key=value,…]; one that reads and writes pieces
    fusing: Literal["mean", "pieces", "ensemble", "experts"] = "mean"  # see above
    step: float = 1.0  # times what the clients moved on average, from the start; for one network
    sharpness: float = 0.3  # of "experts": 0 hears all clients alike, 1 trusts naive Bayes
    epochs: int = 3  # passes over a client's rows
    batch_size: int = 64  # texts a step
    rate: float = 5e-4  # the highest learning rate, Adam's
    warmup: int = 50  # steps while the rate rises, at most half of all; then it falls along half a cosine
    smoothing: float = 0.1  # share of the loss spread over all pieces
    beam: int = 4  # beginnings kept side by side while answering; 1: the best piece each time
    seed: int = 0  # public; of the weights to start from where the task's prior holds none

    def __post_init__(self) -> None:
        network.parse(self.network)
        self._schedule()
        if not 0 < self.step <= 10:
            raise SettingsError(f"translate: step is {self.step}; it may be above 0, to 10.")
        if not 0 <= self.sharpness <= 10:
            raise SettingsError(f"translate: sharpness is {self.sharpness}; it may be 0 to 10.")
        if not 1 <= self.beam <= 64:
            raise SettingsError(f"translate: beam is {self.beam}; it may be 1 to 64.")

    @property
    def additive(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return False

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        if problem.kind != "text" or problem.num_classes <= FIRST_PIECE:
            raise SettingsError("translate: the label must be text, and the encoder 'subwords' must make pieces of it.")
        self._start(problem, prior)
        counts = {"count": ArraySpec("int64", (), 1, problem.max_records)}
        if self.fusing in ("pieces", "experts"):
            most = problem.max_records * problem.num_features * 2
            counts["piece_count"] = ArraySpec("int64", (problem.num_classes,), 0, most)
        return counts | coding.declare(network.shapes(self.network, problem))

    def summarize(
        self,
        data: Data,
        problem: Problem,
        prior: Arrays,
        *,
        rng: np.random.Generator,
        local: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """`local["checkpoint"]` names a file to resume from when training is interrupted."""
        source, target = _numbers(data["x"]), _numbers(data["y"])
        start = self._start(problem, prior)
        kept = training.checkpoint_of(local, "translate")
        summary: dict[str, Any] = {"count": np.asarray(len(source), np.int64)}
        if self.fusing in ("pieces", "experts"):
            summary["piece_count"] = sum(
                np.bincount(part.reshape(-1), minlength=problem.num_classes) for part in (source, target)
            )
        moved = self._trained(start, source, target, problem, int(rng.integers(2**31)), kept)
        return summary | coding.encode(moved, start)

    def fuse(
        self,
        summaries: Sequence[Arrays],
        problem: Problem,
        prior: Arrays,
        *,
        public: Data | None = None,
        noise_std: float = 0.0,
        rng: np.random.Generator,
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        start = self._start(problem, prior)
        networks = [coding.decode(summary, start) for summary in summaries]
        findings = {"records": int(sum(int(summary["count"]) for summary in summaries))}
        if self.fusing in ("ensemble", "experts"):
            kept = network.named({name: np.stack([one[name] for one in networks]) for name in start})
            told = ("count", "piece_count") if self.fusing == "experts" else ()
            return kept | {name: np.stack([summary[name] for summary in summaries]) for name in told}, findings
        return network.named(self._mean(networks, summaries, start)), findings

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        modules = [network.module_with(self.network, problem, weights) for weights in self._networks(model, problem)]
        numbers = _numbers(data["x"])
        trust = self._trust(model, numbers, problem) if self.fusing == "experts" else None
        return {"piece": translation.write(modules, numbers, problem.num_features, beam=self.beam, trust=trust)}

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """The network trained on public pairs of texts."""
        source, target, seed = _numbers(data["x"]), _numbers(data["y"]), int(rng.integers(2**31))
        return network.named(self._trained(self._start(problem, prior), source, target, problem, seed, None))

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        return Moments(float(summary["count"]), None, None, None)

    def _schedule(self) -> translation.Schedule:
        return translation.Schedule(self.epochs, self.batch_size, self.rate, self.warmup, self.smoothing)

    def _start(self, problem: Problem, prior: Arrays) -> Weights:
        return network.start(self.network, problem, prior, self.seed)

    def _trained(
        self, start: Weights, source: Numbers, target: Numbers, problem: Problem, seed: int, checkpoint: Any
    ) -> Weights:
        module = network.module_with(self.network, problem, start)
        translation.fit(module, source, target, self._schedule(), seed=seed, checkpoint=checkpoint)
        return network.state(module)

    def _mean(self, networks: Sequence[Weights], summaries: Sequence[Arrays], start: Weights) -> Weights:
        """One network: what they moved, averaged by rows or, in the head, by pieces."""
        counts = np.array([int(summary["count"]) for summary in summaries], np.float64)
        fused: Weights = {}
        for name, first in start.items():
            share = counts
            if self.fusing == "pieces" and name.startswith(HEAD):
                share = np.stack([summary["piece_count"] for summary in summaries]).astype(np.float64)
            total = share.sum(axis=0)
            moved = np.zeros(first.shape)
            for one, weight in zip(networks, share / np.maximum(total, 1.0), strict=True):
                moved += (one[name] - first) * np.reshape(weight, (*np.shape(weight), *[1] * (first.ndim - 1)))
            fused[name] = (first + self.step * moved).astype(np.float32)
        return fused

    def _networks(self, model: Arrays, problem: Problem) -> list[Weights]:
        """The networks of a model, checked. Errors: SettingsError."""
        if self.fusing in ("mean", "pieces"):
            return [network.weights_of(model, self.network, problem, "the model")]
        stacked = {name: array for name, array in model.items() if name.startswith(network.PREFIX)}
        return [
            network.weights_of({name: array[k] for name, array in stacked.items()}, self.network, problem, "the model")
            for k in range(min((len(array) for array in stacked.values()), default=0))
        ]

    def _trust(self, model: Arrays, numbers: Numbers, problem: Problem) -> NDArray[np.float64]:
        """(n, clients) how much each client's network is heard for each text, rows that sum to 1."""
        counts = np.asarray(model["piece_count"], np.float64) + 1.0  # no piece is impossible anywhere
        chances = np.log(counts / counts.sum(axis=1, keepdims=True))
        chances[:, :FIRST_PIECE] = 0.0  # beginnings and ends tell nothing
        found = chances[:, numbers].sum(axis=2).T + np.log(np.maximum(model["count"], 1))
        found = self.sharpness * (found - found.max(axis=1, keepdims=True))
        weights = np.exp(found)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _numbers(cells: Any) -> Numbers:
    return np.asarray(as_numpy(cells), np.int64)
