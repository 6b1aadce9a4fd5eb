"""What the hub's tests are about: keys, a task whose clients each hold one record of a class of their own, updates.

The classes are canaries: in a fused model the class of each client who was counted has one record, of everybody else
none. A client lost shows as an absent class, a client counted twice as a record too many.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from pathlib import Path
from typing import Any

import numpy as np
from tests import rounds

from fusionlearn import file, run
from fusionlearn.problem import ClassLabel, Vector
from fusionlearn.types import Model, Privacy, Report, Task, Update

CLIENTS = 8
COLUMNS = 200  # an update takes 180 kB: more than two pieces of an upload
OWNER, HUB, READER, STRANGER, OTHER_OWNER, OTHER_CLIENT, REVOKED = 0, 90, 91, 92, 93, 94, 95  # numbers of test keys

key, public = rounds.key, rounds.public


@functools.cache
def task(name: str = "canaries", columns: int = COLUMNS, clients: int = CLIENTS) -> Task:
    """A task signed by the owner."""
    made = run.new_task(
        name,
        {"x": Vector(columns, low=-1, high=1)},
        ClassLabel("y", tuple((f"client {number}", (str(number),)) for number in range(1, clients + 1))),
        method="gaussian",
        encoder="identity",
        privacy=Privacy("none", "allow"),
    )
    return file.sign(made, key(OWNER))


@functools.cache
def arrays(client: int, again: int, columns: int, clients: int) -> Any:
    """What a client's one record makes; `again` numbers its corrections."""
    rng = np.random.default_rng([client, again])
    record = {"x": rng.uniform(-1, 1, (1, columns)), "y": np.array([str(1 + (client - 1) % clients)])}
    return run.summarize(task("canaries", columns, clients), record).arrays


@functools.cache
def update(
    client: int,
    *,
    again: int = 0,
    replaces: str = "",
    of: Task | None = None,
    signer: int | None = None,
    columns: int = COLUMNS,
    clients: int = CLIENTS,
) -> Update:
    """A client's signed update, the same every time."""
    question = of or task("canaries", columns, clients)
    made = Update(file.digest(question), arrays(client, again, columns, clients), replaces=replaces)
    return file.sign(made, key(client if signer is None else signer))


def content(noun: Any) -> bytes:
    return file.to_bytes(noun)


def fused(updates: list[Update], of: Task | None = None) -> str:
    """The digest of the model of these updates, fused from files and signed by the hub's key."""
    model, _ = run.fuse(of or task(), updates, accept_replacements=True, allow_unsigned=False)
    return file.digest(file.sign(model, key(HUB)))


def counted(report: Report) -> tuple[int, set[int]]:
    """How many records a model holds, and whose: 0 lost and 0 twice when the first is the size of the second."""
    absent = {int(name.removeprefix("client ")) for name in report.findings["absent_classes"]}
    return report.findings["records"], set(range(1, CLIENTS + 1)) - absent


def model(content: bytes) -> Model:
    return file.from_bytes(content, Model, place="model")


def hub(folder: Path, **more: Any) -> Any:
    """A hub on SQLite and a folder below `folder`."""
    from fusionlearn.hub.hub import Hub

    store = f"file://{folder}/store"
    return Hub(**{"database": f"sqlite:///{folder}/hub.db", "store": store, "key": key(HUB), **more})


@dataclasses.dataclass
class Clock:
    """A clock that tests move."""

    ahead: float = 0.0  # seconds
    still: datetime.datetime | None = None  # the moment it stands at, but for those seconds

    def __call__(self) -> datetime.datetime:
        return (self.still or datetime.datetime.now(datetime.UTC)) + datetime.timedelta(seconds=self.ahead)
