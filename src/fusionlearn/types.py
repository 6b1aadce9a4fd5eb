"""The nouns: Task, Update, Total, Model, Report. Each is frozen and is one kind of file (`fusionlearn.file`).

A Task goes out; each client summarizes its data into one Update; the server fuses the updates into one Model.
A Total is a sum of updates that knows its members; a Report is for the coordinator alone.

Everything computed from a client's data, its number of records included, is an array: the other fields hold only
what was known before training.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from fusionlearn import sketch
from fusionlearn.arrays import Arrays
from fusionlearn.encoder import Chain, Features
from fusionlearn.errors import PrivacyError, SettingsError
from fusionlearn.keys import is_signer
from fusionlearn.method import Method
from fusionlearn.problem import Category, ClassLabel, Problem, Schema, Vector

Digest: TypeAlias = str  # 64 hex digits: the SHA-256 of a manifest; the name of a file everywhere
Signer: TypeAlias = str  # 64 hex digits: an Ed25519 public key; "" when unsigned
Mode: TypeAlias = Literal["none", "local", "two_servers"]

SMALL_CELL = 25  # people: a class or category held by fewer is named on the leakage page
LONGEST_NAME = 200
HEADER_ROOM = 256 * 1024  # bytes of a file besides its arrays
UPDATE_HEADER = 16 * 1024  # bytes of an update file besides its arrays, and some to spare
MOST_RECORDS = 2**40
MAX_FEATURES = 2**16  # a Gram matrix of as many takes 17 GB
MAX_ENCODERS = 16
LARGEST_UPDATE = 2**34  # bytes
WIDEST = 1e100  # of a feature's bound: squares stay finite
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # a terminal would obey


@dataclass(frozen=True)
class Privacy:
    """The guarantee every task states: there is no default."""

    mode: Mode  # "none": the server sees each exact update; "local", "two_servers": not available yet
    small_cells: Literal["refuse", "allow"] = "refuse"  # whether a client may send classes held by fewer than 25

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise SettingsError(f"privacy mode '{self.mode}' is not known; it may be {', '.join(get_args(Mode))}.")
        if self.mode != "none":
            raise PrivacyError(
                f"privacy mode '{self.mode}' is not available yet: choose mode 'none', or wait for a later version."
            )
        if self.small_cells not in ("refuse", "allow"):
            raise SettingsError(f"privacy: small_cells is '{self.small_cells}'; it may be refuse or allow.")


@dataclass(frozen=True)
class Guarantee:
    """What protects the records behind an update or a model."""

    mode: Mode = "none"


class Noun:
    """What every kind of file has: who signed it, and header entries of a later version, kept and signed."""

    signer: Signer
    signature: str
    extras: Mapping[str, str]


@dataclass(frozen=True)
class Task(Noun):
    """What goes out: the question, the columns, the encoder, the method, the prior, the guarantee."""

    name: str  # for people; clients pin the key of its signer under this name
    schema: Schema
    encoder: Chain
    method: Method
    privacy: Privacy
    max_records: int = 1_000_000  # the most records all clients together may hold: sizes the fixed point
    prior: Arrays = field(default_factory=dict)  # arrays every client starts from
    clients: tuple[Signer, ...] | Literal["open"] = "open"  # the keys that may answer
    max_bytes: int = 0  # the largest update file; 0: what the method declares
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        declared = _declared_bytes(self)
        if self.clients != "open" and not (self.clients and all(map(is_signer, self.clients))):
            raise SettingsError("clients are 'open', or at least one public key of 64 hex digits.")
        if self.max_bytes == 0:
            object.__setattr__(self, "max_bytes", declared + HEADER_ROOM)
        elif self.max_bytes > LARGEST_UPDATE + HEADER_ROOM:
            raise SettingsError(
                f"max_bytes is {self.max_bytes}, and {LARGEST_UPDATE} are the most an update may take: "
                f"set it to that or less, or to 0 for the {declared} that '{self.method.name}' needs."
            )
        elif declared > self.max_bytes:
            raise SettingsError(
                f"max_bytes is {self.max_bytes}, but an update of '{self.method.name}' with "
                f"{self.problem.num_features} features takes {declared} bytes: "
                f"set it to that or more, or to 0, or {self._fewer()}."
            )

    def _fewer(self) -> str:
        """How an update comes to fit max_bytes, as a clause: fewer rows of tables, where it has such, or features."""
        room = self.max_bytes - UPDATE_HEADER
        if hasattr(self.method, "most"):
            rows, least = sketch.most_rows(self.method, self.problem, self.prior, room)
            if rows:
                return f"give the method fewer rows to send: most = {rows} fits"
            return f"accept that with most = 1 an update takes {least + UPDATE_HEADER} bytes, the least there is"
        width = sketch.most_features(self.method, self.problem, self.prior, room)
        project = "put the encoder 'project' last: with"
        if width:
            return f"{project} num_features = 0 it makes the {width} that fit"
        least = sketch.declared_bytes(self.method, sketch.narrowed(self.problem, 1), self.prior) + UPDATE_HEADER
        return f"{project} one feature an update takes {least} bytes, the least there is"

    @functools.cached_property
    def features(self) -> Features:
        """Names and bounds of the encoded features."""
        return self.encoder.features(self.schema)

    @functools.cached_property
    def problem(self) -> Problem:
        """What the method sees, derived from schema and encoder."""
        return problem_of(self.schema, self.features, self.max_records)


@dataclass(frozen=True)
class Update(Noun):
    """One client's answer: the arrays its method declares, and nothing else about its data."""

    task: Digest
    arrays: Arrays
    guarantee: Guarantee = Guarantee()
    replaces: Digest = ""  # the earlier update of the same signer that this one corrects
    nonce: str = ""  # 64 random hex digits while unsigned, so that two clients' equal sums are not taken for one file
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.replaces and not is_signer(self.replaces):
            raise SettingsError("an update replaces another by its whole digest, 64 hex digits.")
        if self.nonce and not is_signer(self.nonce):
            raise SettingsError("the nonce of an update is 64 hex digits.")


