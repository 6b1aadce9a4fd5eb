"""An ensemble of local models, heads or networks, each heard where it knows the class and the region.

Each client fits ridge regression on its own rows and sends the head with a diagonal Gaussian of its features and
its class counts. The fused model keeps every head. At a point x client k is heard in proportion to

    n_k · N(x; μ_k, σ²_k)^τ        times, for class c, the share n_kc / n_c of that class's rows it holds,

so a confident head that never saw a class, or nothing like x, has little say. It needs the set of updates, not
their sum: it shows what the additive methods save, and is a rival in every comparison.

With a `network` each client trains that, from the task's prior, and sends it in a byte a weight, with a Gaussian
mixture of the features of each of its classes. The fused model answers

    p(c | x)  ∝  (Σ_k s_kc · p_kc(x)^(τ/d) · p_k(c | x))³,        s_kc = n_kc / n_c,

where p_k compares only the classes that client k holds: it is heard about a class by its share of that class's rows
and where they lie. Features depend on one another, which the densities do not know, so all d of them are trusted like
τ. The scores of a network are divided by a temperature before they become p_k, the one that makes the answers of a
first network likeliest on rows that it was not shown (`held_out`).

Update
    class_count  (c,)   int64    rows of each class (all rows, for regression)
    weights      (d, c) float64  the local head on the encoded columns
    bias         (c,)   float64
    mean         (d,)   float64  of the client's features
    variance     (d,)   float64
    With a network, in the place of the last four:
    network.NAME  as the weights  int8     what the network moved, in multiples of scale.NAME; float32 for vectors
    scale.NAME    (channels,)     float32  one for each output channel
    temperature   ()              float32
    density.NAME  (m, …)                   m Gaussians of the features by class: class, weight, mean, variance
Model
    the same arrays, stacked over clients on a leading axis; with a network also
    start.NAME      as the weights  float32  what the networks moved from
    density.client  (M,)            int32    whose each Gaussian is: those of all clients follow one another
Cost     upload 8·(dc + 2c + 2d) bytes; client O(n·d² + d³); server nothing; predict K times one head. With a network
         1 byte a weight and 8·d a Gaussian; client twice epochs · n steps; predict K networks
Privacy  a head and moments of single clients: no bound on what one record changes. Gaussians speak of 25 rows or more,
         or of all rows of a class: a class of one row gives that row away
Source   Guha, Talwalkar, Smith, One-Shot Federated Learning, 2019; weighting by density: Jacobs, Jordan, Nowlan,
         Hinton, Adaptive Mixtures of Local Experts, 1991; temperature: Guo, Pleiss, Sun, Weinberger, On Calibration of
         Modern Neural Networks, 2017
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, averaging, coding, densities, heads, network, sums, training
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.method import Method, Moments
from fusionlearn.network import Weights
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem
from fusionlearn.training import Job

GRID = tuple(10.0 ** (step / 2) for step in range(-6, 3))  # λ / n: local heads see few rows, so none below 1e-3
LARGEST = 1e12  # of any entry of a head: beyond it a prediction overflows before it means anything
FLOOR = 1e-4  # least variance of a feature, as a share of the clients' mean variance
START = "start."
CLIENT = densities.PREFIX + "client"
TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / 2) for step in range(-4, 9))  # a quarter to sixteen
CALIBRATED = 20  # rows that a temperature is chosen on, at the least; else it is 1


@dataclass(frozen=True)
class _Tried:
    """A network's rows without some, and those."""

    job: Job
    seen: NDArray[np.bool_]  # (c,) classes that the job holds
    x: NDArray[Any]  # rows left out, of these classes
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Ensemble(Method):
    name: ClassVar[str] = "ensemble"
    LOCAL: ClassVar[tuple[str, ...]] = ("checkpoint",)
    START: ClassVar[tuple[str, ...]] = (network.PREFIX,)

    temper: float = 1.0  # how many independent features the density is trusted like; 0 ignores the region
    network: str = field(default="", metadata=LATER)  # NAME[:key=value,…] that each client trains; "": a ridge head
    components: int = field(default=4, metadata=LATER)  # with a network: Gaussians of the features of a class, at most
    held_out: float = field(default=0.2, metadata=LATER)  # share of rows that choose the temperature; 0: it is 1
    epochs: int = field(default=10, metadata=LATER)  # a network's passes over a client's rows
    batch_size: int = field(default=32, metadata=LATER)  # rows a step
    rate: float = field(default=0.05, metadata=LATER)  # learning rate of the first step; it falls along half a cosine
    momentum: float = field(default=0.9, metadata=LATER)  # share of the last step kept in the next
    decay: float = field(default=1e-4, metadata=LATER)  # share of each weight added to its gradient
    precision: Literal["float32", "bfloat16"] = field(default="float32", metadata=LATER)  # of products while training
    seed: int = field(default=0, metadata=LATER)  # public; of the weights to start from where the prior holds none

    def __post_init__(self) -> None:
        if self.temper < 0:
            raise SettingsError(f"ensemble: temper is {self.temper}; it may be 0 or more.")
        if not (1 <= self.components <= 1000 and 0 <= self.held_out <= 0.5):
            raise SettingsError("ensemble: components may be 1 to 1000, held_out 0 to 0.5.")
        if self.network:
            network.parse(self.network)
        self._training()

    @property
    def additive(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return False

    @property
    def pretrains(self) -> bool:
        return bool(self.network)

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        d, c = problem.num_features, problem.num_classes
        bound = problem.max_bound * (1 + 1e-9)
        counts = {"class_count": ArraySpec("int64", (c,), 0, problem.max_records)}
        if self.network:
            self._start(problem, prior)
            return {
                **counts,
                **coding.declare(network.shapes(self.network, problem)),
                "temperature": ArraySpec("float32", (), TEMPERATURES[0], TEMPERATURES[-1]),
                **densities.declare(c, self.components, problem.feature_bounds),
            }
        return {
            "weights": ArraySpec("float64", (d, c), -LARGEST, LARGEST),
            "bias": ArraySpec("float64", (c,), -LARGEST, LARGEST),
            **counts,
            "mean": ArraySpec("float64", (d,), -bound, bound),
            "variance": ArraySpec("float64", (d,), 0.0, bound**2),
        }

    def summarize(
        self,
        data: Data,
        problem: Problem,
        prior: Arrays,
        *,
        rng: np.random.Generator,
        local: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """`local["checkpoint"]` names a file to resume from when the training of a network is interrupted."""
        x, y = as_numpy(data["x"]), as_numpy(data["y"])
        if not self.network:
            if local:
                raise SettingsError("ensemble: heads have nothing to resume; leave the checkpoint out.")
            return self._head(x.astype(np.float64), y, problem)
        start, settings = self._start(problem, prior), self._training()
        job, tried = self._jobs(x, y, problem, rng)
        temperature = 1.0
        if tried:
            found = training.fit(self.network, problem, start, tried.job, settings)
            temperature = self._temperature(tried, found, problem)
        kept = training.checkpoint_of(local, "ensemble")
        learned = training.fit(self.network, problem, start, job, settings, checkpoint=kept)
        return self._summary(job, coding.encode(learned, start), temperature, problem, rng)

    def summarize_many(
        self, datasets: Sequence[Data], problem: Problem, prior: Arrays, *, rngs: Sequence[np.random.Generator]
    ) -> list[dict[str, Any]]:
        """Small networks of many clients in shared steps; others, and heads, one after another."""
        if not self.network:
            return super().summarize_many(datasets, problem, prior, rngs=rngs)
        start, settings = self._start(problem, prior), self._training()
        drawn = [
            self._jobs(as_numpy(data["x"]), as_numpy(data["y"]), problem, rng)
            for data, rng in zip(datasets, rngs, strict=True)
        ]
        tries = [tried for _, tried in drawn if tried]
        found = training.fit_many(self.network, problem, start, [tried.job for tried in tries], settings)
        chosen = iter([self._temperature(tried, one, problem) for tried, one in zip(tries, found, strict=True)])
        learned = training.fit_many(self.network, problem, start, [job for job, _ in drawn], settings)
        return [
            self._summary(job, coding.encode(one, start), next(chosen) if tried else 1.0, problem, rng)
            for (job, tried), one, rng in zip(drawn, learned, rngs, strict=True)
        ]

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
        names = self.declare(problem, prior)
        told = [name for name in names if name.startswith(densities.PREFIX)]
        model = {name: np.stack([summary[name] for summary in summaries]) for name in names if name not in told}
        if self.network:
            model |= {START + name: value for name, value in self._start(problem, prior).items()}
            model |= {name: np.concatenate([summary[name] for summary in summaries]) for name in told}
            several = [len(summary[densities.CLASS]) for summary in summaries]
            model[CLIENT] = np.repeat(np.arange(len(summaries), dtype=np.int32), several)
        counts = model["class_count"].sum(axis=0)
        if problem.labels and (counts > 0).sum() < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        absent = [problem.labels[k] for k in np.flatnonzero(counts == 0)] if problem.labels else []
        return model, {"records": int(counts.sum()), "heads": len(summaries), "absent_classes": absent}

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        x = np.asarray(data["x"], np.float64)
        scores = self._by_networks(model, x, problem) if self.network else self._by_heads(model, x, problem)
        if not problem.labels:
            return {"value": scores[:, 0]}
        total = scores.sum(axis=1, keepdims=True)
        return {"probability": np.where(total > 0, scores / np.maximum(total, 1e-300), 1.0 / problem.num_classes)}

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        arrays.check(summary, self.declare(problem, prior), place)
        rows = int(summary["class_count"].sum())
        if not 1 <= rows <= problem.max_records:
            raise UpdateError(f"{place} speaks of {rows} rows, the task allows 1 to {problem.max_records}.")
        if self.network:
            densities.check(summary, summary["class_count"], problem.feature_bounds, place)

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """The network trained on labelled public rows; nothing for ridge heads."""
        if not self.network:
            return {}
        start = self._start(problem, prior)
        return training.pretrained(self.network, problem, start, data, self._training(), rng)

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        counts = summary["class_count"]
        rows = float(counts.sum())
        if self.network:
            mean, square = densities.moments(densities.decode(summary, counts))
        else:
            mean, square = summary["mean"], summary["variance"] + summary["mean"] ** 2
        second = rows * np.concatenate([[1.0], square])
        return Moments(rows, counts.astype(float) if problem.labels else None, mean, second)

    # --- heads ---

    def _head(self, x: NDArray[np.float64], y: NDArray[Any], problem: Problem) -> dict[str, NDArray[Any]]:
        """A client's ridge head, and where its rows lie."""
        counts = np.bincount(y, minlength=problem.num_classes) if problem.labels else np.array([len(y)])
        weights, bias = heads.of_rows(x, y, problem, GRID)
        return {
            "weights": weights,
            "bias": bias,
            "class_count": counts.astype(np.int64),
            "mean": x.mean(axis=0),
            "variance": x.var(axis=0),
        }

    def _by_heads(self, model: Arrays, x: NDArray[np.float64], problem: Problem) -> NDArray[np.float64]:
        """What the heads say together: (n, c) to be normalised, or values (n, 1)."""
        counts = model["class_count"].astype(float)
        heard = self._heard(model, x, counts.sum(axis=1))  # (K, n)
        scores = np.zeros((len(x), problem.num_classes))
        said = np.zeros_like(scores)
        for k in range(len(counts)):
            head = x @ model["weights"][k] + model["bias"][k]
            if problem.labels:
                voice = heard[k][:, None] * counts[k]  # n_kc for n_kc / n_c: `said` divides by n_c alike
                scores += voice * sums.to_simplex(head)
                said += voice
            else:
                scores += heard[k][:, None] * head
        return scores / np.maximum(said, 1e-300) if problem.labels else scores

    def _heard(self, model: Arrays, x: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much each client is heard at each point: (K, n), columns sum to 1."""
        spread = np.average(model["variance"], axis=0, weights=rows)
        log_heard = np.repeat(np.log(rows)[:, None], len(x), axis=1)
        for k in range(len(rows)):
            variance = np.maximum(model["variance"][k], FLOOR * spread)
            used = variance > 0
            distance = (x[:, used] - model["mean"][k][used]) ** 2 / variance[used] + np.log(variance[used])
            if used.any():
                log_heard[k] -= 0.5 * self.temper * distance.mean(axis=1)
        powers = np.exp(log_heard - log_heard.max(axis=0))
        return np.asarray(powers / powers.sum(axis=0))

    # --- networks ---

    def _start(self, problem: Problem, prior: Arrays) -> Weights:
        return network.start(self.network, problem, prior, self.seed)

    def _training(self) -> training.Training:
        return training.Training(self.epochs, self.batch_size, self.rate, self.momentum, self.decay, self.precision)

    def _jobs(
        self, x: NDArray[Any], y: NDArray[Any], problem: Problem, rng: np.random.Generator
    ) -> tuple[Job, _Tried | None]:
        """What a client's network learns from; and some of its rows without the others, where they are enough."""
        job = Job(x, y, int(rng.integers(2**31)), averaging.seen(y, problem))
        back, kept = np.split(rng.permutation(len(y)), [int(self.held_out * len(y))])
        seen = averaging.seen(y[kept], problem)
        if seen is None or seen.sum() < 2:
            return job, None
        back = back[seen[y[back]]]
        if len(back) < CALIBRATED:
            return job, None
        return job, _Tried(Job(x[kept], y[kept], int(rng.integers(2**31)), seen), seen, x[back], y[back])

    def _temperature(self, tried: _Tried, learned: Weights, problem: Problem) -> float:
        """The temperature under which a network makes rows likeliest that it has not seen."""
        scores = _compared(training.scores_of(self.network, problem, learned, tried.x), tried.seen)

        def wrong(temperature: float) -> float:
            likely = sums.softmax(scores / temperature)[np.arange(len(tried.y)), tried.y]
            return float(-np.log(np.maximum(likely, 1e-12)).mean())

        return min(TEMPERATURES, key=wrong)

    def _summary(
        self, job: Job, coded: Mapping[str, Any], temperature: float, problem: Problem, rng: np.random.Generator
    ) -> dict[str, Any]:
        codes = job.targets if problem.labels else np.zeros(len(job.targets), np.int64)
        return {
            "class_count": np.bincount(codes, minlength=problem.num_classes).astype(np.int64),
            **coded,
            "temperature": np.asarray(temperature, np.float32),
            **densities.encode(job.x, codes, self.components, rng=rng),
        }

    def _by_networks(self, model: Arrays, x: NDArray[np.float64], problem: Problem) -> NDArray[np.float64]:
        """What the networks say together: probabilities (n, c), or values (n, 1)."""
        told = [name for name in model if name.startswith(densities.PREFIX) and name != CLIENT]
        clients = [
            densities.decode({name: model[name][model[CLIENT] == k] for name in told}, count)
            for k, count in enumerate(model["class_count"])
        ]
        return densities.together(clients, self._said(model, x, problem), x, self.temper)

    def _said(self, model: Arrays, x: NDArray[np.float64], problem: Problem) -> Iterator[NDArray[np.float64]]:
        """What each network says by itself: probabilities (n, c) of the classes its client holds, or values (n, 1)."""
        start = {name: model[START + name] for name in network.shapes(self.network, problem)}
        coded = [name for name in model if name.startswith((network.PREFIX, coding.SCALE))]
        for k, count in enumerate(model["class_count"]):
            sent = network.named(coding.decode({name: model[name][k] for name in coded}, start))
            learned = network.weights_of(sent, self.network, problem, "the model")
            said = training.scores_of(self.network, problem, learned, x)
            yield sums.softmax(_compared(said, count > 0) / model["temperature"][k]) if problem.labels else said


def _compared(scores: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores (n, c) of the classes seen; the others are out of the question."""
    return np.where(seen, scores, training.CLOSED)
