"""Closing a task, fusing what it holds, publishing the model: each a transaction, so that any process may die anywhere.

A version's members are fixed when it is asked for. Whoever fuses them gets the same model, bit for bit, so a worker
that dies is simply followed by another, and two that race publish the same thing.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from fusionlearn import file, run
from fusionlearn.errors import FileError, FusionlearnError
from fusionlearn.hub import audit, tables
from fusionlearn.hub.hub import Hub, changed, task_row
from fusionlearn.hub.members import Member, names
from fusionlearn.hub.refusal import Refusal
from fusionlearn.hub.store import blob, sha256_of
from fusionlearn.hub.uploads import set_state
from fusionlearn.report import diagnose
from fusionlearn.types import Model, Report, Task, Update

LEASE = datetime.timedelta(seconds=30)  # a worker that is silent for so long is taken for dead
HELD = 32 * 2**20  # bytes of a version's updates that are kept while they are read again
LOG = logging.getLogger("fusionlearn.hub")
SHOWN = ("records", "absent_classes", "clients", "notices", "left_out", "penalty", "earlier")  # findings kept in a row


# --- closing and asking ---------------------------------------------------------------------------------------------


def close(hub: Hub, owner: Member, digest: str) -> None:
    """No more updates count by themselves; what is here is fused. Closing twice is harmless."""
    with hub.writing() as connection:
        audit.lock(connection, owner.project)
        row = task_row(connection, owner.project, digest)
        if row.state != "open":
            return
        if not _counted(connection, owner.project, digest):
            raise Refusal(409, "no update is here yet, so there is nothing to fuse: wait for one.")
        close_in(hub, connection, row, owner.key)


def close_in(hub: Hub, connection: sa.Connection, row: sa.Row[Any], by: str) -> None:
    """Close a task inside the caller's transaction, and ask for the first model if there is anything to fuse."""
    changed(connection, row.project, row.digest, state="closed", closed=hub.now(), closed_by=by)
    hub.log(connection, row.project, "close", by, task=row.digest)
    digests = _counted(connection, row.project, row.digest)
    if digests:
        _ask(hub, connection, row.project, row.digest, digests, by)


def close_due(hub: Hub) -> int:
    """Close the tasks whose deadline has passed; returns how many."""
    table = tables.task
    due = sa.select(table).where(table.c.state == "open", table.c.deadline <= hub.now())
    with hub.reading() as connection:
        if not connection.execute(due.limit(1)).first():
            return 0
    closed = 0
    with hub.writing() as connection:
        for row in connection.execute(due.order_by(table.c.project).with_for_update()).all():
            audit.lock(connection, row.project)
            close_in(hub, connection, row, "deadline")
            closed += 1
    return closed


def again(hub: Hub, owner: Member, digest: str, without: Sequence[str], confirm: bool) -> dict[str, Any]:
    """Ask for a model of the updates that count now, without those named; the task is closed by it.

    without   digests or signers, whole or their first 8 digits or more; they are excluded from later models too
    confirm   needed when a model was published: two exact releases reveal how they differ
    """
    with hub.writing() as connection:
        audit.lock(connection, owner.project)
        row = task_row(connection, owner.project, digest)
        versions = versions_of(connection, owner.project, digest)
        if any(version.state == "wanted" for version in versions):
            raise Refusal(409, "a model is being made: wait for it.")
        released = [version for version in versions if version.state == "published"]
        if released and not confirm:
            raise Refusal(
                409,
                "a model was released already, and two exact releases reveal what the updates between them hold: "
                "say that you know, with confirm.",
                "Confirm",
            )
        _exclude(hub, connection, owner, digest, without)
        digests = _counted(connection, owner.project, digest)
        if not digests:
            raise Refusal(409, "no update is left to fuse.")
        if released and released[-1].members == digests:
            raise Refusal(409, f"model {released[-1].number} holds just these updates already.")
        if row.state == "open":
            changed(connection, owner.project, digest, state="closed", closed=hub.now(), closed_by=owner.key)
            hub.log(connection, owner.project, "close", owner.key, task=digest)
        number = _ask(hub, connection, owner.project, digest, digests, owner.key)
        changed(connection, owner.project, digest)
    return {"version": number, "members": len(digests)}


