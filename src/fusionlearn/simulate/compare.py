"""One-shot against traditional federated learning, on one user's data: the same rows, partitions and seeds for all.

For each seed a quarter of the rows is the test half nobody learns from; the others are divided over the clients.
One-shot methods run through `simulate`. Rivals (`rounds`) run on the very features the task's encoder gives, and on a
network, which may read the columns in another way (`network_encoder`). Learning rates are chosen on validation rows, a
fifth of the training rows of the first seed, each rival with the same number of tries of up to 15 rounds; test rows
are looked at once a seed. What is reported of a rival is its last round. Whatever is finished is kept at once, so that
an interrupted comparison loses one method or one rival at most.

    isolated    each client's own update fused alone: what it would have without anyone
    pooled      the best of logistic regression, boosted trees and an MLP on all training rows in one place, chosen on
                the validation rows; and the task's own method on one client that holds everything
    elapsed     by the clock here; under a network, see `Network.elapsed`
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import file, partition, plugin, run
from fusionlearn.encoder import Chain, Encoder
from fusionlearn.errors import FusionlearnError, SettingsError
from fusionlearn.method import GROUP, METHODS, Method, make
from fusionlearn.partition import Partition
from fusionlearn.privacy import membership
from fusionlearn.problem import (
    LABEL,
    ClassLabel,
    Number,
    NumberLabel,
    Problem,
    Schema,
    Vector,
    canonical,
    parse_numbers,
)
from fusionlearn.simulate.rounds import ALGORITHMS, Head, Local, Net, Rival, federate
from fusionlearn.simulate.runners import Runner
from fusionlearn.simulate.simulation import Simulated, raw_bytes, rows_of, simulate
from fusionlearn.types import Model, Task, Update

TEST, VALIDATION = 0.25, 0.2  # of all rows, of the training rows
RARE = 0.1  # share of the rarer of two classes below which accuracy says nothing
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)  # learning rates each rival may try
SERVER_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)  # FedAdam's own, at the clients' rate that FedAvg chose
PROXIMAL = (0.001, 0.01, 0.1, 0.3, 1.0)  # FedProx's μ, at the same rate
CANDIDATES = ("ridge", "gaussian", "ensemble", "distill_head")  # besides the task's own method
SHOWN = {"fedavg": "FedAvg", "fedprox": "FedProx", "fedadam": "FedAdam"}
SHORT_ROUNDS = 15  # rounds of a try on validation rows, and of those a membership attack sees
MOST_VICTIMS, MOST_SCORED = 8, 400  # clients attacked, and rows of each that are scored
MOST_ALONE = 100  # clients whose own models are judged


@dataclass(frozen=True)
class Network:
    """A stated network between clients and server."""

    megabits: float = 20.0  # a second, each way, for each client
    milliseconds: float = 50.0  # one way
    stragglers: float = 0.1  # share of clients that take ten times as long, for everything

    def elapsed(self, rounds: int, down: float, up: float, seconds: float, clients: int) -> float:
        """Seconds until the last round's last answer: a synchronous round waits for its slowest client.

        rounds · slow · (2 · latency + 8 · (down + up) / rate + seconds), slow = 10 where a straggler takes part. Even
        one-shot learning waits for its stragglers, once.

        down, up  bytes a client gets and sends in a round
        seconds   the slowest client computes in a round
        """
        slow = 10.0 if self.stragglers > 0 and clients * self.stragglers >= 0.5 else 1.0
        return rounds * slow * (2 * self.milliseconds / 1e3 + 8 * (down + up) / (self.megabits * 1e6) + seconds)


def parse_network(text: str) -> Network:
    """A network written like 20Mbit,50ms,10%. Errors: SettingsError."""
    import re

    found = re.fullmatch(r"\s*([\d.]+)\s*Mbit\s*,\s*([\d.]+)\s*ms\s*,\s*([\d.]+)\s*%\s*", text)
    if not found or float(found[1]) <= 0:
        raise SettingsError(f"'{text[:40]}' is no network: write it like 20Mbit,50ms,10%.")
    return Network(float(found[1]), float(found[2]), float(found[3]) / 100)


@dataclass(frozen=True)
class Question:
    """What is compared."""

    task: Task
    partition: Partition
    clients: int
    seeds: int
    rounds: int = 50
    methods: tuple[str, ...] = ()  # besides the task's own; (): CANDIDATES
    networks: tuple[str, ...] = ("mlp",)  # of which the rivals get the one with the best validation figure
    epochs: int = 1  # local, of the rivals
    network: Network = field(default_factory=Network)
    first_seed: int = 0
    network_encoder: tuple[Encoder, ...] = ()  # what networks and pooled models read; (): the task's own features
    tuning_rounds: int = SHORT_ROUNDS  # of a try on validation rows, at most

    def settings(self) -> dict[str, Any]:
        """As JSON, so that a second run knows whether it goes on with the first."""
        told: dict[str, Any] = {
            "task": file.digest(self.task), "partition": str(self.partition), "clients": self.clients,
            "rounds": self.rounds, "methods": list(self.methods), "networks": list(self.networks),
            "epochs": self.epochs, "network": dataclasses.asdict(self.network),
        }  # fmt: skip
        if self.network_encoder:
            told["network_encoder"] = [plugin.to_json(part) for part in self.network_encoder]
        if self.tuning_rounds != SHORT_ROUNDS:
            told["tuning_rounds"] = self.tuning_rounds
        return told


# --- figures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """How answers are judged; larger is better."""

    name: str
    why: str

    def of(self, truth: NDArray[Any], found: NDArray[np.float64], schema: Schema) -> float:
        """The figure of probabilities (n, c) or values (n,)."""
        if self.name == "average precision":
            from sklearn.metrics import average_precision_score

            return float(average_precision_score(truth == 1, found[:, 1]))
        figures = run.metrics(truth, found, schema)
        return float(figures["r2" if self.name == "R²" else "accuracy"] or 0.0)


def metric_for(schema: Schema, truth: NDArray[Any]) -> Metric:
    """Accuracy; average precision where one of two classes is rare; R² for numbers. Errors: SettingsError for texts."""
    if schema.kind == "text":
        raise SettingsError("compare knows no rivals for labels of text: compare classes or numbers.")
    if not schema.labels:
        return Metric("R²", "the label is a number")
    if len(schema.labels) == 2:
        share = float((truth == 1).mean())
        if share < RARE:
            return Metric("average precision", f"{share:.1%} of the rows are '{schema.labels[1]}'")
    return Metric("accuracy", "")


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """One seed's rows: who learns from which, and what all are judged on."""

    train: dict[str, Any]
    test: dict[str, Any]
    parts: list[NDArray[np.int64]]  # of the training rows
    names: list[str]
    digest: str  # of the partition in row numbers of the whole table
    rows: NDArray[np.int64]  # of the whole table, that `train` are


