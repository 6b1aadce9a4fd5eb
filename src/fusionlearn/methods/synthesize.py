"""Synthesis: every client describes how its rows of each class lie; the server draws rows from all and trains on them.

A client fits Gaussians to the features of each of its classes and sends them with the classes' counts. The server draws
synthetic rows, of each class as many as the counts of all clients together say, of each client its share, and trains
whatever model the task names: a linear head, or a network of any size, which no client has to train or to send. A
Gaussian N(μ, Σ) has

    Σ = diag(σ²) + FᵀF

with F the `rank` directions in which the rows vary most (low_rank), the same Σ for all classes of a client (shared), or
no F at all (diagonal). A class's own Σ is averaged with the client's shared one, which counts as BORROWED rows. For
regression the features and the label are described together, as one class.

A Gaussian speaks of at least `min_rows` rows. A class with fewer gets the client's shared Σ, taken from its other
classes alone, and as mean a point drawn from the Gaussian with that Σ about the rows' own mean: they are known no
better than one more row of their class would tell. In columns that never change in the other classes it gets their
value. Where no class has enough rows, σ is a quarter of each column's bound.

Update (M Gaussians; D columns: the features, for regression also the label; each divided by its bound)
    class_count      (c,)       int64    rows of each class; for regression all rows
    component_class  (M,)       int32    the class a Gaussian belongs to
    weight           (M,)       float16  its share of the class's rows
    mean             (M, D)     float32  μ
    deviation        (M, D)     float16  σ; (D,) for shared
    factor           (M, r, D)  float16  F; (r, D) for shared; not for diagonal
Model
    weights  (d, c) float64, bias (c,) float64    of a linear head on the encoded columns
    network.NAME  as the weights  float32         of a network
Cost     upload 2·D·(3 + r) bytes a Gaussian; client O(n·d·(d + components)); server one training on `samples` rows
Privacy  moments of few rows speak of few people: `min_rows` is the least; a smaller class is blurred, by noise drawn
         from `rng` and the client's rows: a guess of all of them can be checked; no bound on what one record changes
Source   Kasturi, Ellore, Hota, Fusion Learning: A One Shot Federated Learning, 2020; Gaussian mixtures of features:
         Beitollahi et al., Parametric Feature Transfer: One-shot Federated Learning with Foundation Models, 2024
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, averaging, heads, logistic, mixture, network, sums, training
from fusionlearn.arrays import Arrays, ArraySpec, Data, UpTo, as_numpy
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import one_blas_thread
from fusionlearn.method import Method, Moments
from fusionlearn.mixture import Matrix
from fusionlearn.problem import Problem

HEADS = ("ridge", "logistic")  # students in closed form; any other is a network
BORROWED = 10.0  # rows of the client's shared covariance that a Gaussian's own is averaged with
FLOOR = 1e-3  # least variance, as a share of the column's at the client
QUARTER = 0.25  # deviation of a column of which a client knows nothing, as a share of its bound
LEAST = 20  # synthetic rows of a class that anybody holds
SLACK = 2e-2  # what rounding to float16 may do to a sum of weights or squares


@dataclass(frozen=True)
class Synthesize(Method):
    name: ClassVar[str] = "synthesize"
    START: ClassVar[tuple[str, ...]] = (network.PREFIX,)

    student: str = "logistic"  # what is trained: ridge, logistic, or a network as NAME[:key=value,…]
    covariance: Literal["low_rank", "shared", "diagonal"] = "low_rank"  # of a Gaussian; see above
    components: int = 1  # Gaussians of a class, at most
    rank: int = 8  # directions of a covariance; 0: as many as the task's max_bytes allows
    min_rows: int = 5  # the least rows a Gaussian speaks of
    samples: int = 10_000  # synthetic rows, of all classes together
    epochs: int = 10  # a network's passes over them
    batch_size: int = 32  # rows a step
    rate: float = 0.05  # learning rate of the first step; it falls along half a cosine
    momentum: float = 0.9  # share of the last step kept in the next
    decay: float = 1e-4  # share of each weight added to its gradient, of networks and of logistic
    seed: int = 0  # public; of the weights a network starts from where the task's prior holds none

    def __post_init__(self) -> None:
        if self.student not in HEADS:
            network.parse(self.student)
        self._training()
        if not (1 <= self.components <= 1000 and 0 <= self.rank <= 2**16 and 1 <= self.min_rows <= 2**20):
            raise SettingsError("synthesize: components may be 1 to 1000, rank 0 to 65536, min_rows 1 to 1048576.")
        if not (1 <= self.samples <= 2**24 and self.decay > 0):
            raise SettingsError("synthesize: samples may be 1 to 16777216, decay must be above 0.")

    @property
    def additive(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return False

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str]:
        if self.student in HEADS:
            return "linear", "softmax" if self.student == "logistic" else ""
        return "network", self.student

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        if not problem.labels and self.student == "logistic":
            raise SettingsError(
                "synthesize: the student 'logistic' tells classes apart; for a number as label use 'ridge' or a "
                "network."
            )
        if self.student not in HEADS:
            self._start(problem, prior)
        if self.rank == 0 and self.covariance != "diagonal":
            raise SettingsError(
                "synthesize: rank = 0 asks for as many directions as max_bytes allows, and the task has no max_bytes: "
                "set one of them."
            )
        columns, rank = _columns(problem), min(self.rank, _columns(problem))
        several: tuple[UpTo, ...] = (UpTo(problem.num_classes * self.components),)
        own = () if self.covariance == "shared" else several
        specs = {
            "class_count": ArraySpec("int64", (problem.num_classes,), 0, problem.max_records),
            "component_class": ArraySpec("int32", several, 0, problem.num_classes - 1),
            "weight": ArraySpec("float16", several, 0.0, 1.0),
            "mean": ArraySpec("float32", (*several, columns), -1.0, 1.0),
            "deviation": ArraySpec("float16", (*own, columns), 0.0, 1.0),
        }
        if self.covariance != "diagonal":
            specs["factor"] = ArraySpec("float16", (*own, rank, columns), -1.0, 1.0)
        return specs

    def within(self, problem: Problem, prior: Arrays, max_bytes: int) -> Synthesize:
        """With rank 0 and a limit on the upload: the most directions that fit."""
        if self.rank or self.covariance == "diagonal":
            return self

        def size(**sizes: Any) -> int:
            specs = dataclasses.replace(self, rank=1, **sizes).declare(problem, prior)
            return sum(spec.max_bytes for spec in specs.values())

        one = size()
        if one > max_bytes:
            others = {"shared": size(covariance="shared"), "diagonal": size(covariance="diagonal")}
            smaller = [f", {least} with covariance '{name}'" for name, least in others.items() if least < one]
            raise SettingsError(
                f"an update of 'synthesize' with {problem.num_features} features takes {one} bytes with rank 1"
                f"{''.join(smaller)}, and max_bytes leaves {max_bytes} for it: set it at least {one - max_bytes} "
                f"higher."
            )
        direction = (
            2 * _columns(problem) * (1 if self.covariance == "shared" else problem.num_classes * self.components)
        )
        return dataclasses.replace(self, rank=min(_columns(problem), 1 + (max_bytes - one) // direction))

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        rows, codes = _rows(data, problem)
        counts = np.bincount(codes, minlength=problem.num_classes).astype(np.int64)
        with one_blas_thread():
            common = self._common(rows, codes, counts)
            noise = _noise(rows, rng)
            found = {
                int(label): self._gaussians(rows[codes == label], common, rng, noise)
                for label in np.flatnonzero(counts)
            }
        parts = [part for several in found.values() for part in several]
        told = {
            "class_count": counts,
            "component_class": np.array([label for label, several in found.items() for _ in several], np.int32),
            "weight": np.array([part.weight for part in parts], np.float16),
            "mean": np.stack([part.mean for part in parts]).astype(np.float32),
        }
        spreads = [part.spread for part in parts]
        if self.covariance == "shared":
            variance, factor = common.spread.variance, common.spread.factor
        else:
            variance = np.stack([spread.variance for spread in spreads])
            factor = np.stack([spread.factor for spread in spreads])
        told["deviation"] = np.sqrt(variance).astype(np.float16)
        if self.covariance != "diagonal":
            told["factor"] = factor.astype(np.float16)
        return told

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
        held = np.stack([summary["class_count"] for summary in summaries])
        counts = held.sum(axis=0)
        averaging.check_classes(counts if problem.labels else None)
        x, y = self.sample(summaries, problem, rng)
        blurred = (counts > 0) & (held < self.min_rows).all(axis=0)
        findings = {
            "records": int(counts.sum()),
            "synthetic_rows": len(x),
            "absent_classes": [name for name, count in zip(problem.labels, counts, strict=False) if count == 0],
            "blurred_classes": [name for name, only in zip(problem.labels, blurred, strict=False) if only],
        }
        return self.trained(x, y, problem, prior, rng), findings

    def sample(
        self, summaries: Sequence[Arrays], problem: Problem, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Synthetic rows as the clients' counts have them: features (m, d), and class codes or scaled values (m,)."""
        counts = np.sum([summary["class_count"] for summary in summaries], axis=0)
        likely = counts / counts.sum()
        wanted = np.where(counts > 0, np.maximum(np.rint(self.samples * likely), LEAST), 0).astype(np.int64)
        labels = np.concatenate([summary["component_class"] for summary in summaries])
        rows = np.concatenate(
            [summary["weight"] * summary["class_count"][summary["component_class"]] for summary in summaries]
        ).astype(np.float64)
        drawn = np.zeros(len(labels), np.int64)
        for label in np.flatnonzero(wanted):
            mine = labels == label
            drawn[mine] = rng.multinomial(wanted[label], rows[mine] / rows[mine].sum())
        z = np.concatenate(
            [
                _draw(mean, spread, int(number), rng)
                for (mean, spread), number in zip(self._sent(summaries), drawn, strict=True)
                if number
            ]
        )
        np.clip(z, -1.0, 1.0, out=z)
        x = z[:, : problem.num_features] * np.array(problem.feature_bounds)
        return x, np.repeat(labels, drawn).astype(np.int64) if problem.labels else z[:, -1] * problem.target_bound

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        if self.student == "logistic":
            return {"probability": sums.softmax(np.asarray(data["x"], np.float64) @ model["weights"] + model["bias"])}
        if self.student == "ridge":
            return heads.predict(model, data["x"], problem)
        return training.answers(self.student, problem, model, as_numpy(data["x"]))

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: every class with rows has Gaussians, and only those, whose weights sum to 1."""
        arrays.check(summary, self.declare(problem, prior), place)
        counts, labels = summary["class_count"], summary["component_class"]
        lengths = {len(summary[name]) for name in ("component_class", "weight", "mean")}
        own = set() if self.covariance == "shared" else {"deviation", "factor"} & set(summary)
        square = summary["deviation"].astype(np.float64) ** 2
        if "factor" in summary and len(lengths | {len(summary[name]) for name in own}) == 1:
            square = square + (summary["factor"].astype(np.float64) ** 2).sum(axis=-2)
        told = None
        if not 1 <= int(counts.sum()) <= problem.max_records:
            told = f"it speaks of {int(counts.sum())} rows, the task allows 1 to {problem.max_records}"
        elif len(lengths | {len(summary[name]) for name in own}) > 1:
            told = "the arrays of its Gaussians have different lengths"
        elif (np.bincount(labels, minlength=problem.num_classes) > 0).tolist() != (counts > 0).tolist():
            told = "its Gaussians are not those of the classes it has rows of"
        elif (np.bincount(labels, minlength=problem.num_classes) > self.components).any():
            told = f"a class has more than {self.components} Gaussians"
        elif (np.abs(np.bincount(labels, summary["weight"], problem.num_classes) - (counts > 0)) > SLACK).any():
            told = "the weights of a class do not sum to 1"
        elif (square > 1 + SLACK).any():
            told = "a variance is larger than its column's bound allows"
        if told:
            raise UpdateError(f"{place}: {told}, so no table of records can have given it; ask the client to redo it.")

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """A network trained on labelled public rows, to start from; nothing for a head."""
        if self.student in HEADS:
            return {}
        start = self._start(problem, prior)
        return training.pretrained(self.student, problem, start, data, self._training(), rng)

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        counts = summary["class_count"].astype(np.float64)
        sent = list(self._sent([summary]))
        means = np.stack([mean for mean, _ in sent])[:, : problem.num_features]
        squares = np.stack([spread.total for _, spread in sent])[:, : problem.num_features] + means**2
        rows = summary["weight"].astype(np.float64) * counts[summary["component_class"]]
        share, bounds = rows / rows.sum(), np.array(problem.feature_bounds)
        second = counts.sum() * np.concatenate([[1.0], share @ squares * bounds**2])
        return Moments(float(counts.sum()), counts if problem.labels else None, share @ means * bounds, second)

    # --- the client's Gaussians, in units of the columns' bounds ---

    def _common(self, rows: Matrix, codes: NDArray[np.int64], counts: NDArray[np.int64]) -> _Common:
        """What the classes with rows enough have in common; of the others it holds nothing."""
        full = counts[codes] >= self.min_rows
        width = rows.shape[1]
        if not full.any():
            unknown = _Spread(np.full(width, QUARTER**2), np.zeros((self._directions(width), width)))
            return _Common(unknown, unknown.variance, np.zeros(width), np.zeros(width, bool))
        kept, member = rows[full], sums.one_hot(codes[full], len(counts))
        residual = kept - member @ (member.T @ kept / np.maximum(member.sum(axis=0), 1.0)[:, None])
        variance = (residual**2).mean(axis=0)
        constant = variance <= sums.CONSTANT * np.maximum((kept**2).mean(axis=0), sums.CONSTANT)
        unit = np.where(constant, QUARTER**2, variance)
        spread = self._spread(residual / np.sqrt(len(kept)), variance, unit)
        return _Common(spread, unit, kept.mean(axis=0), constant)

    def _gaussians(self, rows: Matrix, common: _Common, rng: np.random.Generator, noise: np.random.Generator) -> _Parts:
        """Those of one class."""
        if len(rows) < self.min_rows:
            mean = _draw(rows.mean(axis=0), common.spread, 1, noise)[0]
            mean = np.clip(np.where(common.constant, common.centre, mean), -1.0, 1.0)
            return [_Part(1.0, mean, common.spread)]
        found = self._mixture(rows, common, rng)
        joint = mixture.log_joint(found, rows)
        shares = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
        return [self._part(rows, share, common) for share in shares.T]

    def _mixture(self, rows: Matrix, common: _Common, rng: np.random.Generator) -> mixture.Mixture:
        """With as many components as have rows enough to speak of."""
        most = min(self.components, len(rows) // self.min_rows)
        while True:
            found = mixture.fit(rows, most, rng=rng, floor=FLOOR, spread=common.unit)
            if len(found.weights) == 1 or found.weights.min() * len(rows) >= self.min_rows:
                return found
            most = len(found.weights) - 1

    def _part(self, rows: Matrix, share: Matrix, common: _Common) -> _Part:
        """The Gaussian of the rows by their shares in it, its covariance averaged with the common one."""
        count = share.sum()
        mean = share @ rows / count
        residual = np.sqrt(share / (count + BORROWED))[:, None] * (rows - mean)
        borrowed = BORROWED / (count + BORROWED)
        variance = (residual**2).sum(axis=0) + borrowed * common.spread.total
        return _Part(
            float(count) / len(rows),
            mean,
            self._spread(np.vstack([residual, np.sqrt(borrowed) * common.spread.factor]), variance, common.unit),
        )

    def _spread(self, rows: Matrix, variance: Matrix, unit: Matrix) -> _Spread:
        """A covariance of this diagonal, its directions those in which the rows (n, D) are longest."""
        factor = _principal(rows, self._directions(rows.shape[1]))
        return _Spread(np.clip(variance - (factor**2).sum(axis=0), FLOOR * unit, 1.0), factor)

    def _directions(self, columns: int) -> int:
        return 0 if self.covariance == "diagonal" else min(self.rank, columns)

    def _sent(self, summaries: Sequence[Arrays]) -> Iterator[tuple[Matrix, _Spread]]:
        """Mean and covariance of every Gaussian of some clients, one client after another."""
        for summary in summaries:
            for place, mean in enumerate(summary["mean"].astype(np.float64)):
                own = () if self.covariance == "shared" else place
                factor = summary["factor"][own] if "factor" in summary else np.zeros((0, len(mean)))
                yield mean, _Spread(summary["deviation"][own].astype(np.float64) ** 2, factor.astype(np.float64))

    # --- the server's student ---

    def trained(
        self, x: Matrix, y: NDArray[Any], problem: Problem, prior: Arrays, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """A student's arrays after it has learned from rows x (n, d) with class codes or scaled values y (n,)."""
        if self.student == "logistic":
            weights, bias = logistic.fit(x, y, problem.num_classes, self.decay)
            return {"weights": weights, "bias": bias}
        if self.student == "ridge":
            weights, bias = heads.of_rows(x, y, problem, heads.GRID)
            return {"weights": weights, "bias": bias}
        seen = averaging.seen(y, problem)
        job = training.Job(x, y, int(rng.integers(2**31)), seen)
        learned = training.fit(self.student, problem, self._start(problem, prior), job, self._training())
        return network.named(averaging.without_absent(learned, seen))

    def _start(self, problem: Problem, prior: Arrays) -> network.Weights:
        return network.start(self.student, problem, prior, self.seed)

    def _training(self) -> training.Training:
        return training.Training(self.epochs, self.batch_size, self.rate, self.momentum, self.decay)