Member: TypeAlias = tuple[Digest, Signer]


@dataclass(frozen=True)
class Total(Noun):
    """A sum of updates of an additive method that knows its members."""

    task: Digest
    arrays: Arrays
    members: tuple[Member, ...]  # sorted by digest, each signer once
    guarantee: Guarantee = Guarantee()
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_members(self.members)


@dataclass(frozen=True)
class Model(Noun):
    """What comes back: everything needed to predict, without the task."""

    task: Digest
    name: str  # the task's
    schema: Schema
    encoder: Chain
    method: Method
    max_records: int
    arrays: Arrays
    prior: Arrays = field(default_factory=dict)
    guarantee: Guarantee = Guarantee()
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _declared_bytes(self)

    @functools.cached_property
    def problem(self) -> Problem:
        """What the method sees, derived from schema and encoder."""
        return problem_of(self.schema, self.encoder.features(self.schema), self.max_records)


@dataclass(frozen=True)
class Report(Noun):
    """For the coordinator, never broadcast: it speaks of single clients."""

    task: Digest
    model: Digest
    members: tuple[Member, ...]  # sorted by digest, each signer once
    findings: Mapping[str, Any]  # JSON values
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_members(self.members)


def problem_of(schema: Schema, features: Features, max_records: int) -> Problem:
    """The problem that encoded rows of this schema pose."""
    bound = 1.0 if not hasattr(schema.label, "bound") else schema.label.bound
    return Problem(schema.kind, schema.labels, features.names, features.bounds, max_records, bound)


def _declared_bytes(noun: Task | Model) -> int:
    """The most bytes an update takes, once it is clear that the parts fit each other and stay within bounds.

    A task comes from a stranger: its width is checked before a name is made for each of its features.
    """
    if not noun.name.strip() or len(noun.name) > LONGEST_NAME or not noun.name.isprintable():
        raise SettingsError(f"a task needs a name of 1 to {LONGEST_NAME} printable characters.")
    if not 1 <= noun.max_records <= MOST_RECORDS:
        raise SettingsError(f"max_records is {noun.max_records}; it may be 1 to 2^40.")
    if len(noun.encoder.encoders) > MAX_ENCODERS:
        raise SettingsError(f"a task has {len(noun.encoder.encoders)} encoders; {MAX_ENCODERS} are the most.")
    _check_schema(noun.schema)
    if (noun.schema.kind == "text") != noun.method.TEXTS:
        wants = "answers with texts" if noun.method.TEXTS else "answers with classes or numbers"
        raise SettingsError(
            f"method '{noun.method.name}' {wants}, and the label is of another kind: for labels of text there are "
            f"'phrases' and 'translate'."
        )
    try:
        problem = noun.problem
        if problem.num_features > MAX_FEATURES or not problem.max_bound <= WIDEST >= problem.target_bound:
            raise SettingsError(
                f"the columns give {problem.num_features} features of size up to {problem.max_bound:g}; "
                f"{MAX_FEATURES} of size up to {WIDEST:g} are the most: use fewer columns or narrower ranges."
            )
        declared = sum(spec.max_bytes for spec in noun.method.declare(problem, noun.prior).values())
    except ArithmeticError as error:
        raise SettingsError("the declared ranges are too wide to compute with: narrow them.") from error
    if declared > LARGEST_UPDATE:
        raise SettingsError(
            f"an update of '{noun.method.name}' with {problem.num_features} features takes {declared} bytes; "
            f"{LARGEST_UPDATE} are the most: use fewer features."
        )
    return declared


def _check_schema(schema: Schema) -> None:
    """Refuse a table too wide to be one, and texts that are no names."""
    columns = schema.columns
    width = sum(column.length if isinstance(column, Vector) else 1 for column in columns.values())
    if width > MAX_FEATURES:
        raise SettingsError(f"the columns hold {width} numbers a record; {MAX_FEATURES} are the most.")
    label = schema.label
    groups = label.classes if isinstance(label, ClassLabel) else ()
    units = [getattr(column, "unit", "") for column in (*columns.values(), label)]
    for text in (*columns, label.column, *(group[0] for group in groups), *units):
        if len(text) > LONGEST_NAME or CONTROL.search(text):
            raise SettingsError(
                f"a name or unit has control characters or more than {LONGEST_NAME} letters: rename it."
            )
    lists = [column.values for column in columns.values() if isinstance(column, Category)]
    for text in itertools.chain.from_iterable([*lists, *(group[1] for group in groups)]):
        if CONTROL.search(text):
            raise SettingsError(
                "a value of a category or class has control characters: map it to another in site.toml."
            )


def _check_members(members: tuple[Member, ...]) -> None:
    """Refuse a list of members that is empty, unsorted, or counts a client twice."""
    digests = [digest for digest, _ in members]
    signers = [signer for _, signer in members if signer]
    if not members or any(a >= b for a, b in itertools.pairwise(digests)) or len(set(signers)) != len(signers):
        raise SettingsError("members are listed by digest in rising order, at least one, no signer twice.")