def split(question: Question, data: Mapping[str, Any], seed: int) -> Split:
    """A quarter of the rows for testing, the others divided over the clients; or both as a file says."""
    rows = len(next(iter(data.values())))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    saved = partition.load(Path(question.partition.value), rows) if question.partition.kind == "file" else None
    if saved is not None and saved.held_out is not None:
        test = saved.held_out
    else:
        test = rng.permutation(rows)[: round(rows * TEST)]
    train = np.setdiff1d(np.arange(rows), test)
    if not len(test) or not len(train):
        raise SettingsError(f"{rows} rows are too few to hold a quarter back for testing.")
    learned = rows_of(data, train)
    if saved is not None:
        place = np.full(rows, -1, np.int64)
        place[train] = np.arange(len(train))
        parts, names = [place[part][place[part] >= 0] for part in saved.parts], saved.names
    else:
        columns = learned if question.partition.kind == "column" else numbers(question.task.schema, learned)
        labels = class_codes(question.task.schema, learned)
        parts, names = question.partition.split(labels, columns, question.clients, rng=rng)
    digest = partition.digest([train[part] for part in parts])
    return Split(learned, rows_of(data, np.sort(test)), parts, names, digest, train)


def class_codes(schema: Schema, data: Mapping[str, Any]) -> NDArray[Any]:
    """Each row's class as the task counts them, -1 where it is missing or none; numbers where the label is one."""
    label = schema.label
    cells = data.get(label.column)
    if cells is None:
        raise SettingsError(f"the data have no column '{label.column}', the task's label.")
    if isinstance(label, NumberLabel):
        return parse_numbers(cells)[0]
    if not isinstance(label, ClassLabel):  # a text: there are no classes to be uneven in
        return np.zeros(len(cells), np.int64)
    known = {value: code for code, (_, values) in enumerate(label.classes) for value in values}
    codes: dict[Any, int] = {}
    for cell in np.asarray(cells).tolist():
        if cell not in codes:
            codes[cell] = known.get(canonical(cell), -1)
    return np.array([codes[cell] for cell in np.asarray(cells).tolist()], np.int64)