@dataclass(frozen=True)
class _Spread:
    """A covariance diag(variance) + FᵀF."""

    variance: Matrix  # (D,)
    factor: Matrix  # (r, D)

    @property
    def total(self) -> Matrix:
        """Its diagonal."""
        return np.asarray(self.variance + (self.factor**2).sum(axis=0))


@dataclass(frozen=True)
class _Common:
    """What a client's larger classes share."""

    spread: _Spread  # within a class
    unit: Matrix  # (D,) variances that floors are shares of
    centre: Matrix  # (D,) mean of their rows
    constant: NDArray[np.bool_]  # (D,) columns that never change within a class


@dataclass(frozen=True)
class _Part:
    """One Gaussian of a class."""

    weight: float
    mean: Matrix  # (D,)
    spread: _Spread


_Parts: TypeAlias = list[_Part]


def _columns(problem: Problem) -> int:
    """D: the features, and the label where it is a number."""
    return problem.num_features + (not problem.labels)


def _rows(data: Data, problem: Problem) -> tuple[Matrix, NDArray[np.int64]]:
    """Rows (n, D) in units of the columns' bounds, and the class of each."""
    x, y = as_numpy(data["x"]).astype(np.float64), as_numpy(data["y"])
    rows = x / np.array([bound or 1.0 for bound in problem.feature_bounds])
    if problem.labels:
        return rows, y.astype(np.int64)
    return np.hstack([rows, y[:, None] / (problem.target_bound or 1.0)]), np.zeros(len(y), np.int64)


