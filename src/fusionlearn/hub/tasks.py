"""Publishing tasks and telling how they stand."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa

from fusionlearn import file
from fusionlearn.errors import FusionlearnError
from fusionlearn.hub import audit, tables
from fusionlearn.hub.hub import Hub, changed, task_row
from fusionlearn.hub.members import Member, member_in
from fusionlearn.hub.refusal import Refusal
from fusionlearn.hub.store import blob, sha256_of
from fusionlearn.types import Task

MOST_QUORUM = 10_000_000


def publish(
    hub: Hub,
    owner: Member,
    digest: str,
    content: bytes,
    *,
    quorum: int | None = None,
    deadline: datetime.datetime | None = None,
    public_model: bool = False,
) -> bool:
    """Publish a task that an owner of the project has signed; False when it was published before.

    quorum        how many updates close the task
    deadline      when it closes by itself
    public_model  whether anyone may fetch the model
    Errors        Refusal: 422 for a file that is no valid task, 403 when another's key signed it, 409 when it is there
                  with other terms
    """
    task = _valid(content, digest)
    if quorum is not None and not 1 <= quorum <= MOST_QUORUM:
        raise Refusal(422, f"a quorum is 1 to {MOST_QUORUM} updates.")
    terms = {"quorum": quorum, "deadline": deadline, "public_model": public_model}
    with hub.reading() as connection:
        if not _is_owner(connection, owner.project, task.signer):
            raise Refusal(403, "a task is published by an owner of the project, who has signed it.")
    sha256 = sha256_of(content)
    hub.store.put(blob(sha256), content)
    table = tables.task
    with hub.writing() as connection:
        audit.lock(connection, owner.project)
        there = sa.select(table).where(table.c.project == owner.project, table.c.digest == digest)
        row = connection.execute(there).one_or_none()
        if row is not None:
            if any(getattr(row, name) != value for name, value in terms.items()):
                raise Refusal(409, "this task is published already, with another quorum, deadline or reach.")
            return False
        if deadline is not None and deadline <= hub.now():
            raise Refusal(422, "the deadline has passed already: give a later one.")
        made = {
            "project": owner.project, "digest": digest, "name": task.name, "method": task.method.name,
            "bytes": len(content), "sha256": sha256, "max_bytes": task.max_bytes, "state": "open", **terms,
            "published": hub.now(), "closed": None, "closed_by": None, "changed": 1,
        }  # fmt: skip
        connection.execute(sa.insert(table), [made])
        told = {"task": digest, "quorum": quorum or 0, "deadline": deadline.isoformat() if deadline else ""}
        hub.log(connection, owner.project, "publish", owner.key, **told, public="yes" if public_model else "no")
    return True


def _valid(content: bytes, digest: str) -> Task:
    try:
        task = file.from_bytes(content, Task, place="task")
    except FusionlearnError as error:
        raise Refusal(422, str(error), type(error).__name__) from error
    if file.digest(task) != digest:
        raise Refusal(422, "the file's digest is not the one in the address.", "FileError")
    if not task.signer:
        raise Refusal(422, "the task is not signed: sign it with an owner's key.", "SignatureError")
    return task


def _is_owner(connection: sa.Connection, project: str, key: str) -> bool:
    try:
        return member_in(connection, project, key).role == "owner"
    except Refusal:
        return False


def content(hub: Hub, project: str, digest: str) -> bytes:
    """The task's file."""
    with hub.reading() as connection:
        row = task_row(connection, project, digest)
    return hub.store.get(blob(row.sha256))


def listed(hub: Hub, member: Member) -> list[dict[str, Any]]:
    """Every task of the project, the latest first; how many answered is for owners only."""
    table = tables.task
    with hub.reading() as connection:
        rows = connection.execute(sa.select(table).where(table.c.project == member.project)).all()
        counts = _counts(connection, member.project) if member.role == "owner" else {}
        latest = _latest(connection, member.project)
    told = []
    for row in sorted(rows, key=lambda row: row.published, reverse=True):
        entry = _entry(hub, row, latest.get(row.digest))
        if member.role == "owner":
            entry["updates"] = counts.get(row.digest, 0)
        told.append(entry)
    return told


def _entry(hub: Hub, row: sa.Row[Any], latest: sa.Row[Any] | None) -> dict[str, Any]:
    return {
        "task": row.digest, "name": row.name, "method": row.method, "bytes": row.bytes, "max_bytes": row.max_bytes,
        "state": state_of(hub, row, latest), "quorum": row.quorum, "deadline": _iso(row.deadline),
        "published": _iso(row.published), "public_model": bool(row.public_model),
        "model": model_of(latest) if latest is not None and latest.state == "published" else None,
    }  # fmt: skip


def state_of(hub: Hub, row: sa.Row[Any], latest: sa.Row[Any] | None) -> str:
    """open, closed, fusing, published or failed, as people see it."""
    if latest is not None:
        return "fusing" if latest.state == "wanted" else str(latest.state)
    if row.state == "open" and row.deadline is not None and row.deadline <= hub.now():
        return "closed"
    return str(row.state)


def model_of(version: sa.Row[Any]) -> dict[str, Any]:
    """A published model, as answers tell of it."""
    return {
        "version": version.number, "digest": version.digest, "made": _iso(version.made), "bytes": version.bytes,
        "members": len(version.members),
    }  # fmt: skip


def status(hub: Hub, member: Member, digest: str) -> tuple[dict[str, Any], str]:
    """How a task stands for this member, and an ETag that changes when the answer does."""
    with hub.reading() as connection:
        row = task_row(connection, member.project, digest)
        versions = _versions(connection, member.project, digest)
        counted = _counts(connection, member.project, digest).get(digest, 0)
        table = tables.update
        mine = sa.select(table).where(
            table.c.project == member.project, table.c.task == digest, table.c.person == member.person
        )
        yours = connection.execute(mine.order_by(table.c.event.desc()).limit(1)).one_or_none()
    latest = versions[-1] if versions else None
    published = [version for version in versions if version.state == "published"]
    told = {
        **_entry(hub, row, latest),
        "model": model_of(published[-1]) if published else None,
        "sentence": latest.sentence if latest is not None and latest.state == "failed" else "",
        "updates": counted,
        "yours": None if yours is None else {
            "digest": yours.digest, "state": yours.state, "received": _iso(yours.received),
        },
    }  # fmt: skip
    return told, f"{row.changed}-{told['state']}"


def _counts(connection: sa.Connection, project: str, digest: str = "") -> dict[str, int]:
    """How many updates count, for each task."""
    table = tables.update
    chosen = sa.select(table.c.task, sa.func.count()).where(table.c.project == project, table.c.state == "counted")
    if digest:
        chosen = chosen.where(table.c.task == digest)
    return {row[0]: row[1] for row in connection.execute(chosen.group_by(table.c.task))}


def _latest(connection: sa.Connection, project: str) -> dict[str, sa.Row[Any]]:
    table = tables.version
    chosen = sa.select(table).where(table.c.project == project).order_by(table.c.number)
    return {row.task: row for row in connection.execute(chosen)}


def _versions(connection: sa.Connection, project: str, digest: str) -> list[sa.Row[Any]]:
    table = tables.version
    chosen = sa.select(table).where(table.c.project == project, table.c.task == digest).order_by(table.c.number)
    return list(connection.execute(chosen))


def touch(connection: sa.Connection, project: str, digest: str) -> None:
    """Whoever polls this task sees something new."""
    changed(connection, project, digest)


def _iso(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