def numbers(schema: Schema, data: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """The task's columns that hold numbers, for partitions by features; the label is none of them."""
    named = [name for name, column in schema.columns.items() if isinstance(column, Number | Vector) and name in data]
    return {name: parse_numbers(data[name])[0] for name in named}


@dataclass(frozen=True)
class Encoded:
    """Features of all clients and the test rows, as the rivals get them: mean 0 and variance 1 over all clients."""

    clients: list[tuple[NDArray[Any], NDArray[Any]]]
    test: NDArray[Any]
    truth: NDArray[Any]
    problem: Problem


def encoded(task: Task, rows: Split) -> Encoded:
    """The task's features, standardised by the moments of all clients; an image's pixels all alike."""
    everything, labels, kept = _encode(task, rows.train, "training rows")
    place = np.cumsum(kept) - 1  # rows that lack a value the task needs take no part
    parts = [place[part[kept[part]]] for part in rows.parts]
    held = np.concatenate([np.empty(0, np.int64), *parts])
    mean, deviation = _moments(task, everything[held])
    test, truth, _ = _encode(task, rows.test, "test rows")

    def scaled(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray((x - mean) / deviation, np.float32)

    clients = [(scaled(everything[part]), labels[part]) for part in parts if len(part)]
    return Encoded(clients, scaled(test), truth, task.problem)


def _moments(task: Task, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each feature's mean and deviation; where the features are one vector's own entries, those of all entries."""
    columns = list(task.schema.columns.values())
    if [part.name for part in task.encoder.encoders] == ["table"] and len(columns) == 1 and _is_image(columns[0]):
        return x.mean(), x.std()
    deviation = x.std(axis=0)
    return x.mean(axis=0), np.where(deviation > 1e-7, deviation, 1.0)


def _is_image(column: Any) -> bool:
    """Whether a column's entries are of one kind, such as grey values: a rarely lit pixel is not to be blown up."""
    return isinstance(column, Vector) and (column.low, column.high) == (0, 255)


def for_networks(question: Question) -> Task:
    """The task as networks and pooled models read its columns."""
    if not question.network_encoder:
        return question.task
    return dataclasses.replace(
        question.task, encoder=Chain(question.network_encoder), max_bytes=0, signer="", signature=""
    )


def _encode(task: Task, data: Mapping[str, Any], place: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    features, labels, kept = [], [], []
    for piece in run.pieces(data, run.chunk_rows(task)):
        table, made, _ = run.encode(task, piece, place)
        features.append(np.asarray(made["x"], np.float32))
        labels.append(np.asarray(made[LABEL]))
        kept.append(table.kept)
    return np.concatenate(features), np.concatenate(labels), np.concatenate(kept)


# --- one-shot rows --------------------------------------------------------------------------------------------------


def one_shot_tasks(question: Question) -> dict[str, Task | str]:
    """The task itself and the same with other methods; a sentence in a method's place where it does not fit."""
    task = question.task
    found: dict[str, Task | str] = {task.method.name: task}
    for text in question.methods or CANDIDATES:
        name = text.partition(":")[0]
        if text in found or (name == task.method.name and text == name):
            continue
        try:
            method = make(text) if ":" not in text else plugin.parse(Method, text, METHODS, GROUP)  # type: ignore[type-abstract]
            found[text] = dataclasses.replace(task, method=method, max_bytes=0, signer="", signature="")
        except FusionlearnError as error:
            if question.methods:
                found[text] = str(error)
    return found


def one_shot(
    task: Task, rows: Split, metric: Metric, *, seed: int, runner: Runner, network: Network, alone: bool,
    step: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """A one-shot method's row for one seed."""
    own: list[tuple[int, Update]] = []

    def keep(number: int, update: Update) -> None:
        if alone and len(own) < MOST_ALONE:
            own.append((number, update))

    found = simulate(task, rows.train, rows.parts, runner=runner, seed=seed, keep=keep, step=step)
    down, up = len(file.to_bytes(task)), found.most_bytes
    told: dict[str, Any] = {
        "value": judged(found.model, rows.test, metric),
        "rounds": 1,
        "clients": found.clients,
        "empty": found.empty,
        "client_seconds": found.client_seconds,
        "elapsed": found.elapsed,
        "elapsed_network": network.elapsed(1, down, up, found.most_seconds, found.clients) + found.server_seconds,
        "up": found.upload_bytes / found.clients,
        "down": down + len(file.to_bytes(found.model)),
        "up_total": found.upload_bytes,
        "raw": found.raw_bytes / found.clients,
        "larger_than_data": _larger(found, rows),
    }
    if alone:
        told["alone"] = [
            {"client": rows.names[number], "rows": len(rows.parts[number]), "value": _alone(task, update, rows, metric)}
            for number, update in own
        ]
    return told


def _larger(found: Simulated, rows: Split) -> int:
    """For how many clients the update is larger than the rows it was made from."""
    sizes = [raw_bytes(rows.train, part) for part in rows.parts if len(part)]
    return sum(found.most_bytes > size for size in sizes)


def _alone(task: Task, update: Update, rows: Split, metric: Metric) -> float | None:
    """What a client has without the others; a client of one class knows that class only."""
    try:
        model, _ = run.fuse(task, [update])
        return judged(model, rows.test, metric)
    except FusionlearnError:
        return None


def judged(model: Model, test: Mapping[str, Any], metric: Metric) -> float:
    """The metric of a model on the test rows."""
    found, truth = [], []
    for piece in run.pieces(test, run.chunk_rows(model)):
        table, made, _ = run.encode(model, piece, "test rows")
        answers = model.method.predict(model.arrays, made, model.problem, model.prior)
        found.append(np.asarray(answers["probability" if model.schema.labels else "value"]))
        truth.append(table.data[LABEL])
    values = np.concatenate(found)
    return metric.of(np.concatenate(truth), values if model.schema.labels else values.reshape(-1), model.schema)


def attacked(task: Task, rows: Split, seed: int) -> membership.Measured | None:
    """How well members of single clients are told from what each sends, once."""
    seen = membership.Seen()
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(9,)))
    for inside, outside in _victims(rows.parts, rng).values():
        try:
            update = run.summarize(task, rows_of(rows.train, inside))
        except FusionlearnError:
            continue
        sides = [_encode(task, rows_of(rows.train, part[:MOST_SCORED]), "rows") for part in (inside, outside)]
        if not all(len(x) for x, _, _ in sides):
            continue
        moments = task.method.moments(update.arrays, task.problem)
        if moments is not None and moments.second is not None:
            members, others = (membership.leverage(moments.second, x) for x, _, _ in sides)
            seen.add("leverage", members, others)
        try:
            model, _ = run.fuse(task, [update])
        except FusionlearnError:  # a client of one class
            continue
        losses = []
        for x, y, _ in sides:
            found = model.method.predict(model.arrays, {"x": x}, model.problem, model.prior)
            losses.append(membership.loss(np.asarray(found["probability" if task.schema.labels else "value"]), y))
        seen.add("loss of its own model", losses[0], losses[1])
    return seen.best()


def _victims(
    parts: Sequence[NDArray[np.int64]], rng: np.random.Generator
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Some clients' rows, halved: client → those it learns from, those kept out."""
    found: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for number in rng.permutation(len(parts)).tolist():
        both = membership.halves(parts[number], rng)
        if both is not None and len(found) < MOST_VICTIMS:
            found[number] = both
    return found


def majority(rows: Split, task: Task, metric: Metric) -> float:
    """What always answering the commonest class, or the mean, would give."""
    _, labels, _ = _encode(task, rows.train, "training rows")
    _, truth, _ = _encode(task, rows.test, "test rows")
    if not task.schema.labels:
        return metric.of(truth, np.full(len(truth), labels.mean()), task.schema)
    shares = np.bincount(labels, minlength=len(task.schema.labels)) / len(labels)
    return metric.of(truth, np.tile(shares, (len(truth), 1)), task.schema)


# --- rivals ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One run of a rival, as it travels to a worker: where its rows are, and its settings."""

    folder: str
    learner: str  # "head", or a network's name
    rival: Rival
    metric: Metric
    schema: Schema
    problem: Problem
    seed: int


def _store(folder: Path, rows: Encoded) -> None:
    """Rows as files, so that workers read them and nothing large is sent to each."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", np.concatenate([x for x, _ in rows.clients]))
    np.save(folder / "y.npy", np.concatenate([y for _, y in rows.clients]))
    np.save(folder / "cuts.npy", np.cumsum([len(x) for x, _ in rows.clients])[:-1])
    np.save(folder / "test.npy", rows.test)
    np.save(folder / "truth.npy", rows.truth)


def run_cell(cell: Cell) -> dict[str, Any]:
    """A rival's whole run."""
    clients, test, truth = _load(cell)
    curve = federate(
        _learner(cell), clients, cell.rival, lambda found: cell.metric.of(truth, found, cell.schema), test,
        seed=cell.seed,
    )  # fmt: skip
    return dataclasses.asdict(curve)


def _load(cell: Cell) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], NDArray[Any], NDArray[Any]]:
    folder = Path(cell.folder)
    x, y, cuts, test, truth = (
        np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("x", "y", "cuts", "test", "truth")
    )
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True)), test, truth