def _noise(rows: Matrix, rng: np.random.Generator) -> np.random.Generator:
    """What blurs small classes. Of `rng` alone a server could know the state and take the blur off again."""
    own = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).digest()
    return np.random.default_rng([int(rng.integers(2**63)), int.from_bytes(own, "big")])


def _draw(mean: Matrix, spread: _Spread, number: int, rng: np.random.Generator) -> Matrix:
    """Rows of a Gaussian (number, D)."""
    own = rng.standard_normal((number, len(mean))) * np.sqrt(spread.variance)
    return np.asarray(mean + own + rng.standard_normal((number, len(spread.factor))) @ spread.factor)


def _principal(rows: Matrix, rank: int) -> Matrix:
    """F (rank, D) for which FᵀF comes nearest to RᵀR of the rows R (n, D); zeros where R has fewer directions."""
    factor = np.zeros((rank, rows.shape[1]))
    if rank == 0:
        return factor
    # R = U S Vᵀ, F = S Vᵀ: from the eigenvectors of whichever of RᵀR and RRᵀ is smaller.
    if len(rows) > rows.shape[1]:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        found = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    else:
        found = np.linalg.eigh(rows @ rows.T)[1].T @ rows
    found = found[::-1][:rank]
    factor[: len(found)] = found
    return factor
