"""The nouns: Task, Update, Total, Model, Report. Each is frozen and is one kind of file (`fusionlearn.file`).

A Task goes out; each client summarizes its data into one Update; the server fuses the updates into one Model.
A Total is a sum of updates that knows its members; a Report is for the coordinator alone.

Everything computed from a client's data, its number of records included, is an array: the other fields hold only
what was known before training.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from fusionlearn.arrays import Arrays
from fusionlearn.encoder import Chain, Features
from fusionlearn.errors import PrivacyError, SettingsError
from fusionlearn.method import Method
from fusionlearn.problem import Problem, Schema

Digest: TypeAlias = str  # 64 hex digits: the SHA-256 of a manifest; the name of a file everywhere
Signer: TypeAlias = str  # 64 hex digits: an Ed25519 public key; "" when unsigned
Mode: TypeAlias = Literal["none", "local", "two_servers"]

SMALL_CELL = 25  # people: a class or category held by fewer is named on the leakage page
LONGEST_NAME = 200
HEADER_ROOM = 256 * 1024  # bytes of a file besides its arrays


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
        if not self.name.strip() or len(self.name) > LONGEST_NAME or not self.name.isprintable():
            raise SettingsError(f"a task needs a name of 1 to {LONGEST_NAME} printable characters.")
        if not 1 <= self.max_records <= 2**40:
            raise SettingsError(f"max_records is {self.max_records}; it may be 1 to 2^40.")
        declared = sum(spec.max_bytes for spec in self.method.declare(self.problem, self.prior).values())
        needed = declared + HEADER_ROOM
        if self.max_bytes == 0:
            object.__setattr__(self, "max_bytes", needed)
        elif self.max_bytes < declared:
            raise SettingsError(
                f"max_bytes is {self.max_bytes}, but an update of '{self.method.name}' with "
                f"{self.problem.num_features} features takes {declared} bytes: raise it or use fewer features."
            )

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
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)


Member: TypeAlias = tuple[Digest, Signer]


@dataclass(frozen=True)
class Total(Noun):
    """A sum of updates of an additive method that knows its members."""

    task: Digest
    arrays: Arrays
    members: tuple[Member, ...]  # sorted by digest
    guarantee: Guarantee = Guarantee()
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)


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

    @functools.cached_property
    def problem(self) -> Problem:
        """What the method sees, derived from schema and encoder."""
        return problem_of(self.schema, self.encoder.features(self.schema), self.max_records)


@dataclass(frozen=True)
class Report(Noun):
    """For the coordinator, never broadcast: it speaks of single clients."""

    task: Digest
    model: Digest
    members: tuple[Member, ...]
    findings: Mapping[str, Any]  # JSON values
    signer: Signer = ""
    signature: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)


def problem_of(schema: Schema, features: Features, max_records: int) -> Problem:
    """The problem that encoded rows of this schema pose."""
    bound = 1.0 if not hasattr(schema.label, "bound") else schema.label.bound
    return Problem(schema.kind, schema.labels, features.names, features.bounds, max_records, bound)