def _learner(cell: Cell) -> Head | Net:
    return Head(cell.problem) if cell.learner == "head" else Net(cell.problem, cell.learner)


def attack_cell(cell: Cell) -> dict[str, Any] | None:
    """How well members of single clients are told from what each sends, round after round."""
    clients, _, _ = _load(cell)
    rng = np.random.default_rng(np.random.SeedSequence(cell.seed, spawn_key=(9,)))
    parts = [np.arange(len(x)) for x, _ in clients]
    learner = _learner(cell)
    victims = _victims(parts, rng)
    views = {}
    for number, (inside, outside) in victims.items():
        x, y = clients[number]
        sides = [(x[part[:MOST_SCORED]], y[part[:MOST_SCORED]]) for part in (inside, outside)]
        views[number] = membership.Rounds(learner.answer, sides[0], sides[1])
        clients[number] = (x[inside], y[inside])

    def seen(_number: int, before: Any, sent: list[Any]) -> None:
        for client, view in views.items():
            view.see(before, sent[client])

    rival = dataclasses.replace(cell.rival, per_round=0, rounds=min(cell.rival.rounds, SHORT_ROUNDS))
    federate(learner, clients, rival, lambda _found: 0.0, clients[0][0][:1], seed=cell.seed, seen=seen)
    found = membership.Seen()
    for view in views.values():
        view.tell(found)
    best = found.best()
    return dataclasses.asdict(best) if best is not None else None


