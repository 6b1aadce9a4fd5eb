"""The verbs: summarize, fuse, predict, and sums that know their members. Where the pieces meet.

    Task ──summarize(data)──▶ Update ──fuse──▶ Model ──predict(data)──▶ answers

The command line, the simulator and any hub call these very functions.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, encoder, method, sketch
from fusionlearn.arrays import Arrays, Data, as_numpy
from fusionlearn.encoder import Chain, Encoder
from fusionlearn.errors import DataError, Fault, FileError, MissingExtra, SettingsError, UpdateError
from fusionlearn.file import digest, num_bytes, verify
from fusionlearn.fixed import one_blas_thread
from fusionlearn.keys import fingerprint
from fusionlearn.method import Method
from fusionlearn.problem import LABEL, Column, Label, NumberLabel, Schema, Table, TextLabel
from fusionlearn.types import (
    UPDATE_HEADER,
    Member,
    Mode,
    Model,
    Noun,
    Privacy,
    Report,
    Signer,
    Task,
    Total,
    Update,
    problem_of,
)

Answer: TypeAlias = Update | Total

CHUNK_CELLS = 2**23  # encoded numbers held at a time when a table is read in pieces: 64 MiB of float64


def new_task(
    name: str,
    columns: Mapping[str, Column],
    label: Label,
    *,
    method: Method | str = "ridge",
    encoder: Encoder | str | Iterable[Encoder | str] = "table",
    privacy: Privacy | Mode,
    missing: Any = "refuse",
    out_of_range: Any = "refuse",
    **settings: Any,
) -> Task:
    """A task from its parts, names standing for methods and encoders with their default settings.

    settings  further fields of Task: max_records, clients, max_bytes, prior
    Errors: SettingsError when the parts do not fit each other.
    """
    parts = [encoder] if isinstance(encoder, Encoder | str) else list(encoder)
    schema = Schema(dict(columns), label, missing, out_of_range)
    chosen = _method(method) if isinstance(method, str) else method
    made = tuple(_encoder(part) if isinstance(part, str) else part for part in parts)
    chain = Chain(_fitted(made, schema, chosen, settings))
    return Task(
        name=name,
        schema=schema,
        encoder=chain,
        method=_within(chosen, schema, chain, settings),
        privacy=privacy if isinstance(privacy, Privacy) else Privacy(privacy),
        **settings,
    )


def _fitted(
    chain: tuple[Encoder, ...], schema: Schema, method: Method, settings: Mapping[str, Any]
) -> tuple[Encoder, ...]:
    """The chain, its last encoder told how many features `max_bytes` allows where it asks for that with 0."""
    last: Any = chain[-1] if chain else None
    if getattr(last, "num_features", 1) != 0 or not settings.get("max_bytes"):
        return chain
    ahead = Chain(chain[:-1]).features(schema) if len(chain) > 1 else None
    one = dataclasses.replace(last, num_features=1)
    problem = problem_of(schema, one.features(schema, ahead), settings.get("max_records", Task.max_records))
    prior, room = settings.get("prior", {}), settings["max_bytes"] - UPDATE_HEADER
    width = sketch.most_features(method, problem, prior, room)
    if width == 0:
        least = sketch.declared_bytes(method, problem, prior) + UPDATE_HEADER
        raise SettingsError(
            f"max_bytes is {settings['max_bytes']}, but an update of '{method.name}' takes {least} bytes at the least, "
            f"with one feature: set max_bytes to that or more."
        )
    return (*chain[:-1], dataclasses.replace(last, num_features=min(width, len(ahead.names) if ahead else width)))


def _within(method: Method, schema: Schema, chain: Chain, settings: Mapping[str, Any]) -> Method:
    """The method, its sizes set by `max_bytes` where it leaves them open."""
    if not settings.get("max_bytes"):
        return method
    problem = problem_of(schema, chain.features(schema), settings.get("max_records", Task.max_records))
    return method.within(problem, settings.get("prior", {}), settings["max_bytes"] - UPDATE_HEADER)


def _encoder(name: str) -> Encoder:
    return encoder.make(name)


def _method(name: str) -> Method:
    return method.make(name)


# --- the client -----------------------------------------------------------------------------------------------------


def summarize(
    task: Task,
    data: Data | Iterable[Data],
    *,
    rng: np.random.Generator | None = None,
    replaces: str = "",
    place: str = "data",
    local: Mapping[str, str] | None = None,
) -> Update:
    """A client's whole job: its raw columns → one update.

    data      column name -> cells, all of one length, or a data frame; or an iterable of such pieces, read once, for
              tables larger than memory (held one at a time when the method is additive and exact, else joined)
    rng       for methods that draw, and for the nonce that tells unsigned updates apart. By default a method draws
              from a fixed seed, so that doing it again gives the same arrays, and the nonce is a new one
    replaces  digest of an earlier update of the same client that this one corrects
    place     how errors name the data
    local     the client's own choices where the method leaves some to it (`Method.LOCAL`); they never travel
    Errors: DataError with every fault of the first faulty piece.
    """
    return client_pass(task, data, rng=rng, replaces=replaces, place=place, local=local).update


@dataclass(frozen=True)
class Passed:
    """What one pass over a client's data gave besides the update; it stays at the client."""

    update: Update
    rows: int  # raw rows read
    dropped: int  # rows left out by the rule for missing values
    clipped: int  # values moved to the end of their declared range


