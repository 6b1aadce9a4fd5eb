"""The hub's log: each event carries the hash of all before it, so none can be altered, left out or put in unseen.

    chain(n) = SHA-256(chain(n - 1) ‖ canonical JSON of project, number, at, kind, who, what)

A client's receipt names its event and chain, so a hub that rewrites its whole log is caught by any one receipt.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from fusionlearn import file
from fusionlearn.hub import tables
from fusionlearn.hub.refusal import Refusal

START = "0" * 64
# Made once: putting a statement together takes longer than running it, and each upload's transaction runs these.
_HEAD = sa.select(tables.project).where(tables.project.c.name == sa.bindparam("project")).with_for_update()
_MOVE = (
    sa.update(tables.project)
    .where(tables.project.c.name == sa.bindparam("project"))
    .values(events=sa.bindparam("number"), chain=sa.bindparam("head"))
)
_INSERT = sa.insert(tables.event)


def lock(connection: sa.Connection, project: str) -> sa.Row[Any]:
    """The project's row, held until the transaction ends, so that events follow one another."""
    row = connection.execute(_HEAD, {"project": project}).one_or_none()
    if row is None:
        raise Refusal(404, "there is no such project here, or this key is not in it.")
    return row


def append(
    connection: sa.Connection,
    project: str,
    at: datetime.datetime,
    events: Iterable[tuple[str, str, Mapping[str, Any]]],
) -> list[tuple[int, str]]:
    """Add events (kind, who, what) inside the caller's transaction; returns each one's number and chain."""
    head = lock(connection, project)
    number, chain = head.events, head.chain
    when = at.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
    rows, added = [], []
    for kind, who, what in events:
        number += 1
        text = file.canonical_json(dict(what)).decode()
        chain = link(chain, project, number, when, kind, who, text)
        rows.append({"project": project, "number": number, "at": when, "kind": kind, "who": who, "what": text})
        rows[-1]["chain"] = chain
        added.append((number, chain))
    if rows:
        connection.execute(_INSERT, rows)
        connection.execute(_MOVE, {"project": project, "number": number, "head": chain})
    return added


def link(chain: str, project: str, number: int, at: str, kind: str, who: str, what: str) -> str:
    """The chain after one more event."""
    told = {"project": project, "number": number, "at": at, "kind": kind, "who": who, "what": what}
    return hashlib.sha256(bytes.fromhex(chain) + file.canonical_json(told)).hexdigest()


def events(connection: sa.Connection, project: str, after: int, most: int) -> list[dict[str, Any]]:
    """Events in order, as they are shown."""
    table = tables.event
    chosen = sa.select(table).where(table.c.project == project, table.c.number > after)
    rows = connection.execute(chosen.order_by(table.c.number).limit(most))
    return [
        {
            "number": row.number, "at": row.at, "kind": row.kind, "who": row.who, "what": json.loads(row.what),
            "chain": row.chain,
        }
        for row in rows
    ]  # fmt: skip


def verify(connection: sa.Connection, project: str) -> str:
    """ "" when the chain holds from its first event to its head, else one sentence that names the first fault."""
    chain, number = START, 0
    table = tables.event
    rows = connection.execute(sa.select(table).where(table.c.project == project).order_by(table.c.number))
    for row in rows:
        number += 1
        if row.number != number:
            return f"project {project}: event {number} is missing from the log."
        chain = link(chain, project, row.number, row.at, row.kind, row.who, row.what)
        if chain != row.chain:
            return f"project {project}: event {number} was altered after it was written."
    head = connection.execute(sa.select(tables.project).where(tables.project.c.name == project)).one()
    if (head.events, head.chain) != (number, chain):
        return f"project {project}: the log ends at event {number}, but {head.events} were written."
    return _unlogged(connection, project)


def _unlogged(connection: sa.Connection, project: str) -> str:
    """Whether every update's row is the one its event told of."""
    upload, event = tables.update, tables.event
    joined = sa.select(upload.c.digest, upload.c.sha256, upload.c.chain, event.c.chain, event.c.what).select_from(
        upload.outerjoin(event, sa.and_(event.c.project == upload.c.project, event.c.number == upload.c.event))
    )
    for digest, sha256, chain, logged, what in connection.execute(joined.where(upload.c.project == project)):
        told = json.loads(what) if what else {}
        if chain != logged or told.get("update") != digest or told.get("sha256") != sha256:
            return f"project {project}: update {digest[:12]}… is not the one the log tells of."
    return _unlogged_models(connection, project) or _unlogged_keys(connection, project)


def _told(connection: sa.Connection, project: str, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    """What events of these kinds say, in order."""
    table = tables.event
    chosen = sa.select(table.c.kind, table.c.what).where(table.c.project == project, table.c.kind.in_(kinds))
    return [(row.kind, json.loads(row.what)) for row in connection.execute(chosen.order_by(table.c.number))]


def _unlogged_models(connection: sa.Connection, project: str) -> str:
    """Whether every model is made of the updates its event told of, and is the one that was published."""
    fused: dict[tuple[str, int], list[str]] = {}
    models: dict[tuple[str, int], str] = {}
    for kind, what in _told(connection, project, "fuse", "model"):
        if kind == "fuse":
            fused[what["task"], what["version"]] = what["members"]
        else:
            models[what["task"], what["version"]] = what["model"]
    table = tables.version
    for row in connection.execute(sa.select(table).where(table.c.project == project)):
        this = (row.task, row.number)
        if fused.get(this) != row.members or models.get(this, "") != (row.digest or ""):
            return f"project {project}: model {row.number} of task {row.task[:12]}… is not the one the log tells of."
    return ""


def _unlogged_keys(connection: sa.Connection, project: str) -> str:
    """Whether every key was let in as its event told, and none that was revoked is valid again."""
    let_in, revoked = set(), set()
    for kind, what in _told(connection, project, "enrol", "revoke"):
        if kind == "enrol":
            let_in.add((what["key"], what["role"]))
        else:
            revoked.add(what["key"])
    table = tables.member
    for row in connection.execute(sa.select(table).where(table.c.project == project)):
        if (row.key, row.role) not in let_in or (row.key in revoked and row.revoked is None):
            return f"project {project}: key {row.key[:12]}… is not what the log tells of it."
    return ""