def _rival_row(curve: Mapping[str, Any], rounds: int, network: Network, clients: int) -> dict[str, Any]:
    size, taking = curve["weights_bytes"], curve["taking_part"]
    slowest = statistics.fmean(curve["slowest"])
    return {
        "value": curve["value"][-1],
        "curve": list(curve["value"]),
        "rounds": rounds,
        "clients": clients,
        "client_seconds": curve["client_seconds"][-1],
        "elapsed": curve["elapsed"],
        "elapsed_network": network.elapsed(rounds, size, size, slowest, taking),
        "weights_bytes": size,
        "up": size * rounds * taking / clients,
        "down": size * rounds * taking / clients,
        "up_total": size * rounds * taking,
    }


@dataclass(frozen=True)
class Views:
    """The rows in a folder, as the head reads them and as the networks do."""

    folder: Path
    problems: dict[str, Problem]

    def cell(self, question: Question, learner: str, rival: Rival, metric: Metric, seed: int) -> Cell:
        """A rival's run on the rows it reads."""
        view = _view(question, learner)
        schema = question.task.schema
        return Cell(str(self.folder / view), learner, rival, metric, schema, self.problems[view], seed)


def _view(question: Question, learner: str) -> str:
    return "networks" if question.network_encoder and learner != "head" else "own"


def _stored(folder: Path, views: Mapping[str, Encoded]) -> Views:
    for name, rows in views.items():
        _store(folder / name, rows)
    return Views(folder, {name: rows.problem for name, rows in views.items()})


def _views(question: Question, rows: Split) -> dict[str, Encoded]:
    found = {"own": encoded(question.task, rows)}
    return found | ({"networks": encoded(for_networks(question), rows)} if question.network_encoder else {})


def _tune(
    question: Question, views: Views, metric: Metric, runner: Runner, known: dict[str, Any], keep: Callable[[], None]
) -> dict[str, Any]:
    """Each rival's best settings on the validation rows: five tries each, and the network with the best figure.

    known  what an interrupted run found, to which is added; `keep` is called after each addition
    """
    learners = ("head", *question.networks)

    def cell(learner: str, rival: Rival) -> Cell:
        return views.cell(question, learner, rival, metric, question.first_seed)

    def local(rate: float, proximal: float = 0.0) -> Local:
        return Local(question.epochs, rate=rate, proximal=proximal)

    rounds = min(question.rounds, question.tuning_rounds)
    tries: dict[tuple[str, str], list[Rival]] = {
        (learner, "fedavg"): [Rival("fedavg", rounds, local(rate)) for rate in RATES] for learner in learners
    }
    chosen = _best(tries, cell, runner, known, keep)
    second: dict[tuple[str, str], list[Rival]] = {}
    for learner in learners:
        rate = chosen[f"{learner} fedavg"]["rival"]["local"]["rate"]
        second[learner, "fedprox"] = [Rival("fedprox", rounds, local(rate, mu)) for mu in PROXIMAL]
        second[learner, "fedadam"] = [
            Rival("fedadam", rounds, local(rate), server_rate=other) for other in SERVER_RATES
        ]
    chosen = _best(second, cell, runner, chosen, keep)
    best = max(question.networks, key=lambda name: chosen[f"{name} fedavg"]["validation"])
    return {
        f"{SHOWN[algorithm]}, {'same head' if learner == 'head' else _short(best)}": {
            "learner": learner, **chosen[f"{learner} {algorithm}"],
        }
        for learner in ("head", best)
        for algorithm in ALGORITHMS
    }  # fmt: skip


def _short(network: str) -> str:
    """A network's name without its settings."""
    return network.partition(":")[0]


