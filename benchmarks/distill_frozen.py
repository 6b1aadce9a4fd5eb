"""Distillation on frozen features: CIFAR-10, Amazon reviews, Office-Caltech10, by a network and in closed form.

    FUSIONLEARN_DATA=… python -m benchmarks.distill_frozen NAME [--seeds 5]     NAME: cifar10, amazon or office
                                                             → results/distill-NAME.json; goes on where it stopped

A round of each form beside its controls, on the same rows, parts and teachers. The teacher is the most accurate of
three listed ones on rows held out of every client's own; rates and ways to teach are chosen by the fused accuracy on
validation rows, the rate for the student without a teacher. CIFAR-10 has validation rows of its own. The other two are
small: their choices are made on a quarter of the training rows of split 0, so that within a split no choice was made on
its test rows, but a row tested in one split may have been validated on in another. What is reported is the last
iterate.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusionlearn as fl
from benchmarks import sections, teachers
from benchmarks.client_cost import size as size_text
from fusionlearn import datasets, file, partition, teacher
from fusionlearn.arrays import Arrays
from fusionlearn.encoders.ngrams import Ngrams
from fusionlearn.encoders.project import MEAN, MIXTURE, Project
from fusionlearn.fixed import one_blas_thread
from fusionlearn.method import Method
from fusionlearn.methods.distill import PUBLIC, Distill
from fusionlearn.methods.distill_head import DistillHead
from fusionlearn.problem import Problem
from fusionlearn.sums import student_quantile
from fusionlearn.types import Update

NAMES = ("cifar10", "amazon", "office")
# Ways to teach; "public": the teachers answer the unlabelled public rows besides.
NETWORK_WAYS: tuple[dict[str, Any], ...] = (
    {"mix": 0.5, "temperature": 2.0}, {"mix": 0.9, "temperature": 2.0}, {"mix": 0.5, "temperature": 1.0},
    {"mix": 0.5, "temperature": 2.0, "folds": 2}, {"mix": 0.5, "temperature": 2.0, "public": True},
)  # fmt: skip
HEAD_WAYS = tuple({"mix": mix, "temperature": t, "folds": 2} for mix in (0.3, 0.6, 1.0) for t in (0.5, 1.0, 2.0))
HEAD = DistillHead(word=32)
PATIENT = "without a teacher, passes and rate of its own"


@dataclasses.dataclass(frozen=True)
class Part:
    """Features and labels."""

    x: NDArray[Any]  # (n, d)
    y: NDArray[Any]  # (n,)

    def of(self, rows: Any) -> Part:
        return Part(np.ascontiguousarray(self.x[rows]), self.y[rows])


@dataclasses.dataclass(frozen=True)
class Split:
    """Who holds what."""

    clients: list[Part]
    test: Part
    digest: str  # of the partition


@dataclasses.dataclass(frozen=True)
class Bench:
    """One data set."""

    about: str
    problem: Problem  # of the network
    head_problem: Problem  # of the closed form
    split: Callable[[int], Split]  # seed → rows of a run
    validation: Split  # what choices are made on
    public: Part  # labelled, of no client: what the student is pre-trained on
    unlabelled: NDArray[Any]  # public rows whose labels nobody looks at
    student: Distill
    lesson: tuple[int, float]  # epochs and rate of its pre-training
    rates: tuple[float, ...]  # to choose from
    listed: tuple[str, str, str]  # teachers to choose from
    head_listed: tuple[str, str, str]  # … for the closed form
    head_x: Callable[[NDArray[Any]], NDArray[Any]] = lambda x: x  # the closed form's features from the network's


def problem_of(labels: Sequence[str], bound: float, width: int) -> Problem:
    names = tuple(f"feature[{i}]" for i in range(width))
    return Problem("multiclass" if len(labels) > 2 else "binary", tuple(labels), names, (bound,) * width, 100_000)


# --- the data sets --------------------------------------------------------------------------------------------------


def cifar10() -> Bench:
    """256 learned mixtures of a frozen EfficientNet-Lite0, ten clients, Dirichlet 0.1."""
    sys.path.insert(0, str(sections.ROOT / "benchmarks"))
    import cifar10_features as known

    parts = datasets.cifar10()
    images = np.concatenate([parts["train"]["image"], parts["test"]["image"]])
    y = np.concatenate([parts["train"]["label"], parts["test"]["label"]]).astype(np.int64)
    prior = known.directions(known.encoded("office-crops-wide-160", known.crops(known.PUBLIC)))
    order = np.random.default_rng(5).permutation(50_000)[:18_000]
    used = np.concatenate([np.sort(order), np.arange(50_000, 60_000)])
    features = known.encoded("cifar10-wide-160", images)
    mixed = np.concatenate([known.projected(features[used[i : i + 4096]], prior, 256) for i in range(0, 28_000, 4096)])
    everyone, test = Part(mixed[:18_000], y[used[:18_000]]), Part(mixed[18_000:], y[used[18_000:]])
    roles = np.random.default_rng(6).permutation(18_000)
    train, rest = everyone.of(np.sort(roles[:10_000])), everyone.of(roles[10_000:])

    def split(seed: int) -> Split:
        rows = partition.dirichlet(train.y, 10, 0.1, at_least=10, rng=np.random.default_rng(seed))
        return Split([train.of(part) for part in rows], test, partition.digest(rows))

    problem = problem_of(known.LABELS, 10.0, 256)
    listed = ("forest:trees=200", "mlp:hidden=2048,rate=0.02", "mlp:hidden=1024x256,rate=0.02")
    return Bench(
        "CIFAR-10, 10,000 rows, 10 clients, Dirichlet 0.1; 256 mixtures of a frozen EfficientNet-Lite0; public: 1,000 "
        "labelled rows and 2,000 unlabelled ones that no client holds",
        problem, problem, split, dataclasses.replace(split(1000), test=rest.of(slice(3000, 8000))),
        rest.of(slice(0, 1000)), rest.of(slice(1000, 3000)).x, Distill("mlp:hidden=64", epochs=5), (20, 0.02),
        (0.002, 0.01, 0.05), listed, listed,
    )  # fmt: skip


def amazon() -> Bench:
    """Four departments; hashed words and bigrams, and for the closed form 192 directions learned from public texts."""
    from benchmarks import amazon as known

    texts, labels, domains = known.reviews()
    public_texts, public_labels = public_opinions()
    schema = fl.Schema({"text": fl.Text()}, known.LABEL)
    ngrams = Ngrams(num_features=4096, weight="unit", common=1000)
    prior = ngrams.pretrain({"text": public_texts}, schema, rng=np.random.default_rng(0))
    everyone = Part(ngrams.encode({"text": texts}, schema, prior)["x"], labels)
    public = Part(ngrams.encode({"text": public_texts}, schema, prior)["x"], public_labels)
    project = Project(192, "learned")
    learned = review_directions(public.x, schema)
    directions = {MEAN: learned[MEAN], MIXTURE: np.ascontiguousarray(learned[MIXTURE][:, :192])}
    names = tuple(name for name, _ in known.LABEL.classes)

    def split(seed: int) -> Split:
        return three_quarters(everyone, domains, seed)

    return Bench(
        "Amazon reviews, 6,000 rows, 4 departments; 4,096 hashed words and bigrams, for the closed form 192 directions "
        "of them learned from public texts; public: 13,541 airline tweets and sentences on films and restaurants, "
        "labelled, and the same without labels",
        problem_of(names, 1.0, 4096), problem_of(names, 10.0, 192), split, validated(split(0)), public,
        public.x[::4], Distill("linear", epochs=10), (10, 1.0), (1.0, 5.0, 20.0),
        ("forest", "mlp:hidden=64,rate=0.2", "mlp:hidden=128,rate=0.2"),
        ("forest", "boosting:rounds=30", "mlp:hidden=2048,rate=0.02"),
        lambda x: np.asarray(project.encode({"x": x}, schema, directions)["x"]),
    )  # fmt: skip


def public_opinions() -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Texts of others with their labels, 0 and 1; neutral tweets are left out."""
    import csv
    import gzip

    from benchmarks.amazon import folder

    found: list[tuple[str, int]] = []
    for path in sorted((folder() / "sentiment_sentences_3domain").glob("*_labelled.txt")):
        if not path.name.startswith("amazon"):
            pairs = (line.rsplit("\t", 1) for line in path.read_text("utf-8", "replace").splitlines())
            found += [(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2 and pair[0].strip()]
    with gzip.open(folder() / "airline_tweets" / "Tweets.csv.gz", "rt", errors="replace") as opened:
        signs = {"negative": 0, "positive": 1}
        rows = list(csv.DictReader(opened))
    found += [(row["text"], signs[row["airline_sentiment"]]) for row in rows if row["airline_sentiment"] in signs]
    texts = np.empty(len(found), object)
    texts[:] = [text for text, _ in found]
    return texts, np.array([label for _, label in found])


def kept(name: str, compute: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays that take long to compute, beside the features of other benchmarks."""
    from fusionlearn import cache

    path = cache.folder().parent / "benchmarks" / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **compute())
    with np.load(path) as found:
        return {key: found[key] for key in found.files}


def review_directions(public: NDArray[Any], schema: fl.Schema) -> dict[str, NDArray[Any]]:
    """The 2,300 directions in which public texts vary most, of 4,096 hashed words; fewer are the first of them."""
    learner = Project(2300, "learned")
    return kept("amazon-directions", lambda: learner.pretrain({"x": public}, schema, rng=np.random.default_rng(0)))


def office_blocks() -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """All blocks' outputs of a frozen EfficientNet-Lite0 for the four sources' photographs; labels; sources."""
    from fusionlearn.encoders.backbone import Backbone

    sources = datasets.office_caltech10()
    images = np.concatenate([part["image"] for part in sources.values()])
    labels = np.concatenate([part["label"] for part in sources.values()]).astype(np.int64)
    names = np.concatenate([[source] * len(part["label"]) for source, part in sources.items()])
    two = fl.ClassLabel("y", {"0": ["0"], "1": ["1"]})
    backbone, schema = Backbone(shape=(160, 160, 3), side=160), fl.Schema({"image": fl.Vector(76_800, 0, 255)}, two)

    def encoded() -> dict[str, NDArray[Any]]:
        blocks = [images[i : i + 64].reshape(-1, 76_800) for i in range(0, len(images), 64)]
        rows = [np.asarray(backbone.encode({"image": block}, schema, {})["x"], np.float32) for block in blocks]
        return {"x": np.concatenate(rows)}

    return np.clip(kept("office-blocks", encoded)["x"], -20, 20), labels, names


def office() -> Bench:
    """Four sources of photographs; 192 random mixtures of a frozen EfficientNet-Lite0's blocks."""
    x, y, sources = office_blocks()
    labels = tuple(str(k) for k in range(10))
    schema = fl.Schema({"x": fl.Vector(x.shape[1], -20, 20)}, fl.ClassLabel("y", {label: [label] for label in labels}))
    mixed = np.asarray(Project(192).encode({"x": x}, schema, {})["x"])
    rng = np.random.default_rng(5)
    open_rows = np.concatenate(
        [rng.permutation(np.flatnonzero((sources == "caltech10") & (y == k)))[:20] for k in range(10)]
    )
    centre, scale = mixed[open_rows].mean(axis=0), mixed[open_rows].std(axis=0)  # of public rows
    everyone = Part(np.clip((mixed - centre) / scale, -10, 10), y)
    public, closed = everyone.of(open_rows), np.setdiff1d(np.arange(len(everyone.y)), open_rows)
    private, sources = everyone.of(closed), sources[closed]

    def split(seed: int) -> Split:
        return three_quarters(private, sources, seed)

    problem = problem_of(labels, 10.0, 192)
    listed = ("forest", "boosting:rounds=30", "mlp:hidden=1024,epochs=30,rate=0.01")
    return Bench(
        "Office-Caltech10, 4 sources; 192 mixtures of a frozen EfficientNet-Lite0, centred and scaled as public ones; "
        "public: 20 photographs of each kind from caltech10, half of them labelled",
        problem, problem, split, validated(split(0)), public.of(np.arange(0, 200, 2)), public.x[1::2],
        Distill("mlp:hidden=64", epochs=20), (60, 0.01), (0.002, 0.01, 0.05),
        listed, ("forest:trees=200", "boosting:rounds=30", "mlp:hidden=1280,epochs=30,rate=0.01"),
    )  # fmt: skip


def quarter(sources: NDArray[Any], seed: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Each client's rows and those tested on: the sources are the clients, a quarter of each is held out."""
    rng = np.random.default_rng([7, seed])
    rows, held = [], []
    for source in np.unique(sources):
        order = rng.permutation(np.flatnonzero(sources == source))
        held.append(order[: len(order) // 4])
        rows.append(np.sort(order[len(order) // 4 :]))
    return rows, np.concatenate(held)


def three_quarters(everyone: Part, sources: NDArray[Any], seed: int) -> Split:
    """A quarter of each source's rows is tested on; the sources are the clients."""
    rows, held = quarter(sources, seed)
    return Split([everyone.of(part) for part in rows], everyone.of(held), partition.digest(rows))


def validated(split: Split) -> Split:
    """The same clients with a quarter of their own rows held back, which is what choices are made on."""
    clients, held = [], []
    for client in split.clients:
        order = np.random.default_rng(8).permutation(len(client.y))
        held.append(client.of(order[: len(order) // 4]))
        clients.append(client.of(np.sort(order[len(order) // 4 :])))
    x, y = (np.concatenate([getattr(part, name) for part in held]) for name in ("x", "y"))
    return Split(clients, Part(x, y), split.digest)


# --- a round of either form -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Round:
    """A problem, a split of rows, what students start from, and the clients' teachers, trained once."""

    problem: Problem
    split: Split
    prior: Arrays
    own: list[teachers.Remembered]
    seed: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """(clients, classes)"""
        return np.stack([np.bincount(part.y, minlength=self.problem.num_classes) for part in self.split.clients])

    def updates(self, method: Method, prior: Arrays | None = None) -> list[dict[str, Any]]:
        """Each client's summary, taught by its own teacher."""
        found = []
        parse = teacher.parse
        for k, (part, own) in enumerate(zip(self.split.clients, self.own, strict=True)):
            teacher.parse = lambda _, own=own: own  # type: ignore[misc]
            try:
                found.append(
                    method.summarize(  # type: ignore[call-arg]
                        {"x": part.x, "y": part.y}, self.problem, self.prior if prior is None else prior,
                        rng=np.random.default_rng([self.seed, k]), local={"teacher": "its own"},
                    )
                )  # fmt: skip
            finally:
                teacher.parse = parse
        return found

    def model(self, method: Method, updates: Sequence[Arrays], prior: Arrays | None = None, **more: Any) -> Arrays:
        with one_blas_thread():
            return method.fuse(
                updates, self.problem, self.prior if prior is None else prior, rng=np.random.default_rng(self.seed),
                **more,
            )[0]  # fmt: skip

    def says(self, method: Method, model: Arrays) -> NDArray[Any]:
        return method.predict(model, {"x": self.split.test.x}, self.problem, self.prior)["probability"]

    def right(self, said: NDArray[Any]) -> float:
        return float((said.argmax(axis=1) == self.split.test.y).mean())

    def fused(self, method: Method, prior: Arrays | None = None) -> float:
        return self.right(self.says(method, self.model(method, self.updates(method, prior), prior)))

    def alone(self, method: Method, updates: Sequence[Arrays]) -> list[NDArray[Any]]:
        """What each client's own student says; one with a single class always answers it."""
        found = []
        for count, update in zip(self.counts, updates, strict=True):
            if (count > 0).sum() > 1:
                found.append(self.says(method, self.model(method, [update])))
            else:
                found.append(np.tile((count > 0).astype(float), (len(self.split.test.y), 1)))
        return found

    def pooled(self) -> Round:
        """All rows at one client, who needs no teacher."""
        x, y = (np.concatenate([getattr(part, name) for part in self.split.clients]) for name in ("x", "y"))
        split = dataclasses.replace(self.split, clients=[Part(x, y)])
        return dataclasses.replace(self, split=split, own=[teachers.Remembered(teachers.Silent(), 0)])


def round_of(problem: Problem, split: Split, prior: Arrays, name: str, seed: int) -> Round:
    own = [remembered(name, 1000 * seed + k) for k in range(len(split.clients))]
    return Round(problem, split, prior, own, seed)


@functools.cache
def remembered(name: str, seed: int) -> teachers.Remembered:
    """The same teacher for both forms, where they see the same features."""
    return teachers.Remembered(teacher.parse(name), seed)


def measured(given: Round, method: Method, plain: Method, name: str, prior: Arrays | None) -> dict[str, Any]:
    """One split: the round, its parts alone, and the controls that both forms have.

    method  with the way to teach that was chosen; plain learns from the labels alone
    prior   what the chosen way starts from, where that is more than the round's prior
    """
    began = time.perf_counter()
    taught = [
        own.fit(part.x, part.y, given.problem, rng=None)
        for own, part in zip(given.own, given.split.clients, strict=True)
    ]
    teacher_seconds = (time.perf_counter() - began) / len(taught)
    began = time.perf_counter()
    updates = given.updates(method, prior)
    student_seconds = (time.perf_counter() - began) / len(taught)
    size = file.num_bytes(Update("0" * 64, updates[0], nonce="0" * 64))
    answers, students = [one.answer(given.split.test.x) for one in taught], given.alone(method, updates)
    pooled = given.pooled()
    found = {
        **of_each("student", [given.right(said) for said in students]),
        **of_each("teacher", [given.right(said) for said in answers]),
        "fused": given.right(given.says(method, given.model(method, updates))),
        "without a teacher": given.fused(plain),
        "ensemble of students": given.right(teachers.together(students, given.counts)),
        "ensemble of teachers": given.right(teachers.together(answers, given.counts)),
        "pooled student": pooled.fused(plain),
    }
    text, cut_bytes, int8_bytes = teachers.network_of(name), [], []
    if text:
        small, coded = [], []
        for own, one, part in zip(given.own, taught, given.split.clients, strict=True):
            less, num = teachers.cut(one, given.problem, text, own.seed, size, part.x)
            small.append(less.answer(given.split.test.x))
            cut_bytes.append(num)
            less, num = teachers.in_int8(one, given.problem, text)
            coded.append(less.answer(given.split.test.x))
            int8_bytes.append(num)
        found["teachers cut to equal bytes"] = given.right(teachers.together(small, given.counts))
        found["teachers in int8"] = given.right(teachers.together(coded, given.counts))
    else:
        forest = teachers.smaller_forest(given.problem, size)
        grown = given.updates(NoTeacher(forest))
        cut_bytes = [file.num_bytes(Update("0" * 64, update, nonce="0" * 64)) for update in grown]
        found["teachers cut to equal bytes"] = given.right(given.says(forest, given.model(forest, grown)))
    return {
        "seed": given.seed, "partition": given.split.digest, "rows": [len(part.y) for part in given.split.clients],
        "accuracy": {key: round(value, 4) for key, value in found.items()},
        "upload_bytes": size, "cut_bytes": max(cut_bytes), "int8_bytes": max(int8_bytes, default=None),
        "teacher_bytes": [teachers.num_bytes(one) for one in taught],
        "teacher_seconds": round(teacher_seconds, 2), "student_seconds": round(student_seconds, 2),
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class NoTeacher:
    """A method that takes no teacher, asked like one that does."""

    method: Method

    def summarize(self, data: Any, problem: Problem, prior: Arrays, *, rng: Any, local: Any) -> dict[str, Any]:  # noqa: ARG002
        return self.method.summarize(data, problem, prior, rng=rng)


def of_each(who: str, values: Sequence[float]) -> dict[str, float]:
    return {f"mean {who}": float(np.mean(values)), f"best {who}": max(values)}


# --- by a network ---------------------------------------------------------------------------------------------------


def start_of(bench: Bench) -> dict[str, NDArray[Any]]:
    """The student's weights, pre-trained on the labelled public rows."""
    epochs, rate = bench.lesson
    method = dataclasses.replace(bench.student, epochs=epochs, rate=rate)
    data = {"x": bench.public.x, "y": bench.public.y}
    return method.pretrain(data, bench.problem, {}, rng=np.random.default_rng(0))


def taught_by(student: Distill, start: Arrays, way: Mapping[str, Any], bench: Bench) -> tuple[Distill, Arrays]:
    """The student under one way to teach, and what it starts from."""
    given = {key: value for key, value in way.items() if key != "public"}
    public = {PUBLIC: np.asarray(bench.unlabelled, np.float32)} if way.get("public") else {}
    return dataclasses.replace(student, **given), {**start, **public}


def network_choices(bench: Bench, start: Arrays) -> dict[str, Any]:
    """Teacher, rate and way to teach, on validation rows."""
    split = bench.validation
    rows = np.cumsum([0] + [len(part.y) for part in split.clients])
    parts = [np.arange(low, high) for low, high in itertools.pairwise(rows)]
    x, y = (np.concatenate([getattr(part, name) for part in split.clients]) for name in ("x", "y"))
    name, listed = teachers.chosen(bench.listed, x, y, parts, bench.problem)
    given = round_of(bench.problem, split, start, name, 1000)
    rates = {
        rate: round(given.fused(dataclasses.replace(bench.student, mix=0.0, rate=rate)), 4) for rate in bench.rates
    }
    rate = max(rates, key=lambda one: rates[one])
    student = dataclasses.replace(bench.student, rate=rate)
    ways = {}
    for way in NETWORK_WAYS:
        method, prior = taught_by(student, start, way, bench)
        ways[json.dumps(way)] = round(given.fused(method, prior), 4)
        tell("validation", json.dumps(way), ways[json.dumps(way)])
    return {
        "teachers": listed, "teacher": name, "rates": {str(key): value for key, value in rates.items()}, "rate": rate,
        "ways": ways, "way": json.loads(max(ways, key=lambda key: ways[key])),
    }  # fmt: skip


def network_seed(bench: Bench, start: Arrays, choices: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One split by a network, with the controls that only networks have."""
    given = round_of(bench.problem, bench.split(seed), start, choices["teacher"], seed)
    student = dataclasses.replace(bench.student, rate=choices["rate"])
    method, prior = taught_by(student, start, choices["way"], bench)
    plain = dataclasses.replace(student, mix=0.0)
    found = measured(given, method, plain, choices["teacher"], prior)
    cold = {name: array for name, array in prior.items() if name == PUBLIC}
    further = given.model(plain, given.updates(plain), public={"x": bench.unlabelled})
    found["accuracy"] |= {
        "without the prior": round(
            given.right(given.says(method, given.model(method, given.updates(method, cold), cold))), 4
        ),
        "prior alone": round(given.right(given.says(method, start)), 4),
        "without a teacher, then taught by all students on public rows": round(
            given.right(given.says(plain, further)), 4
        ),
    }
    return found


def patient(bench: Bench, start: Arrays, kept_form: dict[str, Any], write_down: Callable[[], None]) -> None:
    """One more control, for the results that lack it: from the labels alone, more passes and lower rates tried.

    What a teacher adds must not be what more or smaller steps would have added. Chosen on validation rows.
    """
    choices = kept_form["choices"]

    def fused(split: Split, seed: int, epochs: int, rate: float) -> float:
        silent = teachers.Remembered(teachers.Silent(), 0)
        given = Round(bench.problem, split, start, [silent] * len(split.clients), seed)
        return round(given.fused(dataclasses.replace(bench.student, mix=0.0, epochs=epochs, rate=rate)), 4)

    if "patient" not in choices:
        tried = [(bench.student.epochs * more, choices["rate"] * less) for more in (1, 2) for less in (1, 0.5, 0.25)]
        found = [[*one, fused(bench.validation, 1000, *one)] for one in tried]
        choices["patient"] = {"epochs, rate, accuracy": found, "best": max(found, key=lambda one: one[2])[:2]}
    for row in kept_form["seeds"]:
        if PATIENT not in row["accuracy"]:
            row["accuracy"][PATIENT] = fused(bench.split(row["seed"]), row["seed"], *choices["patient"]["best"])
            kept_form["summary"] = summary(kept_form["seeds"])
            write_down()
            tell(PATIENT, row["seed"], row["accuracy"][PATIENT])


# --- in closed form -------------------------------------------------------------------------------------------------


def head_split(bench: Bench, split: Split) -> Split:
    """The same rows with the closed form's features."""
    clients = [Part(bench.head_x(part.x), part.y) for part in split.clients]
    return Split(clients, Part(bench.head_x(split.test.x), split.test.y), split.digest)


def head_choices(bench: Bench) -> dict[str, Any]:
    """Teacher and way to teach, on validation rows."""
    split = head_split(bench, bench.validation)
    rows = np.cumsum([0] + [len(part.y) for part in split.clients])
    parts = [np.arange(low, high) for low, high in itertools.pairwise(rows)]
    x, y = (np.concatenate([getattr(part, name) for part in split.clients]) for name in ("x", "y"))
    name, listed = teachers.chosen(bench.head_listed, x, y, parts, bench.head_problem)
    given = round_of(bench.head_problem, split, {}, name, 1000)
    ways = {json.dumps({"mix": 0.0}): round(given.fused(dataclasses.replace(HEAD, mix=0.0)), 4)}
    for way in HEAD_WAYS:
        ways[json.dumps(way)] = round(given.fused(dataclasses.replace(HEAD, **way)), 4)
        tell("validation", json.dumps(way), ways[json.dumps(way)])
    taught = [key for key in ways if json.loads(key)["mix"] > 0]
    return {
        "teachers": listed,
        "teacher": name,
        "ways": ways,
        "way": json.loads(max(taught, key=lambda key: ways[key])),
    }


def head_seed(bench: Bench, choices: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One split in closed form."""
    given = round_of(bench.head_problem, head_split(bench, bench.split(seed)), {}, choices["teacher"], seed)
    method, plain = dataclasses.replace(HEAD, **choices["way"]), dataclasses.replace(HEAD, mix=0.0)
    return measured(given, method, plain, choices["teacher"], None)


# --- running --------------------------------------------------------------------------------------------------------


def interval(gains: Sequence[float]) -> dict[str, float]:
    """Mean of paired gains and its 95 % interval over the splits, by Student's t."""
    mean, reach = float(np.mean(gains)), 0.0
    if len(gains) > 1:
        reach = student_quantile(0.975, len(gains) - 1) * float(np.std(gains, ddof=1)) / len(gains) ** 0.5
    return {"mean": round(mean, 4), "low": round(mean - reach, 4), "high": round(mean + reach, 4)}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the splits, and the fused student's paired gains over everything else."""
    keys = [key for key in rows[0]["accuracy"] if all(key in row["accuracy"] for row in rows)]
    values = {key: [row["accuracy"][key] for row in rows] for key in keys}
    return {
        "accuracy": {
            key: {"mean": round(float(np.mean(some)), 4), "sd": round(float(np.std(some)), 4)}
            for key, some in values.items()
        },
        "gain": {
            f"fused - {key}": interval([a - b for a, b in zip(values["fused"], some, strict=True)])
            for key, some in values.items()
            if key != "fused"
        },
        "upload_bytes": max(row["upload_bytes"] for row in rows),
        "teacher_bytes": int(np.mean([size for row in rows for size in row["teacher_bytes"]])),
    }  # fmt: skip


def write(path: Path, found: dict[str, Any], validating: bool) -> None:
    """What is there so far, so that an interrupted run goes on."""
    found["peak_mib"] = max(found.get("peak_mib", 0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    if not validating:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def tell(*what: Any) -> None:
    print(*what, file=sys.stderr, flush=True)


def main() -> None:
    """One data set, as far as it was not measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--validate", action="store_true", help="choose, show it and keep nothing")
    given = parser.parse_args()
    began = time.perf_counter()
    bench = {"cifar10": cifar10, "amazon": amazon, "office": office}[given.name]()
    tell("features", round(time.perf_counter() - began, 1))
    start = start_of(bench)
    path = sections.RESULTS / f"distill-{given.name}.json"
    found: dict[str, Any] = {} if given.validate or not path.exists() else json.loads(path.read_text(encoding="utf-8"))
    found |= {"task": bench.about, "student": dataclasses.asdict(bench.student), "machine": machine()}
    forms = found.setdefault("forms", {})
    for form in ("distill_head", "distill"):
        kept_form = forms.setdefault(form, {"seeds": []})
        if "choices" not in kept_form:
            kept_form["choices"] = head_choices(bench) if form == "distill_head" else network_choices(bench, start)
            tell(form, json.dumps(kept_form["choices"]))
            write(path, found, given.validate)
        for seed in range(len(kept_form["seeds"]), 0 if given.validate else given.seeds):
            choices = kept_form["choices"]
            row = (
                head_seed(bench, choices, seed) if form == "distill_head" else network_seed(bench, start, choices, seed)
            )
            kept_form["seeds"].append(row)
            kept_form["summary"] = summary(kept_form["seeds"])
            tell(form, seed, json.dumps(row["accuracy"]))
            write(path, found, given.validate)
    if not given.validate:
        patient(bench, start, forms["distill"], lambda: write(path, found, validating=False))
        print(json.dumps({form: one["summary"] for form, one in forms.items()}, indent=1))


SHOWN = (
    ("mean student", "student alone, mean"), ("best student", "best"), ("mean teacher", "teacher alone, mean"),
    ("best teacher", "best"), ("fused", "**fused student**"), ("without a teacher", "fused, from labels alone"),
    ("without the prior", "fused, no prior"), ("teachers cut to equal bytes", "teachers cut to its bytes"),
)  # fmt: skip


def section() -> Iterator[str]:
    """Of docs/benchmarks.md: distillation on five data sets."""
    found = list(rounds())
    if not found:
        return
    yield "## Distillation, and what the teacher adds\n"
    yield (
        "Every client teaches a small student by a teacher of its own and sends the student, once; accuracy in per "
        "cent, means over the splits. Teachers are the most accurate of three listed ones on rows held out (heart "
        "disease: each hospital's own choice); ways to teach were chosen on validation rows. *Cut*: the same clients' "
        "teachers, cut until they take the student's bytes, kept as an ensemble. What the teacher adds is the fused "
        "student's paired gain over the same student from the labels alone, in points, with its 95 % interval by "
        "Student's t. More controls, every split and what was tried: the JSON.\n"
    )
    names = ("data, form", "splits", *(name for _, name in SHOWN), "upload", "teacher", "the teacher adds")
    yield sections.table(names, [_cells(*one) for one in found])


def rounds() -> Iterator[tuple[str, int, Mapping[str, Any], int, int]]:
    """Of every result that is kept: data and form, splits, summary, bytes of the upload and of a teacher."""
    for title, name in (("heart disease", "heart"), ("MNIST", "mnist")):
        if (told := sections.result_of(f"distill-{name}")) is not None:
            rows = told.get("splits") or told["seeds"]
            sizes = [size for row in rows for size in np.atleast_1d(row["teacher_bytes"])]
            upload = max(row["upload_bytes"] for row in rows)
            yield f"{title}, `{told['method']}`", len(rows), told["summary"], upload, int(np.mean(sizes))
    for title, name in (("CIFAR-10", "cifar10"), ("Amazon", "amazon"), ("Office-Caltech10", "office")):
        if (told := sections.result_of(f"distill-{name}")) is not None:
            for form, one in told["forms"].items():
                if "summary" in one:
                    both = one["summary"]["upload_bytes"], one["summary"]["teacher_bytes"]
                    yield f"{title}, `{form}`", len(one["seeds"]), one["summary"], *both


def _cells(title: str, splits: int, told: Mapping[str, Any], upload: int, teacher_bytes: int) -> list[str]:
    means = {key: value["mean"] if isinstance(value, dict) else value for key, value in told["accuracy"].items()}
    gain = told["gain"]["fused - without a teacher"]
    shares = [f"{100 * means[key]:.1f}" if key in means else "" for key, _ in SHOWN]
    adds = f"{100 * gain['mean']:+.1f} ({100 * gain['low']:.1f} to {100 * gain['high']:.1f})"
    return [title, str(splits), *shares, size_text(upload), size_text(teacher_bytes), adds]


def machine() -> dict[str, Any]:
    """What a time or a last digit may depend on."""
    from importlib.metadata import version

    versions = {name: version(name) for name in ("numpy", "scikit-learn", "torch")}
    return {"python": platform.python_version(), "cores": os.cpu_count(), "fusionlearn": fl.__version__, **versions}


if __name__ == "__main__":
    main()