def client_pass(
    task: Task,
    data: Data | Iterable[Data],
    *,
    rng: np.random.Generator | None = None,
    replaces: str = "",
    place: str = "data",
    seen: Any = None,
    local: Mapping[str, str] | None = None,
) -> Passed:
    """`summarize`, which also tells what happened to the rows; `seen(clean, encoded)` is shown every piece."""
    _check_local(task.method, local or {})
    nonce_of = rng.bytes if rng is not None else secrets.token_bytes
    rng = rng or np.random.default_rng(0)
    rows = dropped = clipped = 0
    total: dict[str, Any] | None = None
    held: list[Data] = []
    streams = task.method.additive and task.method.exact
    for piece in pieces(data, chunk_rows(task)):
        table, encoded, beyond = encode(task, piece, place, first_row=rows + 1)
        rows += len(table.kept)
        dropped += int((~table.kept).sum())
        clipped += table.clipped + beyond
        if seen is not None:
            seen(table.data, encoded)
        if arrays.num_rows(encoded) == 0:
            continue
        if streams:
            part = _summary(task, encoded, rng, local)
            total = arrays.add(total, part) if total else part
        else:
            held.append(encoded)
    if rows == dropped:
        kind = "holds no rows" if not rows else "holds no complete rows: each of them misses a value the task needs"
        raise DataError(place, [Fault("", kind)])
    if held:
        xp = array_api_compat.array_namespace(held[0][encoder.X])
        joined = held[0] if len(held) == 1 else {key: xp.concat([part[key] for part in held]) for key in held[0]}
        total = _summary(task, joined, rng, local)
    assert total is not None
    if rows - dropped > task.max_records:
        told = f"has {rows - dropped} rows, the task allows {task.max_records} over all clients"
        raise DataError(place, [Fault("", told, hint="ask the coordinator for a task with a larger max_records")])
    # Names, shapes and bounds; whether the sums are those of real rows is for the server to doubt.
    arrays.check(total, task.method.declare(task.problem, task.prior), place)
    return Passed(Update(digest(task), total, replaces=replaces, nonce=nonce_of(32).hex()), rows, dropped, clipped)


def chunk_rows(task: Task | Model) -> int:
    """Rows read at a time: a power of two that depends on the task alone, so that sums are cut at the same places."""
    width = task.problem.num_features + len(task.schema.columns)
    return int(2 ** max(8, min(16, int(np.log2(CHUNK_CELLS / width)))))


def pieces(data: Data | Iterable[Data], length: int) -> Iterator[Data]:
    """A table, or an iterable of tables, in pieces of at most so many rows."""
    for part in map(_columns, [data] if _is_table(data) else data):
        rows = {len(cells) for cells in part.values()}
        most = max(rows, default=0)
        if most <= length or len(rows) > 1:
            yield part
        else:
            for start in range(0, most, length):
                yield {name: cells[start : start + length] for name, cells in part.items()}


