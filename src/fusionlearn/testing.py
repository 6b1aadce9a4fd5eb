"""The laws of methods and encoders, for everybody who writes one: `check_method(MyMethod)`, `check_encoder(MyEncoder)`.

A contract is an equation, so it is checked by computing both sides on tables that are drawn, the hard ones among them:
one row, one class, columns that never change, rows that repeat, numbers of very different size. What fails is told as
an AssertionError that names the law.

    settings    make(to_json(method)) == method
    declared    summarize gives the arrays that declare names, in dtype, shape and bounds; check accepts them
    purity      same inputs and rng → same output; inputs unchanged; the fused model does not depend on arrival order
    additive    fuse([a, b, c]) == fuse([a + b, c]) == fuse([a + b + c]), bit for bit
    exact       fuse(map(summarize, split(D))) == fuse([summarize(D)]) to rtol, for any split of D
    vectorised  summarize_many(ds) == [summarize(d) for d in ds]
    answers     predict gives finite probabilities that sum to 1, or finite values, a row each
    refusal     check refuses an array too many, one too few, and another dtype
    files       an update and a model are the same after writing and reading

It needs no test framework: call it from a test of any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, encoder, file, plugin, run
from fusionlearn.arrays import Arrays, Data, as_numpy
from fusionlearn.encoder import Chain, Encoder, X
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.method import Method
from fusionlearn.problem import LABEL, Category, ClassLabel, Column, Number, NumberLabel, Problem, Schema
from fusionlearn.types import Model, Noun, Privacy, Task, Update

KINDS = ("binary", "multiclass", "regression")
CLASSES = {"binary": ("no", "yes"), "multiclass": ("red", "green", "blue")}
MOST_CLIENTS = 5
TOLERANCE = 1e-12  # of probabilities that sum to 1


@dataclass(frozen=True)
class Case:
    """A question and the clients' raw tables for it."""

    schema: Schema
    tables: tuple[dict[str, NDArray[Any]], ...]  # one for each client, at least one row each

    @property
    def together(self) -> dict[str, NDArray[Any]]:
        """All rows in one table."""
        return {name: np.concatenate([table[name] for table in self.tables]) for name in self.tables[0]}


def draw(kind: str, rng: np.random.Generator) -> Case:
    """A question of that kind and one to five clients, easy and hard.

    At least two classes occur among all clients, one client may hold a single class, a single row, or the same row
    many times; one of the columns may never change, another is a million times larger than the rest.
    """
    count = int(rng.integers(1, MOST_CLIENTS + 1))
    sizes = [int(rng.choice([1, 2, 3, 20, 60])) for _ in range(count)]
    sizes[0] = max(sizes[0], 20)
    large = float(rng.choice([1.0, 1e6]))
    columns: dict[str, Column] = {
        "a": Number(-4.0, 4.0, center=0.0, scale=1.0),
        "b": Number(-4.0 * large, 4.0 * large),
        "still": Number(0.0, 10.0),
        "ward": Category(("north", "south", "west")),
    }
    label = (
        ClassLabel("label", {name: [name] for name in CLASSES[kind]})
        if kind in CLASSES
        else NumberLabel("label", -50, 50)
    )
    still, repeats = bool(rng.integers(2)), bool(rng.integers(2))
    tables = [_table(kind, size, large, still, repeats and number == 1, rng) for number, size in enumerate(sizes)]
    if kind in CLASSES:
        tables[0]["label"][:2] = CLASSES[kind][:2]
        if count > 1:
            tables[-1]["label"][:] = CLASSES[kind][int(rng.integers(2))]
    return Case(Schema(columns, label), tuple(tables))