def _exclude(hub: Hub, connection: sa.Connection, owner: Member, task: str, without: Sequence[str]) -> None:
    table = tables.update
    for text in without:
        prefix = text.replace(" ", "").lower()
        if len(prefix) < 8 or not all(digit in "0123456789abcdef" for digit in prefix):
            raise Refusal(422, "an update is left out by its digest or signer: at least their first 8 hex digits.")
        named = sa.or_(table.c.digest.startswith(prefix), table.c.signer.startswith(prefix))
        chosen = sa.select(table.c.digest).where(
            table.c.project == owner.project, table.c.task == task, table.c.state == "counted", named
        )
        found = [found.digest for found in connection.execute(chosen)]
        if not found:
            raise Refusal(404, "no update that counts begins with these digits, so it cannot be left out.")
        set_state(connection, owner.project, task, found, "excluded")
        for digest in found:
            hub.log(connection, owner.project, "exclude", owner.key, task=task, update=digest)


def _ask(hub: Hub, connection: sa.Connection, project: str, task: str, digests: list[str], by: str) -> int:
    versions = versions_of(connection, project, task)
    number = 1 + (versions[-1].number if versions else 0)
    row = {
        "project": project, "task": task, "number": number, "state": "wanted", "members": digests,
        "asked": hub.now(), "asked_by": by, "sentence": "", "findings": {},
    }  # fmt: skip
    connection.execute(sa.insert(tables.version), [row])
    hub.ask()
    hub.log(connection, project, "fuse", by, task=task, version=number, members=digests)
    return number


def leave(hub: Hub, connection: sa.Connection, project: str, task: str, digest: str, who: str) -> None:
    """Take a withdrawn update out of a model that is wanted and not published; whoever is making it begins anew."""
    table = tables.version
    for version in versions_of(connection, project, task):
        if version.state == "wanted" and digest in version.members:
            rest = [member for member in version.members if member != digest]
            values: dict[str, Any] = {"members": rest, "lease": None, "worker": None}
            if not rest:
                values |= {"state": "failed", "sentence": "every update in it was withdrawn before it was made."}
            this = sa.and_(table.c.project == project, table.c.task == task, table.c.number == version.number)
            connection.execute(sa.update(table).where(this).values(**values))
            hub.log(connection, project, "fuse", who, task=task, version=version.number, members=rest)


def _counted(connection: sa.Connection, project: str, task: str) -> list[str]:
    table = tables.update
    chosen = sa.select(table.c.digest).where(
        table.c.project == project, table.c.task == task, table.c.state == "counted"
    )
    return [row.digest for row in connection.execute(chosen.order_by(table.c.digest))]


def versions_of(connection: sa.Connection, project: str, task: str) -> list[sa.Row[Any]]:
    """A task's versions, asked for or made, in order."""
    table = tables.version
    chosen = sa.select(table).where(table.c.project == project, table.c.task == task)
    return list(connection.execute(chosen.order_by(table.c.number)))


# --- the worker's side ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Job:
    """A version to make; `worker` says whose it is."""

    project: str
    task: str
    number: int
    members: tuple[str, ...]
    asked_by: str
    worker: str


def worker_name() -> str:
    """A name no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def claim(hub: Hub, worker: str) -> Job | None:
    """The oldest version that nobody makes, if there is one; it is this worker's until the lease ends."""
    table = tables.version
    now = hub.now()
    # A lease that ends later than any could was written by a clock that has been set back since.
    over = sa.or_(table.c.lease.is_(None), table.c.lease < now, table.c.lease > now + 2 * LEASE)
    free = sa.and_(table.c.state == "wanted", over)
    with hub.reading() as connection:
        row = connection.execute(sa.select(table).where(free).order_by(table.c.asked).limit(1)).one_or_none()
    if row is None:
        return None
    this = sa.and_(table.c.project == row.project, table.c.task == row.task, table.c.number == row.number)
    with hub.writing() as connection:
        taken = connection.execute(sa.update(table).where(this, free).values(lease=now + LEASE, worker=worker))
        if taken.rowcount != 1:
            return None  # another worker was quicker
        members = connection.execute(sa.select(table.c.members).where(this)).scalar_one()  # one may have left just now
    return Job(row.project, row.task, row.number, tuple(members), row.asked_by, worker)