def _is_table(data: Any) -> bool:
    """Whether it is one table: a mapping, or a data frame (which names its columns)."""
    return isinstance(data, Mapping) or hasattr(data, "columns")


def _columns(part: Any) -> Data:
    if isinstance(part, Mapping):
        return part
    names = getattr(part, "column_names", None) or getattr(part, "columns", None)
    if names is None:
        raise DataError("data", [Fault("", "is neither columns by name, nor a data frame, nor an iterable of those")])
    return {str(name): np.asarray(part[name]) for name in names}


def encode(
    task: Task | Model, raw: Data, place: str, *, with_label: bool = True, first_row: int = 1
) -> tuple[Table, dict[str, Any], int]:
    """Clean columns and their features, which never leave the bounds the encoder declared."""
    table = task.schema.read(raw, place=place, with_label=with_label, first_row=first_row)
    encoded = dict(task.encoder.encode(table.data, task.schema, task.prior))
    x = encoded[encoder.X]
    bounds = np.array(task.problem.feature_bounds)
    if tuple(x.shape) != (arrays.num_rows(table.data), len(bounds)):
        raise SettingsError(f"the encoder gave features of shape {tuple(x.shape)}, it declared {len(bounds)} of them.")
    host = as_numpy(x)
    tops = np.maximum(host.max(axis=0, initial=0), -host.min(axis=0, initial=0).astype(np.float64))
    if not np.isfinite(tops).all():
        raise SettingsError(
            "the encoder gave a feature that is not finite; the task's ranges and its encoder do not fit."
        )
    beyond = 0
    if (tops > bounds).any():
        # A hair over is rounding, not a record out of range: clipped all the same, not counted.
        beyond = int((np.abs(host) > bounds * (1 + 1e-9)).sum())
        encoded[encoder.X] = np.clip(host, -bounds, bounds)
    return table, encoded, beyond


def _check_local(method: Method, local: Mapping[str, str]) -> None:
    """Refuse a local choice the task's method does not leave to the client."""
    for name in local:
        if name not in method.LOCAL:
            leaves = ", ".join(method.LOCAL) or "nothing"
            raise SettingsError(f"method '{method.name}' has no local choice '{name}': it leaves {leaves} to a client.")


def _summary(
    task: Task, encoded: Data, rng: np.random.Generator, local: Mapping[str, str] | None = None
) -> dict[str, Any]:
    choices: dict[str, Any] = {"local": local} if local else {}
    summary = task.method.summarize(encoded, task.problem, task.prior, rng=rng, **choices)
    return {name: as_numpy(array) for name, array in summary.items()}


# --- the server -----------------------------------------------------------------------------------------------------


