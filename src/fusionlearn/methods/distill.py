"""Distillation of networks: a large local teacher, a small student that travels in a byte a weight, one average.

Every client trains a teacher of its own choice (any network, trees, a forest; never sent) and lets it teach the task's
small student network, which starts from the task's prior: the student is to answer the teacher's softened
probabilities as well as the labels,

    mix · T² · KL(teacher^(1/T) ‖ student^(1/T)) + (1 − mix) · cross-entropy(labels, student).

Unlabelled public rows in the task's prior (`public_rows`) are taught as well, by the teacher alone. The student travels
as what it moved from the prior, in int8 with a scale a channel. The server averages the students by rows and, in the
head, by the rows of each class. Then the average goes on to learn from the students together, on rows without labels:
the server's own (`fuse(public=…)`) and, with `components`, rows drawn from Gaussian mixtures that the clients send of
the features of each of their classes. A student, which compares the classes its client holds, is heard by the client's
share of the rows about a point, as the mixtures tell it. Without them it is heard about a class by the share of that
class's rows; that finds the class but not how sure one may be, as clients with one class always say that one: then the
class is what is learned. With coding "fixed" the students are sums of integers instead: eight times the bytes, and
additive.

Update
    network.NAME  as the weights  int8     what the student moved, in multiples of scale.NAME; float32 for vectors
    scale.NAME    (channels,)     float32  one for each output channel
    count         ()              int64    rows
    class_count   (c,)            int64    rows of each class; classification only
    density.NAME  (m, …)                   with `components`, m Gaussians: class, weight, mean, variance of each
    With coding "fixed": network.NAME int64 as in `average`, and no scale.NAME
Model
    network.NAME  as the weights  float32
Cost     upload 1 byte a weight, and 8·d a Gaussian; client one teacher and epochs · n steps of the student; server
         nothing, or epochs on public and drawn rows
Privacy  weights remember rows, of students too: no bound on what one record changes. Gaussians speak of 25 rows or
         more, or of all rows of a class: a class of one row gives that row away
Source   Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015; teaching the average by the
         ensemble: Lin, Kong, Stich, Jaggi, Ensemble Distillation for Robust Model Fusion in Federated Learning, 2020
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, averaging, coding, densities, network, sums, teacher, training
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.averaging import WeightSums
from fusionlearn.densities import Densities
from fusionlearn.errors import SettingsError
from fusionlearn.method import Method, Moments
from fusionlearn.network import Weights
from fusionlearn.plugin import LATER
from fusionlearn.problem import Problem

PUBLIC = "public"  # prior: (m, d) float32, unlabelled public rows


@dataclass(frozen=True)
class Distill(Method):
    name: ClassVar[str] = "distill"
    LOCAL: ClassVar[tuple[str, ...]] = ("teacher", "checkpoint")
    START: ClassVar[tuple[str, ...]] = (network.PREFIX, PUBLIC)

    student: str = "mlp:hidden=64"  # the network that travels: NAME[:key=value,…]
    mix: float = 0.5  # share of the teacher in what the student learns; the rest is the label
    temperature: float = 2.0  # log-probabilities are divided by it while teaching: above 1 is softer
    folds: int = 0  # a row is answered by a teacher that did not see it; 0: by one that saw everything
    coding: Literal["int8", "fixed"] = "int8"  # a byte a weight, or sums of 64-bit integers, which are additive
    public_rows: int = 0  # public rows `pretrain` keeps in the task's prior for the teachers to answer
    epochs: int = 10  # the student's passes over the rows
    batch_size: int = 32  # rows a step
    rate: float = 0.05  # learning rate of the first step; it falls along half a cosine
    momentum: float = 0.9  # share of the last step kept in the next
    decay: float = 1e-4  # share of each weight added to its gradient
    classes: Literal["seen", "all"] = "seen"  # that a client's loss compares: those it holds, or all
    precision: Literal["float32", "bfloat16"] = "float32"  # of products while training
    seed: int = 0  # public; of the weights to start from where the task's prior holds none
    components: int = field(default=0, metadata=LATER)  # Gaussians of a class, at most, that clients send; 0: none
    drawn_rows: int = field(default=5000, metadata=LATER)  # that the server draws from those of all clients

    def __post_init__(self) -> None:
        network.parse(self.student)
        self._training()
        if not 0 <= self.mix <= 1:
            raise SettingsError(f"distill: mix is {self.mix}; it may be 0 (labels only) to 1 (teacher only).")
        if not 0.1 <= self.temperature <= 100:
            raise SettingsError(f"distill: temperature is {self.temperature}; it may be 0.1 to 100.")
        if not (0 <= self.folds <= 1000 and 0 <= self.public_rows <= 2**20):
            raise SettingsError("distill: folds may be 0 to 1000, public_rows 0 to 1048576.")
        if not (0 <= self.components <= 1000 and 1 <= self.drawn_rows <= 2**24):
            raise SettingsError("distill: components may be 0 to 1000, drawn_rows 1 to 16777216.")
        if self.components and self.additive:
            raise SettingsError("distill: densities are no sums: set components to 0, or coding to 'int8'.")

    @property
    def additive(self) -> bool:
        return self.coding == "fixed"

    @property
    def exact(self) -> bool:
        return False

    @property
    def uses_public(self) -> bool:
        return not self.additive  # a sum of students is not the students

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str]:
        return "network", self.student

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        self._start(problem, prior)
        _public(prior, problem)
        if self.additive:
            return WeightSums(self.student, problem).declare()
        specs = averaging.declare_counts(problem) | coding.declare(network.shapes(self.student, problem))
        if self.components:
            specs |= densities.declare(problem.num_classes, self.components, problem.feature_bounds)
        return specs

    def summarize(
        self,
        data: Data,
        problem: Problem,
        prior: Arrays,
        *,
        rng: np.random.Generator,
        local: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """`local["teacher"]` names the teacher, a forest by default; `local["checkpoint"]` a file to resume from."""
        x, y = as_numpy(data["x"]), as_numpy(data["y"])
        teaches = teacher.parse((local or {}).get("teacher", teacher.DEFAULT))
        start, counts = self._start(problem, prior), averaging.counts_of(y, problem)
        targets = self.targets(teaches, x, y, problem, prior, rng)
        seen = averaging.seen(y, problem) if self.classes == "seen" else None
        if seen is not None:
            halves = np.split(targets, 2, axis=1)
            targets = np.hstack([training.restricted(half, seen) for half in halves])
        learned = np.concatenate([x, _public(prior, problem)]).astype(np.float32)
        job = training.Job(learned, targets, int(rng.integers(2**31)), seen)
        kept = training.checkpoint_of(local, "student")
        student = training.fit(
            self.student, problem, start, job, self._training(), self._loss(problem), checkpoint=kept
        )
        if self.additive:
            return WeightSums(self.student, problem).encode(student, counts)
        summary = {**counts, **coding.encode(student, start)}
        if self.components:
            codes = y if problem.labels else np.zeros(len(y), np.int64)
            summary |= densities.encode(x, codes, self.components, rng=rng)
        return summary

    def targets(
        self,
        teaches: teacher.Teacher,
        x: NDArray[Any],
        y: NDArray[Any],
        problem: Problem,
        prior: Arrays,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """What the student learns of each row, then of each public row.

        For classes (n, 2c): the softened teacher, then the label (the teacher itself for public rows). For regression
        (n,): teacher and label mixed.
        """
        public = _public(prior, problem)
        taught = teaches.fit(x, y, problem, rng=rng) if self.folds < 2 or len(public) else None
        own = (
            taught.answer(x)
            if taught is not None and self.folds < 2
            else teacher.held_out_answers(teaches, x, y, problem, folds=self.folds, rng=rng)
        )
        asked = taught.answer(public) if taught is not None and len(public) else np.empty((0, problem.num_classes))
        if not problem.labels:
            mixed = self.mix * own[:, 0] + (1 - self.mix) * y
            top = problem.target_bound
            return np.asarray(np.clip(np.concatenate([mixed, asked[:, 0]]), -top, top))
        labels = np.concatenate([sums.one_hot(y, problem.num_classes), asked])
        return np.hstack([self._soften(np.concatenate([own, asked])), labels])

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
        students: list[Weights] = []
        if self.additive:
            counts = arrays.total(summaries)
            weights = WeightSums(self.student, problem).mean(counts, start)
        else:
            summaries = sorted(summaries, key=_content)  # which rows are drawn must not depend on who is first
            students = [coding.decode(summary, start) for summary in summaries]
            weights, counts = averaging.mean_of(students, [_counts(summary) for summary in summaries])
        held = counts.get("class_count")
        averaging.check_classes(held)
        findings: dict[str, Any] = {
            "records": int(counts["count"]),
            "absent_classes": [] if held is None else [problem.labels[k] for k in np.flatnonzero(held == 0)],
        }
        if students and (public is not None or self.components):
            clients = [densities.decode(summary, _classes(summary)) for summary in summaries] if self.components else []
            parts = {} if public is None else {"public_rows": as_numpy(public["x"])}
            if clients:
                parts["drawn_rows"] = self._drawn(clients, problem, rng)
            rows = np.concatenate([*parts.values()])
            together = self._together(students, summaries, rows, problem, clients)
            weights = self._taught_by(together, rows, weights, problem, rng)
            findings |= {name: len(part) for name, part in parts.items()}
        return network.named(weights), findings

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        return training.answers(self.student, problem, model, as_numpy(data["x"]))

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: class counts that sum to the rows, weights that the rows allow."""
        if self.additive:
            WeightSums(self.student, problem).check(summary, place)
        else:
            arrays.check(summary, self.declare(problem, prior), place)
            averaging.check_counts(summary, place)
            if self.components:
                densities.check(summary, _classes(summary), problem.feature_bounds, place)

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """The student trained on labelled public rows, and the first `public_rows` of them without labels."""
        x, y = as_numpy(data["x"]), as_numpy(data["y"])
        job = training.Job(x, y, int(rng.integers(2**31)))
        student = training.fit(self.student, problem, self._start(problem, prior), job, self._training())
        kept = {PUBLIC: x[: self.public_rows].astype(np.float32)} if self.public_rows else {}
        return {**network.named(student), **kept}

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        rows, counts = float(summary["count"]), summary["class_count"].astype(np.float64) if problem.labels else None
        if not self.components:
            return Moments(rows, counts, None, None)
        mean, square = densities.moments(densities.decode(summary, _classes(summary)))
        return Moments(rows, counts, mean, rows * np.concatenate([[1.0], square]))

    def _start(self, problem: Problem, prior: Arrays) -> Weights:
        return network.start(self.student, problem, prior, self.seed)

    def _training(self) -> training.Training:
        return training.Training(self.epochs, self.batch_size, self.rate, self.momentum, self.decay, self.precision)

    def _soften(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        powers = np.clip(probability, 1e-12, None) ** (1.0 / self.temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _loss(self, problem: Problem) -> training.Loss:
        if not problem.labels:
            return training.loss_of(problem)
        c, heat, mix = problem.num_classes, np.float32(self.temperature), np.float32(self.mix)

        def loss(scores: Any, targets: Any) -> Any:
            soft, soft_slopes = training.cross_entropy(scores / heat, targets[..., :c])
            hard, hard_slopes = training.cross_entropy(scores, targets[..., c:])
            # T² keeps the teacher's slopes as large as the labels', whatever the temperature.
            return mix * heat**2 * soft + (1 - mix) * hard, mix * heat * soft_slopes + (1 - mix) * hard_slopes

        return loss

    def _drawn(self, clients: Sequence[Densities], problem: Problem, rng: np.random.Generator) -> NDArray[np.float64]:
        """Rows as the clients' densities have them, within the columns' bounds."""
        rows, _ = densities.sample(clients, self.drawn_rows, rng=rng)
        bounds = np.array(problem.feature_bounds)
        return np.clip(rows, -bounds, bounds)

    def _together(
        self,
        students: Sequence[Weights],
        summaries: Sequence[Arrays],
        rows: NDArray[Any],
        problem: Problem,
        clients: Sequence[Densities] = (),
    ) -> NDArray[np.float64]:
        """What the students say of rows together: probabilities (n, c), or values (n, 1)."""
        held = np.stack([_classes(summary) for summary in summaries]).astype(np.float64)
        said = [training.scores_of(self.student, problem, student, rows) for student in students]
        if problem.labels:
            said = [_compared(scores, count > 0) for scores, count in zip(said, held, strict=True)]
        if clients:
            heard = densities.shares(clients, rows)[:, :, None]
            return np.asarray(sum(part * words for part, words in zip(heard, said, strict=True)))
        share = held / np.maximum(held.sum(axis=0), 1.0)
        mixed = sum(part * words for part, words in zip(share, said, strict=True))
        return sums.one_hot(np.argmax(mixed, axis=1), problem.num_classes) if problem.labels else np.asarray(mixed)

    def _taught_by(
        self,
        together: NDArray[np.float64],
        rows: NDArray[Any],
        weights: Weights,
        problem: Problem,
        rng: np.random.Generator,
    ) -> Weights:
        """The averaged student after it has learned what all students say of rows together."""
        targets = np.hstack([self._soften(together), together]) if problem.labels else together[:, 0]
        taught = dataclasses.replace(self, mix=1.0)
        job = training.Job(rows, targets, int(rng.integers(2**31)))
        return training.fit(self.student, problem, weights, job, self._training(), taught._loss(problem))


def _public(prior: Arrays, problem: Problem) -> NDArray[np.float32]:
    """The prior's public rows, (0, d) where it has none. Errors: SettingsError when they are not rows of this task."""
    rows = prior.get(PUBLIC)
    if rows is None:
        return np.empty((0, problem.num_features), np.float32)
    if rows.ndim != 2 or rows.shape[1] != problem.num_features:
        raise SettingsError(
            f"the task's prior: public rows are of shape {tuple(rows.shape)}, (rows, {problem.num_features}) expected."
        )
    return np.asarray(rows, np.float32)


def _counts(summary: Arrays) -> dict[str, NDArray[np.int64]]:
    return {name: summary[name] for name in ("count", "class_count") if name in summary}


def _content(summary: Arrays) -> bytes:
    """What to sort summaries by."""
    hashed = hashlib.sha256()
    for name in sorted(summary):
        hashed.update(np.ascontiguousarray(summary[name]).tobytes())
    return hashed.digest()


def _classes(summary: Arrays) -> NDArray[np.int64]:
    """(c,) rows of each class; numbers as labels are one class."""
    return np.asarray(summary["class_count"] if "class_count" in summary else summary["count"].reshape(1))


def _compared(scores: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities (n, c) of the classes seen, 0 for the others."""
    return sums.softmax(np.where(seen, scores, training.CLOSED))