def make(hub: Hub, job: Job) -> bool:
    """Fuse a version's members and publish the model; False when they cannot be fused, which the owner then reads.

    Errors: Refusal 503 when database or store are gone: the lease runs out and a worker tries again.
    """
    _, task = hub.task(job.project, job.task)
    with _holding(hub, job):
        try:
            model, report = _fused(hub, job, task)
        except Refusal:
            raise
        except FusionlearnError as error:
            _finish(hub, job, state="failed", sentence=str(error))
            return False
        content, told = file.to_bytes(model), file.to_bytes(report)
        with concurrent.futures.ThreadPoolExecutor(1) as beside:  # the disk is waited for once for both
            report_is_safe = beside.submit(hub.store.put, blob(sha256_of(told)), told)
            hub.store.put(blob(sha256_of(content)), content)
        report_is_safe.result()
        _finish(
            hub, job, state="published", made=hub.now(), digest=file.digest(model), sha256=sha256_of(content),
            bytes=len(content), report=file.digest(report), report_sha256=sha256_of(told),
            findings={name: value for name, value in report.findings.items() if name in SHOWN},
        )  # fmt: skip
    return True


class Members:
    """A version's updates, read one at a time, as often as asked; the first few MB once only."""

    def __init__(self, hub: Hub, job: Job) -> None:
        self.hub, self.job = hub, job
        table = tables.update
        with hub.reading() as connection:
            chosen = sa.select(table.c.digest, table.c.sha256, table.c.person, table.c.replaces).where(
                table.c.project == job.project, table.c.task == job.task
            )
            known = {row.digest: row for row in connection.execute(chosen)}
            called = names(connection, job.project)
        self.objects = [(digest, known[digest].sha256) for digest in job.members]
        self.corrections = any(known[digest].replaces for digest in job.members)
        self.held: dict[str, Update] = {}
        self.room = HELD
        self.names = {digest: called.get(known[digest].person) or digest[:12] for digest in job.members}

    def __iter__(self) -> Iterator[Update]:
        # One is read and hashed while the one before is added. Replacing was decided when the owner let it in: what is
        # here is one update a client.
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="read") as ahead:
            coming: list[concurrent.futures.Future[Update]] = []
            for named in [*self.objects, None]:
                before = coming
                coming = [ahead.submit(self._read, *named)] if named else []
                for read in before:
                    yield read.result()

    def _read(self, digest: str, sha256: str) -> Update:
        known = self.held.get(digest)
        if known is not None:
            return known
        content = self.hub.update(self.job.project, self.job.task, digest, sha256)
        update = file.from_bytes(content, Update, place=f"update {digest[:12]}…")
        self.room -= len(content)
        if self.room >= 0:
            self.held[digest] = update
        return update


def _fused(hub: Hub, job: Job, task: Task) -> tuple[Model, Report]:
    members = Members(hub, job)
    # Each update is read twice, to fuse and to report; once more where some are corrections, which the owner let in.
    model, report = run.fuse(task, members, accept_replacements=members.corrections, allow_unsigned=False)
    model = file.sign(model, hub.key)
    report = dataclasses.replace(report, model=file.digest(model))
    report = diagnose(task, model, report, members, members.names)
    earlier = _earlier(hub, job)
    if earlier:
        report = dataclasses.replace(report, findings={**report.findings, "earlier": earlier})
    return model, file.sign(report, hub.key)


def _earlier(hub: Hub, job: Job) -> list[dict[str, Any]]:
    """The releases before this one, and by whose updates each differs from it: what a reader of both can compute."""
    now = set(job.members)
    with hub.reading() as connection:
        versions = versions_of(connection, job.project, job.task)
    return [
        {
            "version": version.number, "model": version.digest, "added": sorted(now - set(version.members)),
            "left_out": sorted(set(version.members) - now), "confirmed_by": job.asked_by,
        }
        for version in versions
        if version.state == "published" and version.number < job.number
    ]  # fmt: skip