def fuse(
    task: Task,
    updates: Iterable[Answer],
    *,
    public: Data | Iterable[Data] | None = None,
    place: str = "public data",
    rng: np.random.Generator | None = None,
    without: Iterable[str] = (),
    accept_replacements: bool = False,
    allow_unsigned: bool = True,
) -> tuple[Model, Report]:
    """The server's whole job: updates and totals in any order → one model, and a report for the coordinator.

    updates              read once, one at a time when the method is additive; iterated twice with accept_replacements
    public               the server's own raw columns, or an iterable of pieces of them, for a method that learns from
                         such rows too (`Method.uses_public`); a column of labels is not looked at
    place                how errors name the public rows
    without              signers or digests (or beginnings of at least 8 digits) to leave out
    accept_replacements  let an update take the place of the one it names
    allow_unsigned       False: refuse updates nobody signed
    Errors: UpdateError naming the update that does not belong; SignatureError; SettingsError for public rows that the
    method makes no use of; DataError for public rows that do not fit the task.
    """
    _reuse_memory()
    encoded_public = None if public is None else _public_rows(task, public, place)
    gate = Gate(task, without=without, accept_replacements=accept_replacements, allow_unsigned=allow_unsigned)
    if accept_replacements:
        gate.note_replacements(updates)
    total: Arrays | None = None
    held: list[tuple[str, Arrays]] = []
    for answer in gate.admit(updates):
        if not task.method.additive:
            held.append((digest(answer), answer.arrays))
        else:
            total = arrays.add(total, answer.arrays) if total is not None else answer.arrays
    if not gate.members:
        left_out = " (all were left out)" if gate.left_out else ""
        raise UpdateError(f"there is no update to fuse{left_out}: give at least one.")
    summaries = [total] if total is not None else [summary for _, summary in sorted(held, key=lambda item: item[0])]
    if total is not None:
        _check_sum(task, total)
    with one_blas_thread(), np.errstate(all="ignore"):  # sums that no rows can have may overflow: `_check_fused` tells
        model_arrays, findings = task.method.fuse(
            summaries, task.problem, task.prior, public=encoded_public, rng=rng or np.random.default_rng(0)
        )
    _check_fused(task, model_arrays, findings)
    model = Model(
        task=digest(task),
        name=task.name,
        schema=task.schema,
        encoder=task.encoder,
        method=task.method,
        max_records=task.max_records,
        arrays=model_arrays,
        prior=_needed_to_predict(task),
    )
    notes = {"left_out": sorted(gate.left_out), "repeated": gate.repeated, "notices": gate.notices}
    report = Report(digest(task), digest(model), tuple(sorted(gate.members)), {**findings, **notes})
    return model, report


def _public_rows(task: Task, public: Data | Iterable[Data], place: str) -> Data:
    """The server's own rows as the task's encoder sees them: {"x": (n, d)}."""
    if not task.method.uses_public:
        raise SettingsError(
            f"'{task.method.name}' as the task sets it makes no use of public rows, so {place} would change nothing: "
            f"fuse without them, or make a task whose method learns from them, such as 'distill'."
        )
    parts: list[Any] = []
    rows = 0
    for piece in pieces(public, chunk_rows(task)):
        table, encoded, _ = encode(task, piece, place, with_label=False, first_row=rows + 1)
        rows += len(table.kept)
        parts.append(as_numpy(encoded[encoder.X]))
    if not sum(map(len, parts)):
        raise DataError(place, [Fault("", "holds no complete rows")])
    return {encoder.X: parts[0] if len(parts) == 1 else np.concatenate(parts)}


def _needed_to_predict(task: Task) -> Arrays:
    """The prior without what only clients needed, to start from."""
    return {name: array for name, array in task.prior.items() if not name.startswith(task.method.START)}


def _reuse_memory() -> None:
    """Let the arrays of one update take the place of those of the one before.

    glibc gives the memory of large arrays back to the system as they are freed, and each page of the next one is
    fetched anew: almost half the time a fusion of many updates took. Freeing one block of 31 MiB, never touched,
    raises the size it calls large to that (mallopt(3), M_MMAP_THRESHOLD). Elsewhere this does nothing.
    """
    np.empty(31 * 2**20, np.uint8)


def _check_fused(task: Task, model: Arrays, findings: Mapping[str, Any]) -> None:
    """What no single answer shows: too many records in all, or numbers that together make no model."""
    if findings.get("records", 0) > task.max_records:
        raise UpdateError(
            f"the updates hold {findings['records']} records together, the task allows {task.max_records}: "
            f"make a task with a larger max_records, or leave some out."
        )
    if not all(np.isfinite(array).all() for array in model.values()):
        raise UpdateError("the fused model is not finite, so some update cannot be true: fuse fewer to find it.")