def _table(
    kind: str, rows: int, large: float, still: bool, repeats: bool, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    a, b = np.clip(rng.normal(size=(2, rows)), -4, 4)
    score = a - 0.5 * b + rng.normal(size=rows) / 2
    if kind == "regression":
        label: NDArray[Any] = np.clip(10 * score, -50, 50)
    else:
        edges = np.linspace(-1, 1, len(CLASSES[kind]) + 1)[1:-1]
        label = np.array(CLASSES[kind], dtype=object)[np.digitize(score, edges)]
    table = {
        "a": a,
        "b": b * large,
        "still": np.full(rows, 3.0) if still else rng.uniform(0, 10, rows),
        "ward": np.array(["north", "south", "west"], dtype=object)[rng.integers(0, 3, rows)],
        "label": label,
    }
    return {name: np.repeat(cells[:1], rows, axis=0) for name, cells in table.items()} if repeats else table


# --- methods --------------------------------------------------------------------------------------------------------


def check_method(method: Method | type[Method], *, kinds: Sequence[str] = KINDS, tries: int = 8, seed: int = 0) -> None:
    """Hold a method to every law it promises, on `tries` drawn tables of each kind of question.

    method  an instance, or a class to be made with its default settings; it need not be registered
    kinds   of "binary", "multiclass", "regression"; those it refuses with a SettingsError are passed over
    Errors: AssertionError that names the law, the kind and the try; ImportError when a package it needs is missing.
    """
    subject = method() if isinstance(method, type) else method
    _settings(subject)
    answered = 0
    for kind in kinds:
        for number in range(tries):
            rng = np.random.default_rng([seed, number, KINDS.index(kind)])
            case = draw(kind, rng)
            try:
                task = _task(case.schema, subject)
            except SettingsError:
                break
            answered += 1
            place = f"{subject.name}, {kind}, try {number}"
            _laws(subject, task, case, place)
    assert answered, f"{subject.name}: it refuses every kind of question of {', '.join(kinds)}."


def _task(schema: Schema, method: Method) -> Task:
    return Task(
        "laws",
        schema,
        Chain((encoder.make("table"),)),
        method,
        Privacy("none", small_cells="allow"),
        max_records=10_000,
    )


def _laws(method: Method, task: Task, case: Case, place: str) -> None:
    problem, prior = task.problem, task.prior
    clients = [_encoded(task, table) for table in case.tables]
    summaries = [_summarize(method, data, problem, prior) for data in clients]
    _declared(method, clients, summaries, problem, prior, place)
    model = _fuse(method, summaries, problem, prior)
    for other in (list(reversed(summaries)), summaries[1:] + summaries[:1]):
        _same(_fuse(method, _sorted(other), problem, prior), _fuse(method, _sorted(summaries), problem, prior), 0.0,
              f"{place}: purity: the model depends on the order of the updates")  # fmt: skip
    if method.additive:
        _additive(method, summaries, model, problem, prior, place)
    if method.exact:
        whole = _summarize(method, _encoded(task, case.together), problem, prior)
        _same(model, _fuse(method, [whole], problem, prior), method.rtol, f"{place}: exact: split and whole differ")
    rngs = [np.random.default_rng(7) for _ in clients]
    for one, many in zip(summaries, method.summarize_many(clients, problem, prior, rngs=rngs), strict=True):
        _same(_host(many), one, 0.0, f"{place}: vectorised: summarize_many and summarize differ")
    _answers(method, model, clients[0], problem, prior, place)
    _refusal(method, summaries[0], problem, prior, place)
    _files(task, case, place)


def _encoded(task: Task, table: Data) -> dict[str, Any]:
    clean = task.schema.read(table)
    return dict(task.encoder.encode(clean.data, task.schema, task.prior))


def _summarize(method: Method, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
    return _host(method.summarize(data, problem, prior, rng=np.random.default_rng(7)))


def _fuse(method: Method, summaries: Sequence[Arrays], problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
    return method.fuse(summaries, problem, prior, rng=np.random.default_rng(7))[0]


def _host(found: Arrays) -> dict[str, NDArray[Any]]:
    return {name: as_numpy(array) for name, array in found.items()}


def _sorted(summaries: Sequence[Arrays]) -> list[Arrays]:
    """As the server hands them over: in an order that does not depend on their arrival."""
    return sorted(summaries, key=lambda summary: [summary[name].tobytes() for name in sorted(summary)])


def _same(left: Arrays, right: Arrays, rtol: float, law: str) -> None:
    """Equal names and shapes, entries within rtol of the array's largest; 0: bit for bit."""
    assert set(left) == set(right), f"{law}: arrays {sorted(left)} against {sorted(right)}."
    for name in left:
        a, b = np.asarray(left[name]), np.asarray(right[name])
        assert a.dtype == b.dtype and a.shape == b.shape, (
            f"{law}: '{name}' is {a.dtype}{a.shape} and {b.dtype}{b.shape}."
        )
        if rtol == 0.0:
            assert a.tobytes() == b.tobytes(), f"{law}: '{name}' is not the same, bit for bit."
        elif a.size:
            gap = float(np.abs(a - b).max())
            assert gap <= rtol * max(float(np.abs(b).max()), 1e-300), f"{law}: '{name}' by {gap:g}, rtol is {rtol:g}."


def _declared(
    method: Method, clients: Sequence[Data], summaries: Sequence[Arrays], problem: Problem, prior: Arrays, place: str
) -> None:
    for data, summary in zip(clients, summaries, strict=True):
        try:
            arrays.check(summary, method.declare(problem, prior), place)
            method.check(summary, problem, prior, place)
        except UpdateError as error:
            raise AssertionError(f"{place}: declared: check refuses what summarize made: {error}") from error
        kept = {name: np.array(as_numpy(cells)) for name, cells in data.items()}
        _same(
            _summarize(method, data, problem, prior), summary, 0.0, f"{place}: purity: the same inputs, another summary"
        )
        _same(_host(data), kept, 0.0, f"{place}: purity: summarize changed its inputs")
        if method.additive:
            wrong = [name for name, array in summary.items() if array.dtype not in (np.int64, np.int32)]
            assert not wrong, f"{place}: additive: array '{wrong[0]}' holds no integers of 64 or 32 bits."


def _additive(
    method: Method, summaries: Sequence[Arrays], model: Arrays, problem: Problem, prior: Arrays, place: str
) -> None:
    total = summaries[0]
    for number, summary in enumerate(summaries[1:], start=2):
        total = arrays.add(total, summary)
        mixed = _fuse(method, [total, *summaries[number:]], problem, prior)
        _same(mixed, model, 0.0, f"{place}: additive: {number} summaries added first give another model")
        method.check(total, problem, prior, place)
        back = arrays.subtract(total, summary)
        _same(arrays.add(back, summary), total, 0.0, f"{place}: additive: subtracting and adding again differ")


def _answers(method: Method, model: Arrays, data: Data, problem: Problem, prior: Arrays, place: str) -> None:
    answers = method.predict(model, {X: data[X]}, problem, prior)
    rows = arrays.num_rows(data)
    name, shape = ("probability", (rows, problem.num_classes)) if problem.labels else ("value", (rows,))
    assert set(answers) == {name}, f"{place}: answers: predict gives {sorted(answers)}, '{name}' alone is expected."
    found = np.asarray(answers[name])
    assert found.shape == shape, f"{place}: answers: '{name}' is {found.shape}, {shape} is expected."
    assert np.isfinite(found).all(), f"{place}: answers: '{name}' is not finite."
    if problem.labels:
        assert found.min() >= 0, f"{place}: answers: a probability is negative."
        gap = float(np.abs(found.sum(axis=1) - 1).max())
        assert gap <= TOLERANCE * problem.num_classes, f"{place}: answers: probabilities sum to 1 only to {gap:g}."
    one = np.asarray(method.predict(model, {X: data[X][:1]}, problem, prior)[name])
    assert np.allclose(one, found[:1], rtol=1e-9, atol=1e-12), f"{place}: answers: a row depends on the rows beside it."


def _refusal(method: Method, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
    first = min(summary)
    other = np.float16 if summary[first].dtype != np.float16 else np.float32
    wrong: dict[str, Arrays] = {
        "an array too many": {**summary, "stranger": np.zeros(1)},
        "an array too few": {name: array for name, array in summary.items() if name != first},
        "another dtype": {**summary, first: np.zeros(summary[first].shape, other)},
        "another shape": {**summary, first: np.zeros((*summary[first].shape, 2), summary[first].dtype)},
    }
    for what, altered in wrong.items():
        try:
            method.check(altered, problem, prior, place)
        except UpdateError:
            continue
        raise AssertionError(f"{place}: refusal: check accepts {what}.")


def _files(task: Task, case: Case, place: str) -> None:
    """Through the verbs: what was written is what is read, for anybody who has the method by name."""
    updates = [
        run.summarize(task, table, rng=np.random.default_rng(number)) for number, table in enumerate(case.tables)
    ]
    model, _ = run.fuse(task, updates)
    shuffled, _ = run.fuse(task, updates[::-1])
    assert file.digest(model) == file.digest(shuffled), (
        f"{place}: purity: the digest depends on the order of the updates."
    )
    again: Noun = file.from_bytes(file.to_bytes(updates[0]))
    assert isinstance(again, Update), f"{place}: files: an update came back as another kind."
    _same(again.arrays, updates[0].arrays, 0.0, f"{place}: files: an update came back changed")
    if _registered(task.method):
        back: Noun = file.from_bytes(file.to_bytes(model))
        assert isinstance(back, Model), f"{place}: files: a model came back as another kind."
        told, before = run.predict(back, case.tables[0]), run.predict(model, case.tables[0])
        for name in before:
            assert (told[name] == before[name]).all(), f"{place}: files: a model predicts otherwise after reading."


def _registered(method: Method) -> bool:
    from fusionlearn import method as table

    return method.name in table.available()


def _settings(subject: Method | Encoder) -> None:
    parameters = getattr(type(subject), "__dataclass_params__", None)
    assert parameters is not None, f"{subject.name}: settings: it is not a dataclass."
    assert parameters.frozen, f"{subject.name}: settings: its dataclass is not frozen."
    told = plugin.to_json(subject)
    made = plugin.make(type(subject), told["settings"])
    assert made == subject, f"{subject.name}: settings: made again from {told['settings']} it is another one."


# --- encoders -------------------------------------------------------------------------------------------------------


def check_encoder(
    subject: Encoder | type[Encoder], *, after: Sequence[Encoder | str] = (), tries: int = 8, seed: int = 0
) -> None:
    """Hold an encoder to its promises, on drawn tables.

    It emits as many features as it declares, each finite and within its bound; the same with and without a label,
    for one row and for many; it passes the label on and changes no input; made again from its settings it is equal.

    after   encoders ahead of it, by name or made; () when it reads the table itself
    Errors: AssertionError that names the promise.
    """
    made = subject() if isinstance(subject, type) else subject
    _settings(made)
    ahead = tuple(encoder.make(part) if isinstance(part, str) else part for part in after)
    for number in range(tries):
        for kind in KINDS:
            rng = np.random.default_rng([seed, number, KINDS.index(kind)])
            case = draw(kind, rng)
            _encoder_laws(Chain((*ahead, made)), case, f"{made.name}, {kind}, try {number}")


def _encoder_laws(chain: Chain, case: Case, place: str) -> None:
    declared = chain.features(case.schema)
    assert len(declared.names) == len(declared.bounds), (
        f"{place}: it names {len(declared.names)} features and bounds {len(declared.bounds)}."
    )
    assert len(set(declared.names)) == len(declared.names), f"{place}: two features have one name."
    clean = case.schema.read(case.together).data
    kept = {name: np.array(cells) for name, cells in clean.items()}
    data = chain.encode(clean, case.schema, {})
    _same(clean, kept, 0.0, f"{place}: encode changed its inputs")
    x = as_numpy(data[X])
    assert x.shape == (arrays.num_rows(clean), len(declared.names)), f"{place}: it gives features {x.shape}."
    assert np.isfinite(x).all(), f"{place}: a feature is not finite."
    beyond = np.abs(x) > np.array(declared.bounds) * (1 + 1e-9)
    assert not beyond.any(), f"{place}: feature '{declared.names[int(beyond.any(axis=0).argmax())]}' passes its bound."
    _same({LABEL: as_numpy(data[LABEL])}, {LABEL: kept[LABEL]}, 0.0, f"{place}: the label is not passed on")
    for rows, law in _views(clean):
        part = as_numpy(chain.encode(rows, case.schema, {})[X])
        assert np.allclose(part, x[: len(part)], rtol=1e-12, atol=1e-12), f"{place}: {law}"


def _views(clean: Data) -> Iterator[tuple[dict[str, Any], str]]:
    yield {name: cells for name, cells in clean.items() if name != LABEL}, "features depend on the label."
    yield {name: cells[:1] for name, cells in clean.items()}, "a row depends on the rows beside it."
    yield dict(clean), "the same rows give other features."