def _best(
    tries: Mapping[tuple[str, str], Sequence[Rival]], cell: Callable[[str, Rival], Cell], runner: Runner,
    known: dict[str, Any], keep: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """Of each rival's tries the one with the best last round; what is known already is not tried again."""
    jobs = [(key, rival) for key, rivals in tries.items() if " ".join(key) not in known for rival in rivals]
    curves = runner(run_cell, (cell(key[0], rival) for key, rival in jobs))
    found: dict[str, Any] = {}
    for (key, rival), (number, curve) in zip(jobs, enumerate(curves, 1), strict=True):
        name, value = " ".join(key), curve["value"][-1]
        if name not in found or value > found[name]["validation"]:
            found[name] = {"rival": dataclasses.asdict(rival), "tries": len(tries[key]), "validation": value}
        if number == len(jobs) or jobs[number][0] != key:
            known[name] = found[name]
            keep()
    return known


# --- the ceiling ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """A job: the best that a data centre would fit, as it travels to a worker."""

    train: Any
    labels: Any
    test: Any
    truth: Any
    metric: Metric
    schema: Schema
    seed: int


def pooled(job: Pool) -> dict[str, Any]:
    """The best of logistic (or ridge) regression, boosted trees and an MLP, chosen on a fifth of the training rows."""
    import warnings

    rng = np.random.default_rng(job.seed)
    order = rng.permutation(len(job.train))
    cut = max(1, round(len(order) * VALIDATION))
    held, fit = order[:cut], order[cut:]
    found: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged is judged as it is
        for name, maker in _estimators(job.schema, job.seed).items():
            made = maker().fit(job.train[fit], job.labels[fit])
            found[name] = job.metric.of(job.labels[held], _answers(made, job.train[held], job.schema), job.schema)
        best = max(found, key=lambda name: found[name])
        made = _estimators(job.schema, job.seed)[best]().fit(job.train, job.labels)
    return {"best": best, "value": job.metric.of(job.truth, _answers(made, job.test, job.schema), job.schema)}


def _estimators(schema: Schema, seed: int) -> dict[str, Callable[[], Any]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if not schema.labels:
        return {
            "ridge regression": lambda: RidgeCV(np.logspace(-3, 4, 15)),
            "boosted trees": lambda: HistGradientBoostingRegressor(random_state=seed),
            "MLP": lambda: MLPRegressor(early_stopping=True, random_state=seed),
        }
    return {
        "logistic regression": lambda: LogisticRegression(max_iter=300),
        "boosted trees": lambda: HistGradientBoostingClassifier(max_iter=60, random_state=seed),
        "MLP": lambda: MLPClassifier(early_stopping=True, random_state=seed, max_iter=60),
    }


def _answers(made: Any, x: NDArray[Any], schema: Schema) -> NDArray[np.float64]:
    if not schema.labels:
        return np.asarray(made.predict(x), np.float64)
    found = np.zeros((len(x), len(schema.labels)))
    found[:, made.classes_.astype(int)] = made.predict_proba(x)
    return found


# --- the whole ------------------------------------------------------------------------------------------------------


def compare(
    question: Question,
    data: Mapping[str, Any],
    runner: Runner,
    *,
    known: Mapping[str, Any] | None = None,
    done: Callable[[dict[str, Any]], None] = lambda _result: None,
    tell: Callable[[str, float], None] = lambda _what, _share: None,
) -> dict[str, Any]:
    """The whole comparison, as JSON values.

    known  what an earlier run with the same settings finished; it is not run again
    done   is called with the result so far after each part, so that an interruption loses one part at most
    tell   is told what is being done, and the share that is finished
    """
    task = question.task
    result: dict[str, Any] = dict(known) if known else {"settings": question.settings(), "seeds": {}}
    seeds = range(question.first_seed, question.first_seed + question.seeds)
    labels = class_codes(task.schema, data)
    metric = metric_for(task.schema, _codes(task, data) if len(task.schema.labels) == 2 else labels)
    result |= {"metric": metric.name, "metric_why": metric.why, "rows": len(labels), "name": task.name}
    steps = Steps(tell, 1 + question.seeds)
    unfinished = result.setdefault("unfinished", {"tries": {}, "seeds": {}})

    def keep() -> None:
        done(result)

    if "tuning" not in result:
        steps.say("choosing the rivals' learning rates on validation rows")
        result["tuning"] = _tuning(question, data, metric, runner, unfinished["tries"], keep)
        keep()
    steps.next()
    for seed in map(str, seeds):
        found = result["seeds"].get(seed) or unfinished["seeds"].setdefault(seed, {})
        _one_seed(question, data, int(seed), metric, result["tuning"], runner, steps, found, keep)
        result["seeds"][seed] = found
        unfinished["seeds"].pop(seed, None)
        keep()
        steps.next()
    del result["unfinished"]
    result["table"] = table(question, {str(seed): result["seeds"][str(seed)] for seed in seeds})
    done(result)
    return result


@dataclass
class Steps:
    """Tells what is being done, and how much of all is finished."""

    tell: Callable[[str, float], None]
    of: int
    finished: int = 0

    def say(self, what: str) -> None:
        """Something begins."""
        self.tell(what, self.finished / self.of)

    def next(self) -> None:
        """A step is done."""
        self.finished += 1
        self.tell("", self.finished / self.of)


def _codes(task: Task, data: Mapping[str, Any]) -> NDArray[Any]:
    return np.asarray(task.schema.read(data).data[LABEL])


def _tuning(
    question: Question, data: Mapping[str, Any], metric: Metric, runner: Runner, known: dict[str, Any],
    keep: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    rows = split(question, data, question.first_seed)
    views = {name: _validation(question, found) for name, found in _views(question, rows).items()}
    if not len(views["own"].truth):
        raise SettingsError("the clients have too few rows to hold any back for validation: use fewer clients.")
    with tempfile.TemporaryDirectory() as folder:
        return _tune(question, _stored(Path(folder), views), metric, runner, known, keep)


def _validation(question: Question, found: Encoded) -> Encoded:
    """A fifth of every client's training rows in the test rows' place, the others to learn from."""
    rng = np.random.default_rng(np.random.SeedSequence(question.first_seed, spawn_key=(8,)))
    held, clients = [], []
    for x, y in found.clients:
        order = rng.permutation(len(x))
        cut = round(len(x) * VALIDATION)
        held.append((x[order[:cut]], y[order[:cut]]))
        if cut < len(x):
            clients.append((x[np.sort(order[cut:])], y[np.sort(order[cut:])]))
    return Encoded(clients, np.concatenate([x for x, _ in held]), np.concatenate([y for _, y in held]), found.problem)


def _rival(told: Mapping[str, Any], rounds: int) -> Rival:
    return Rival(**{**told, "local": Local(**told["local"]), "rounds": rounds})


def _one_seed(
    question: Question, data: Mapping[str, Any], seed: int, metric: Metric, tuning: Mapping[str, Any], runner: Runner,
    steps: Steps, found: dict[str, Any], keep: Callable[[], None],
) -> None:  # fmt: skip
    """Adds to `found` what it does not hold yet, and has it kept after each part."""
    began, spent = time.perf_counter(), found.get("seconds", 0.0)
    tasks = one_shot_tasks(question)
    if _is_whole(found, tasks, tuning):
        return
    rows = split(question, data, seed)
    found |= {"partition": rows.digest, "sizes": [len(part) for part in rows.parts]}

    def note() -> None:
        found["seconds"] = spent + time.perf_counter() - began
        keep()

    _one_shot_rows(question, tasks, rows, seed, metric, runner, steps, found, note)
    if "pooled" in found and set(tuning) <= set(found["rivals"]):
        return
    views = _views(question, rows)
    _rival_rows(question, views, seed, metric, tuning, runner, steps, found, note)
    if "pooled" not in found:
        steps.say(f"seed {seed}: pooled")
        features = views.get("networks", views["own"])
        train, labels = (np.concatenate(parts) for parts in zip(*features.clients, strict=True))
        job = Pool(train, labels, features.test, features.truth, metric, question.task.schema, seed)
        pool = next(iter(runner(pooled, [job])))
        together = simulate(question.task, rows.train, [np.sort(np.concatenate(rows.parts))], runner=runner, seed=seed)
        found["majority"] = majority(rows, question.task, metric)
        found["pooled"] = pool | {"own": judged(together.model, rows.test, metric)}
    note()


def _is_whole(found: Mapping[str, Any], tasks: Mapping[str, Any], tuning: Mapping[str, Any]) -> bool:
    known = {*found.get("one_shot", {}), *found.get("refused", {})}
    return "pooled" in found and set(tasks) <= known and set(tuning) <= set(found["rivals"])


def _one_shot_rows(
    question: Question, tasks: Mapping[str, Task | str], rows: Split, seed: int, metric: Metric, runner: Runner,
    steps: Steps, found: dict[str, Any], note: Callable[[], None],
) -> None:  # fmt: skip
    before, refused = found.get("one_shot", {}), found.get("refused", {})
    found["one_shot"], found["refused"] = {}, {}
    for name, made in tasks.items():
        if name in before or name in refused:
            found["one_shot" if name in before else "refused"][name] = before.get(name, refused.get(name))
            continue
        if isinstance(made, str):
            found["refused"][name] = made
            continue
        steps.say(f"seed {seed}: {name}")
        try:
            told = one_shot(
                made, rows, metric, seed=seed, runner=runner, network=question.network,
                alone=made is question.task, step=lambda: None,
            )  # fmt: skip
            if seed == question.first_seed:
                measured = attacked(made, rows, seed)
                told["attack"] = dataclasses.asdict(measured) if measured is not None else None
            found["one_shot"][name] = told
        except FusionlearnError as error:
            if made is question.task:
                raise
            found["refused"][name] = str(error)
        note()


def _rival_rows(
    question: Question, views: Mapping[str, Encoded], seed: int, metric: Metric, tuning: Mapping[str, Any],
    runner: Runner, steps: Steps, found: dict[str, Any], note: Callable[[], None],
) -> None:  # fmt: skip
    known = found.setdefault("rivals", {})
    with tempfile.TemporaryDirectory() as folder:
        stored = _stored(Path(folder), views)
        cells = {
            name: stored.cell(question, entry["learner"], _rival(entry["rival"], question.rounds), metric, seed)
            for name, entry in tuning.items()
        }
        left = [name for name in tuning if name not in known]
        if left:
            steps.say(f"seed {seed}: rivals, {question.rounds} rounds each")
        for name, curve in zip(left, runner(run_cell, [cells[name] for name in left]), strict=True):
            known[name] = _rival_row(curve, question.rounds, question.network, len(views["own"].clients))
            note()
        if seed == question.first_seed:
            left = [name for name in tuning if "attack" not in known[name]]
            if left:
                steps.say(f"seed {seed}: membership attacks on what the server sees")
            for name, best in zip(left, runner(attack_cell, [cells[name] for name in left]), strict=True):
                known[name]["attack"] = best
                note()


# --- the table ------------------------------------------------------------------------------------------------------


def table(question: Question, seeds: Mapping[str, Any]) -> dict[str, Any]:
    """Means over the seeds, and what follows from them: the mission's table."""
    own = question.task.method.name
    rows = []
    for kind in ("one_shot", "rivals"):
        names = [name for name in next(iter(seeds.values()))[kind] if all(name in s[kind] for s in seeds.values())]
        for name in names:
            runs = [seed[kind][name] for seed in seeds.values()]
            rows.append(_table_row(name, kind, runs, mine=name == own and kind == "one_shot"))
    mine = next(row for row in rows if row["mine"])
    first = seeds.get(str(question.first_seed), {"one_shot": {}, "rivals": {}})
    for row in rows:
        row["rounds_to_reach"] = (
            [_reached(seed["rivals"][row["name"]]["curve"], seed["one_shot"][own]["value"]) for seed in seeds.values()]
            if row["kind"] == "rivals"
            else None
        )
        row["reached"] = rounds_text(row["rounds_to_reach"], row["rounds"]) if row["rounds_to_reach"] else ""
        row["attack"] = first[row["kind"]][row["name"]].get("attack")
        row["privacy"] = _privacy(row["attack"])
    alone = [[entry["value"] for entry in seed["one_shot"][own]["alone"] if entry["value"] is not None]
             for seed in seeds.values()]  # fmt: skip
    alone = [values for values in alone if values]
    ours = [row for row in rows if row["kind"] == "one_shot"]
    best = max(ours, key=lambda row: (row["value"], -row["up"]))  # of equals the one that sends least
    return {
        "rows": rows,
        "own": mine["name"],
        "best_one_shot": best["name"],
        "isolated": _spread([statistics.fmean(values) for values in alone]) if alone else None,
        "isolated_best": _spread([max(values) for values in alone]) if alone else None,
        "pooled": _spread([seed["pooled"]["value"] for seed in seeds.values()]),
        "pooled_by": sorted({seed["pooled"]["best"] for seed in seeds.values()}),
        "pooled_own": _spread([seed["pooled"]["own"] for seed in seeds.values()]),
        "majority": _spread([seed["majority"] for seed in seeds.values()]),
        "dominated": _dominated(rows, best, seeds),
        "partitions": [seed["partition"] for seed in seeds.values()],
        "empty": [seed["one_shot"][own]["empty"] for seed in seeds.values()],
        "larger_than_data": [seed["one_shot"][own]["larger_than_data"] for seed in seeds.values()],
        "leakier": _leakier(rows, best),
        "refused": next(iter(seeds.values()))["refused"],
    }  # fmt: skip


def _leakier(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> list[str]:
    """Rivals that give less away than the best one-shot row, beyond chance."""
    if not best.get("attack"):
        return []
    return [
        row["name"] for row in rows
        if row["kind"] == "rivals" and row.get("attack") and row["attack"]["high"] < best["attack"]["low"]
    ]  # fmt: skip


def _privacy(best: Mapping[str, Any] | None) -> str:
    return "" if best is None else f"{best['auc']:.2f} ±{(best['high'] - best['low']) / 2:.2f}"


def _dominated(
    rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any], seeds: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every rival that is, after some round, both more accurate and smaller in bytes than the best one-shot row."""
    found = []
    for row in rows:
        if row["kind"] != "rivals":
            continue
        curves = [seed["rivals"][row["name"]]["curve"] for seed in seeds.values()]
        means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
        each = row["up"] / row["rounds"]
        better = [
            number for number, value in enumerate(means, 1) if value > best["value"] and each * number < best["up"]
        ]
        if better:
            top = max(better, key=lambda number: means[number - 1])
            found.append({"name": row["name"], "round": top, "value": means[top - 1], "up": each * top})
    return found


def _table_row(name: str, kind: str, runs: Sequence[Mapping[str, Any]], *, mine: bool) -> dict[str, Any]:
    value, spread = _spread([entry["value"] for entry in runs])
    means = {
        key: statistics.fmean([entry[key] for entry in runs])
        for key in ("client_seconds", "elapsed", "elapsed_network", "up", "down", "up_total")
    }
    raw = statistics.fmean([entry["raw"] for entry in runs]) if kind == "one_shot" else None
    about = {"name": name, "kind": kind, "mine": mine, "rounds": runs[0]["rounds"], "raw": raw}
    return {**about, "value": value, "spread": spread, **means}


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _reached(curve: Sequence[float], value: float) -> int | None:
    """The first round from which on a rival has what the one-shot method has; None when it never does."""
    return next((number for number, reached in enumerate(curve, 1) if reached >= value), None)


def rounds_text(reached: Iterable[int | None], rounds: int) -> str:
    """In words: how many rounds a rival needs."""
    found = list(reached)
    known = [number for number in found if number is not None]
    if not known:
        return f"never in {rounds}"
    text = f"{statistics.median(known):.0f}"
    return text if len(known) == len(found) else f"{text} ({len(known)} of {len(found)} seeds)"


def frontier(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names of rows that no other row beats in both the metric and the bytes a client sends."""
    for row in rows:
        if not any(other["value"] > row["value"] and other["up"] < row["up"] for other in rows):
            yield str(row["name"])