@contextlib.contextmanager
def _holding(hub: Hub, job: Job) -> Iterator[None]:
    """Renew the lease while the work goes on."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE.total_seconds() / 3):
            with contextlib.suppress(Refusal), hub.writing() as connection:
                connection.execute(sa.update(tables.version).where(_mine(job)).values(lease=hub.now() + LEASE))

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _mine(job: Job) -> sa.ColumnElement[bool]:
    table = tables.version
    return sa.and_(
        table.c.project == job.project, table.c.task == job.task, table.c.number == job.number,
        table.c.state == "wanted", table.c.worker == job.worker,
    )  # fmt: skip


def _finish(hub: Hub, job: Job, **values: Any) -> None:
    """The version's end, once: whoever lost the lease meanwhile changes nothing."""
    with hub.writing() as connection:
        audit.lock(connection, job.project)
        ended = connection.execute(sa.update(tables.version).where(_mine(job)).values(lease=None, **values))
        if ended.rowcount != 1:
            return
        changed(connection, job.project, job.task)
        told = {"task": job.task, "version": job.number, "state": values["state"], "model": values.get("digest", "")}
        hub.log(connection, job.project, "model", hub.public, **told)


# --- models ---------------------------------------------------------------------------------------------------------


def models(hub: Hub, project: str, digest: str) -> list[dict[str, Any]]:
    """Every published version, the first first."""
    from fusionlearn.hub.tasks import model_of

    with hub.reading() as connection:
        task_row(connection, project, digest)
        versions = versions_of(connection, project, digest)
    return [model_of(version) for version in versions if version.state == "published"]


def version(hub: Hub, project: str, digest: str, number: str) -> sa.Row[Any]:
    """A published version by its number or "latest"; 404 when there is none."""
    with hub.reading() as connection:
        task_row(connection, project, digest)
        found = [row for row in versions_of(connection, project, digest) if row.state == "published"]
    chosen = found[-1:] if number == "latest" else [row for row in found if str(row.number) == number]
    if not chosen:
        raise Refusal(404, "there is no such model yet: ask for the task's status.")
    return chosen[0]


def public_model(hub: Hub, project: str, digest: str) -> bool:
    """Whether anyone may fetch this task's model; False also where there is no such task."""
    table = tables.task
    with hub.reading() as connection:
        chosen = sa.select(table.c.public_model).where(table.c.project == project, table.c.digest == digest)
        return bool(connection.execute(chosen).scalar())


def named(connection: sa.Connection) -> set[str]:
    """Names of all objects that some row names; whatever else the store holds may be swept."""
    table, body = tables.update, tables.body
    chosen = [sa.select(table.c.sha256).select_from(sa.outerjoin(table, body)).where(body.c.digest.is_(None))]
    chosen += [sa.select(column) for column in (
        tables.task.c.sha256, tables.version.c.sha256, tables.version.c.report_sha256
    )]  # fmt: skip
    kept = {blob(value) for some in chosen for (value,) in connection.execute(some) if value}
    return kept | {name for (name,) in connection.execute(sa.select(tables.chunk.c.object))}


def beside(connection: sa.Connection) -> int:
    """How many updates the database keeps itself, each of them compared with what its row says.

    Errors: FileError for one that was altered
    """
    table, body = tables.update, tables.body
    count = 0
    for digest, sha256, content in connection.execute(
        sa.select(table.c.digest, table.c.sha256, body.c.content).join_from(table, body).execution_options(yield_per=64)
    ):
        if sha256_of(content) != sha256:
            raise FileError(f"update {digest[:12]}… was altered in the database: restore it from a backup.")
        count += 1
    return count


def pending(hub: Hub) -> int:
    """How many versions wait to be made."""
    with hub.reading() as connection:
        table = tables.version
        return int(connection.execute(sa.select(sa.func.count()).where(table.c.state == "wanted")).scalar_one())