class Gate:
    """Admits the answers that belong to a task, each client once; remembers whom it admitted."""

    def __init__(
        self,
        task: Task,
        *,
        without: Iterable[str] = (),
        accept_replacements: bool = False,
        allow_unsigned: bool = True,
    ) -> None:
        self.task, self.task_digest = task, digest(task)
        self.without = [_prefix(text) for text in without]
        self.accept_replacements, self.allow_unsigned = accept_replacements, allow_unsigned
        self.replaced: dict[str, tuple[Signer, str]] = {}  # digest -> who replaced it, and with what
        self.answers: set[str] = set()
        self.members: set[Member] = set()
        self.by_signer: dict[Signer, str] = {}
        self.left_out: set[str] = set()
        self.repeated = 0
        self.notices: list[str] = []
        self.matched: set[str] = set()

    def note_replacements(self, updates: Iterable[Answer]) -> None:
        """A first pass: which digests were replaced, and by whom. An update that is left out replaces nothing."""
        if iter(updates) is updates:
            raise UpdateError("to accept replacements the updates are read twice: give a list, not a generator.")
        for answer in updates:
            if not isinstance(answer, Update) or not answer.replaces or self._named(self._members(answer)):
                continue
            signer, place = self.replaced.setdefault(answer.replaces, (answer.signer, name_of(answer)))
            if signer != answer.signer:
                raise UpdateError(
                    f"{place} and {name_of(answer)} both say that they replace {answer.replaces[:12]}…: an update "
                    f"replaces one's own only. Leave the wrong one out with --without."
                )

    def admit(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Those that belong, checked; the same bytes a second time are passed over."""
        for answer in answers:
            members = self._members(answer)
            if self._belongs(answer, members):
                self.answers.add(digest(answer))
                self.members |= set(members)
                self.by_signer |= {signer: name for name, signer in members if signer}
                yield answer
        unused = [text for text in self.without if text not in self.matched]
        if unused:
            raise UpdateError(f"no update or signer begins with {unused[0]}, so it cannot be left out.")

    def _belongs(self, answer: Answer, members: tuple[Member, ...]) -> bool:
        place = name_of(answer)
        if answer.task != self.task_digest:
            raise UpdateError(
                f"{place} answers task {answer.task[:12]}…, not this one ({self.task_digest[:12]}…). "
                f"Ask for it to be made with this task file."
            )
        self._check_signer(answer, place)
        if self._left_out(members, place, isinstance(answer, Total)):
            return False
        if self._was_replaced(members, place, isinstance(answer, Total)) or self._repeated(answer, members, place):
            return False
        if isinstance(answer, Update):
            self._check_update(answer, place)
        if isinstance(answer, Total) and not self.task.method.additive:
            raise UpdateError(
                f"{place} is a total, but '{self.task.method.name}' needs every update separately: give the updates."
            )
        self.task.method.check(answer.arrays, self.task.problem, self.task.prior, place)
        return True

    def _check_update(self, update: Update, place: str) -> None:
        if update.replaces and not update.signer:
            raise UpdateError(f"{place} is not signed, so nobody knows whose update it replaces: ask for a signed one.")
        if update.replaces and not self.accept_replacements:
            raise UpdateError(
                f"{place} says that it replaces {update.replaces[:12]}…: accept that with --accept-replacement, "
                f"or leave one out with --without."
            )
        if num_bytes(update) > self.task.max_bytes:
            raise UpdateError(
                f"{place} holds {num_bytes(update)} bytes, the task allows {self.task.max_bytes}: "
                f"ask for one made with this task file."
            )

    def _check_signer(self, answer: Answer, place: str) -> None:
        if answer.signer:
            verify(answer, place)
        if not answer.signer and not self.allow_unsigned:
            raise UpdateError(f"{place} is not signed: ask for a signed one, or allow it with --allow-unsigned.")
        enrolled = self.task.clients
        if enrolled != "open":
            allowed = {*enrolled, self.task.signer} if isinstance(answer, Total) else set(enrolled)
            strangers = {answer.signer} - allowed
            if isinstance(answer, Total):
                strangers |= {signer for _, signer in answer.members} - set(enrolled)
            if strangers:
                raise UpdateError(
                    f"{place} is by {fingerprint(min(strangers)) or 'nobody'}, a key that the task does not list: "
                    f"enrol it in a new task, or leave the file out."
                )

    def _named(self, members: tuple[Member, ...]) -> list[str]:
        """The texts of `without` that name one of the members."""
        return [
            text
            for text in self.without
            if any(name.startswith(text) or signer.startswith(text) for name, signer in members)
        ]

    def _left_out(self, members: tuple[Member, ...], place: str, is_total: bool) -> bool:
        named = self._named(members)
        if named and is_total:
            raise UpdateError(
                f"{place} holds {named[0]}…, which is to be left out: take it from the total with "
                f"`fusionlearn subtract` and the update's file, then fuse."
            )
        self.matched |= set(named)
        self.left_out |= {name for name, _ in members} if named else set()
        return bool(named)

    def _was_replaced(self, members: tuple[Member, ...], place: str, is_total: bool) -> bool:
        for name, signer in members:
            if name not in self.replaced:
                continue
            by, replacement = self.replaced[name]
            if by != signer:
                raise UpdateError(
                    f"{replacement} says that it replaces {name[:12]}…, which is by another signer: an update replaces "
                    f"one's own only. Leave it out with --without."
                )
            if is_total:
                raise UpdateError(
                    f"{place} holds the update {name[:12]}…, which was replaced: take it from the total with "
                    f"`fusionlearn subtract` and the update's file, then fuse."
                )
            self.notices.append(f"{place} was replaced by its signer")
            return True
        return False

    def _repeated(self, answer: Answer, members: tuple[Member, ...], place: str) -> bool:
        """Whether this very file is known already; refused when members of it are, or when a signer answers twice."""
        if digest(answer) in self.answers:
            self.repeated += 1
            return True
        known = set(members) & self.members
        if known:
            raise UpdateError(
                f"{place} holds the update {min(known)[0][:12]}…, which is counted already: leave that update's file "
                f"out, or subtract it from one of the totals."
            )
        for name, signer in members:
            if signer and self.by_signer.get(signer, name) != name:
                first = self.by_signer[signer]
                raise UpdateError(
                    f"{place} is the second answer of {fingerprint(signer)}, with other bytes than {first[:12]}…: "
                    f"a client answers once. To correct an answer, the client makes the new one with "
                    f"--replaces {first} and you fuse with --accept-replacement."
                )
        return False

    def _members(self, answer: Answer) -> tuple[Member, ...]:
        return answer.members if isinstance(answer, Total) else ((digest(answer), answer.signer),)


def name_of(noun: Noun) -> str:
    """How messages name a file: kind, digest, signer."""
    kind = type(noun).__name__.lower()
    by = f" by {fingerprint(noun.signer)}" if noun.signer else ""
    return f"{kind} {digest(noun)[:12]}…{by}"


def _prefix(text: str) -> str:
    cleaned = text.replace(" ", "").replace("…", "").lower()
    if len(cleaned) < 8 or not all(digit in "0123456789abcdef" for digit in cleaned):
        raise UpdateError(f"'{text}' is neither a signer nor a digest: give at least their first 8 hex digits.")
    return cleaned


# --- totals ---------------------------------------------------------------------------------------------------------


def add(task: Task, *answers: Answer, accept_replacements: bool = False, allow_unsigned: bool = True) -> Total:
    """The sum of updates and totals, which knows its members.

    A member given twice is refused, and so is another update by a signer who is in already, unless
    `accept_replacements` is set and it names the one it replaces.
    Errors: UpdateError, also when the method is not additive.
    """
    if not task.method.additive:
        raise UpdateError(
            f"'{task.method.name}' needs every update separately, so they cannot be added: fuse the updates themselves."
        )
    gate = Gate(task, accept_replacements=accept_replacements, allow_unsigned=allow_unsigned)
    if accept_replacements:
        gate.note_replacements(answers)
    total: Arrays | None = None
    for answer in gate.admit(answers):
        total = arrays.add(total, answer.arrays) if total is not None else answer.arrays
    if gate.repeated:
        raise UpdateError("the same file is given twice: a member is added once. Give it once.")
    if total is None:
        raise UpdateError("there is no update to add: give at least one.")
    _check_sum(task, total)
    return Total(digest(task), total, tuple(sorted(gate.members)))


def subtract(task: Task, total: Total, *answers: Answer) -> Total:
    """The total without some of its members: what it would have been had they never been added.

    Errors: UpdateError when one is not a member, or nothing would be left.
    """
    rest, members = total.arrays, set(total.members)
    if total.task != digest(task):
        raise UpdateError(f"{name_of(total)} belongs to another task: give the task it was made for.")
    for answer in answers:
        gone = set(answer.members if isinstance(answer, Total) else [(digest(answer), answer.signer)])
        if not gone <= members:
            raise UpdateError(f"{name_of(answer)} is not in {name_of(total)}, so it cannot be subtracted.")
        members -= gone
        rest = arrays.subtract(rest, answer.arrays)
    if not members:
        raise UpdateError("nothing would be left of the total: a total has at least one member.")
    task.method.check(rest, task.problem, task.prior, "what is left of the total")
    return Total(digest(task), rest, tuple(sorted(members)))


def _check_sum(task: Task, total: Arrays) -> None:
    """Each part of the sum passed alone, so a sum that does not fit is one of too many records."""
    try:
        task.method.check(total, task.problem, task.prior, "the total of all updates")
    except UpdateError as error:
        raise UpdateError(
            f"the updates fit the task each, but not together: they hold more than the {task.max_records} records "
            f"it allows. Make a task with a larger max_records, or leave some out."
        ) from error


# --- anyone ---------------------------------------------------------------------------------------------------------


def predict(model: Model, data: Data, *, place: str = "data", first_row: int = 1) -> dict[str, NDArray[Any]]:
    """Answers for raw columns; the label's column, if there is one, is not looked at.

    Returns {"label": (n,) text, "probability": (n, c)} for classes, {"value": (n,)} in the label's unit for
    regression, {"text": (n,) text} for texts; rows that the rule "drop" leaves out get "" and NaN.
    Errors: DataError; FileError when the model's arrays do not belong together.
    """
    table, encoded, _ = encode(model, _columns(data), place, with_label=False, first_row=first_row)
    answers = _answers(model, encoded)
    label = model.schema.label
    result: dict[str, NDArray[Any]] = {}
    if isinstance(label, TextLabel):
        texts = np.full(len(table.kept), "", dtype=object)
        texts[table.kept] = _texts(model, answers["piece"])
        result["text"] = texts
    elif isinstance(label, NumberLabel):
        result["value"] = _spread(answers["value"] * (label.scale or 1.0) + (label.center or 0.0), table.kept)
    else:
        best = answers["probability"].argmax(axis=1)
        names = np.array(model.schema.labels, dtype=object)[best]
        full = np.full(len(table.kept), "", dtype=object)
        full[table.kept] = names
        result["label"] = full.astype(str)
        result["probability"] = _spread(answers["probability"], table.kept)
    return result


def _answers(model: Model, encoded: Data) -> dict[str, NDArray[Any]]:
    rows = arrays.num_rows(encoded)
    try:
        with one_blas_thread(), np.errstate(all="ignore"):  # a forged model may overflow: seen below, and told once
            answers = model.method.predict(model.arrays, encoded, model.problem, model.prior)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise FileError(
            f"{name_of(model)}: its arrays do not belong together. Ask the coordinator for it again."
        ) from error
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "text": ("piece", (rows, model.problem.num_features)), "regression": ("value", (rows,)),
    }  # fmt: skip
    name, shape = shapes.get(model.schema.kind, ("probability", (rows, len(model.schema.labels))))
    if name not in answers or answers[name].shape != shape:
        raise FileError(f"{name_of(model)}: its arrays do not belong together. Ask the coordinator for it again.")
    if not np.isfinite(answers[name]).all():
        raise FileError(f"{name_of(model)}: its answers are not finite. Ask the coordinator for another model.")
    return answers


def _texts(model: Model, pieces: NDArray[Any]) -> NDArray[np.object_]:
    """What the numbers of pieces say, as the encoder that has the pieces reads them."""
    for part in model.encoder.encoders:
        if hasattr(part, "texts"):
            found: NDArray[np.object_] = part.texts(pieces, model.prior)
            return found
    raise FileError(f"{name_of(model)}: none of its encoders reads pieces as texts. Ask the coordinator for it again.")


def _spread(values: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[Any]:
    """Values of the kept rows in their places, NaN elsewhere."""
    if kept.all():
        return values
    full = np.full((len(kept), *values.shape[1:]), np.nan)
    full[kept] = values
    return full


def evaluate(model: Model, data: Data | Iterable[Data], *, place: str = "data") -> dict[str, Any]:
    """How good a model is on labelled rows; rows that miss a value the task needs are left out and counted.

    Returns rows, dropped and, for classes, accuracy, balanced_accuracy (mean recall of the classes present), log_loss,
    brier and, for two classes, auc; for regression rmse, mae (in the label's unit) and r2; for texts bleu and the share
    that is the same, both in lower case.
    """
    truths: list[NDArray[Any]] = []
    found: list[NDArray[Any]] = []
    rows = dropped = 0
    width = model.problem.num_features + len(model.schema.columns)
    for piece in pieces(data, max(256, CHUNK_CELLS // width)):
        table, encoded, _ = encode(model, piece, place, first_row=rows + 1)
        rows += len(table.kept)
        dropped += int((~table.kept).sum())
        if arrays.num_rows(encoded):
            answers = _answers(model, encoded)
            truths.append(table.data[LABEL])
            found.append(_texts(model, answers["piece"]) if "piece" in answers else next(iter(answers.values())))
    if not truths:
        raise DataError(place, [Fault("", "holds no complete rows to evaluate on")])
    counts = {"rows": rows - dropped, "dropped": dropped}
    return counts | metrics(np.concatenate(truths), np.concatenate(found), model.schema)


def metrics(truth: NDArray[Any], found: NDArray[Any], schema: Schema) -> dict[str, Any]:
    """Figures for encoded truth (n,) against probabilities (n, c), scaled values (n,) or texts (n,); see `evaluate`."""
    label = schema.label
    if isinstance(label, TextLabel):
        return _text_metrics([str(text).lower() for text in truth], [str(text).lower() for text in found])
    if isinstance(label, NumberLabel):
        error = (found - truth) * (label.scale or 1.0)
        spread = float(((truth - truth.mean()) ** 2).sum()) * (label.scale or 1.0) ** 2
        r2 = 1.0 - float((error**2).sum()) / spread if spread > 0 else None
        return {"rmse": float(np.sqrt((error**2).mean())), "mae": float(np.abs(error).mean()), "r2": r2}
    guess = found.argmax(axis=1)
    recalls = [float((guess[truth == k] == k).mean()) for k in np.unique(truth)]
    of_truth = found[np.arange(len(truth)), truth]
    hits = (truth[:, None] == np.arange(found.shape[1])).astype(float)
    result: dict[str, Any] = {
        "accuracy": float((guess == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.log(np.clip(of_truth, 1e-15, 1.0)).mean()),
        "brier": float(((found - hits) ** 2).sum(axis=1).mean()),
    }
    if found.shape[1] == 2:
        result["auc"] = auc(found[truth == 1, 1], found[truth == 0, 1])
    return result


def _text_metrics(truth: list[str], found: list[str]) -> dict[str, Any]:
    """BLEU as sacrebleu counts it, from 0 to 100, and the share of texts that are the same.

    Source  Papineni, Roukos, Ward, Zhu, BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise MissingExtra("BLEU", "sacrebleu", "text") from error
    same = sum(a == b for a, b in zip(truth, found, strict=True)) / len(truth)
    return {"bleu": float(sacrebleu.corpus_bleu(found, [truth]).score), "same": same}


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float | None:
    """The chance that a positive scores above a negative, ties counted half; None when one side is empty."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    wins = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(wins.mean() / (2 * len(negative)))


def signed_by(noun: Noun, signer: Signer) -> Literal[True]:
    """True, or UpdateError when somebody else signed it."""
    if noun.signer != signer:
        raise UpdateError(f"{name_of(noun)} is not signed by {fingerprint(signer)}.")
    return True


def unsigned(noun: Any) -> Any:
    """A copy without signature."""
    return dataclasses.replace(noun, signer="", signature="")
