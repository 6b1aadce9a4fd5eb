"""Taking updates in, each client's once.

An update is checked as it will be when it is fused, its bytes are made safe in the store, and only then one
transaction gives it its place: the primary key (project, task, person) of `answer` is what *once* means. Uploads that
wait at the same moment share a transaction, so that one sync of the database's log serves them all. Where the store is
a folder, a small update's bytes are written in that transaction, too: a folder would have to be synced for each. A
receipt is signed after the commit, and only what has a receipt was acknowledged.

    state       counted   takes part in the next fusion
                waiting   a signed replacement that the owner has not approved
                late      came after the task was closed; the owner may let it in
                withdrawn by its signer;  replaced by its signer's later one;  excluded by the owner
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

from fusionlearn import file
from fusionlearn.errors import FusionlearnError
from fusionlearn.hub import audit, members, tables
from fusionlearn.hub.hub import KNOWN_TASKS, Hub, changed, refusing, task_row
from fusionlearn.hub.members import Member
from fusionlearn.hub.refusal import Refusal, unavailable
from fusionlearn.hub.store import Incoming, blob, sha256_of
from fusionlearn.run import Gate
from fusionlearn.types import UPDATE_HEADER, Task, Update

TOGETHER = 256  # uploads that share a transaction at most
WAITERS = 4  # threads that wait for disk, store and database; one checks what is small, as Python runs one at a time
SMALL = 64 * 1024  # bytes of an update up to which the database keeps it, where the store is a folder
LARGE = 2  # … that check those that came as files: what checking takes is several times an update's bytes
GATHER = 0.05  # seconds a transaction waits for uploads that are being checked
PATIENCE = 30.0  # seconds an upload waits for its transaction
MOST_UNFINISHED = 8  # uploads in pieces that one key may have begun
CHUNK_LEAST, CHUNK_MOST = 64 * 1024, 16 * 2**20  # bytes of one piece of an upload; the last may be smaller
ANSWERED = {"counted": 201, "waiting": 202, "late": 202}

_T = TypeVar("_T")
Answer: TypeAlias = "Taken | Exception"
Done: TypeAlias = "concurrent.futures.Future[Taken] | asyncio.Future[Taken]"
_STANDING = (
    sa.select(
        tables.member.c.person, tables.member.c.role, tables.member.c.name, tables.member.c.revoked,
        tables.task.c.max_bytes, tables.task.c.sha256,
    )
    .select_from(
        tables.member.outerjoin(
            tables.task,
            sa.and_(tables.task.c.project == tables.member.c.project, tables.task.c.digest == sa.bindparam("task")),
        )
    )
    .where(tables.member.c.project == sa.bindparam("project"), tables.member.c.key == sa.bindparam("key"))
)  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """An upload's answer: HTTP's status and the signed receipt."""

    status: int
    receipt: dict[str, Any]


@dataclass
class Arrival:
    """An update that is checked and stored and waits for its place."""

    member: Member
    task: str
    replaces: str
    guarantee: str
    digest: str
    num_bytes: int
    sha256: str
    done: Done  # who waits for the answer
    content: bytes | None  # its bytes, where the database keeps them


class Uploads:
    """The way in; one for each process, its thread begins with the first upload."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._waiting: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._coming = 0
        self._pool = concurrent.futures.ThreadPoolExecutor(WAITERS, thread_name_prefix="wait")
        self._check = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="check")
        large = LARGE if hub.store.folder is not None else 2 * WAITERS  # they wait for a store that is far away
        self._large = concurrent.futures.ThreadPoolExecutor(large, thread_name_prefix="large")
        self._standing = tables.Lookup(hub.engine, _STANDING)
        self._tasks: dict[tuple[str, str], str] = {}  # SHA-256 of task files by project and digest

    def allowed(self, project: str, key: str, task: str) -> tuple[Member, int]:
        """The client behind a key and the most bytes its update may have; asked before a body is read."""
        with refusing():
            row = self._standing(project=project, key=key, task=task)
        person, role, name, revoked, max_bytes, sha256 = row or ("", "", "", None, None, "")
        if role not in members.ROLES:
            raise Refusal(404, members.STRANGER)
        if revoked is not None:
            raise Refusal(403, "this key was revoked: ask the project's owner for a new join code.")
        if role != "client":
            raise Refusal(403, f"this needs the role client; your key is {role} here.")
        if max_bytes is None:
            raise Refusal(404, "this project has no task of that digest: ask its owner for the task's address.")
        self._tasks[project, task] = sha256  # a digest names one file, for ever
        if len(self._tasks) > KNOWN_TASKS:
            self._tasks.pop(next(iter(self._tasks)), None)
        return Member(project, key, person, role, name), max_bytes

    def receive(self, member: Member, task_digest: str, digest: str, content: bytes) -> Taken:
        """Take a whole update in: checked, stored, committed, receipted.

        Errors: Refusal 404, 409, 413, 422, 503; after any of them nothing was taken
        """
        done: concurrent.futures.Future[Taken] = concurrent.futures.Future()
        with self._on_its_way():
            self._arrive(member, task_digest, digest, content, sha256_of(content), done)
        try:
            return done.result(PATIENCE)
        except concurrent.futures.TimeoutError as error:
            raise unavailable("the database", error) from error

    async def receive_soon(
        self, project: str, key: str, task_digest: str, digest: str, body: bytes | Incoming, sha256: str
    ) -> Taken:
        """`receive` of whoever has this key, without a thread that waits: those there are check and store.

        body    the bytes, or the file that they were written to; it is closed when they are not needed any more
        sha256  of the body, as it was checked against the request's signature
        """
        done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        if isinstance(body, Incoming):
            synced = self._pool.submit(body.sync, blob(sha256))  # while it is checked
            self._large.submit(self._come, project, key, task_digest, digest, body, sha256, done, synced)
        else:
            self._check.submit(self._come, project, key, task_digest, digest, body, sha256, done)
        try:
            async with asyncio.timeout(PATIENCE):
                return await done
        except TimeoutError as error:
            raise unavailable("the database", error) from error

    def _come(
        self, project: str, key: str, task_digest: str, digest: str, body: bytes | Incoming, sha256: str, done: Done,
        synced: concurrent.futures.Future[None] | None = None,
    ) -> None:  # fmt: skip
        """One thread's part of `receive_soon`: whatever goes wrong, who waits is told."""
        try:
            with self._on_its_way():
                try:
                    member, _ = self.allowed(project, key, task_digest)
                    self._arrive(member, task_digest, digest, body, sha256, done, synced)
                finally:
                    if isinstance(body, Incoming):
                        concurrent.futures.wait([synced] if synced else [])
                        body.close()
        except Exception as error:  # noqa: BLE001
            _tell([(done, error)])

    async def soon(self, work: Callable[..., _T], *given: Any) -> _T:
        """Run in one of the few threads that are kept for uploads: more would only wait for one another."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *given)

    @contextlib.contextmanager
    def _on_its_way(self) -> Iterator[None]:
        """Counts an upload that is being checked, for `_batch`."""
        self._on_their_way(1)
        try:
            yield
        finally:
            self._on_their_way(-1)

    def _on_their_way(self, more: int) -> None:
        with self._lock:
            self._coming += more

    def _arrive(
        self, member: Member, task_digest: str, digest: str, body: bytes | Incoming, sha256: str, done: Done,
        synced: concurrent.futures.Future[None] | None = None,
    ) -> None:  # fmt: skip
        """Check and store an update, and put it in the queue for its place."""
        known = self._tasks.get((member.project, task_digest))
        task = self.hub.parsed(known) if known else self.hub.task(member.project, task_digest)[1]
        content = body.content() if isinstance(body, Incoming) else body
        num_bytes = len(content)
        replaces, guarantee = _checked(task, member, digest, content)
        del content  # a large one is not held while the disk is waited for
        beside = body if isinstance(body, bytes) and num_bytes <= SMALL and self.hub.store.folder is not None else None
        arrival = Arrival(member, task_digest, replaces, guarantee, digest, num_bytes, sha256, done, beside)
        if isinstance(body, Incoming):
            if synced is not None:
                synced.result()
            body.keep(blob(sha256))
            self._stored(arrival)
        elif beside is not None:
            self._stored(arrival)
        else:
            self._on_their_way(1)
            self._pool.submit(self._store, arrival, body)

    def _store(self, arrival: Arrival, content: bytes) -> None:
        """One thread's part for bytes that go to the store: whatever goes wrong, who waits is told."""
        try:
            self.hub.store.put(blob(arrival.sha256), content)
            self._stored(arrival)
        except Exception as error:  # noqa: BLE001
            _tell([(arrival.done, error)])
        finally:
            self._on_their_way(-1)

    def _stored(self, arrival: Arrival) -> None:
        self._waiting.put(arrival)
        self._ensure_thread()

    def close(self) -> None:
        """End the threads once they have answered who waits."""
        self._check.shutdown()
        self._large.shutdown()
        self._pool.shutdown()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._commit_for_ever, name="uploads", daemon=True)
                    self._thread.start()

    def _commit_for_ever(self) -> None:
        while True:
            batch = self._batch()
            groups: dict[tuple[str, str], list[Arrival]] = {}
            for arrival in batch:
                if arrival is not None:
                    groups.setdefault((arrival.member.project, arrival.task), []).append(arrival)
            for arrivals in groups.values():
                self._commit(arrivals)
            if None in batch:
                return

    def _batch(self) -> list[Arrival | None]:
        """Whoever waits, and for a moment those that are on their way: a lone upload is not kept waiting."""
        batch = [self._waiting.get()]
        until = time.monotonic() + GATHER
        while len(batch) < TOGETHER and batch[-1] is not None:
            left = until - time.monotonic()
            try:
                batch.append(
                    self._waiting.get(timeout=left) if self._coming and left > 0 else self._waiting.get_nowait()
                )
            except queue.Empty:
                break
        return batch

    def _commit(self, arrivals: Sequence[Arrival]) -> None:
        """One transaction for uploads of one task; each gets its own answer, once the transaction is safe."""
        answers: Sequence[Answer]
        try:
            with self.hub.writing() as connection:
                places = _place(self.hub, connection, arrivals)
            answers = [place if isinstance(place, Refusal) else self._taken(place) for place in places]
        except Exception as error:  # noqa: BLE001 - whatever it is, every waiting client is told
            answers = [error for _ in arrivals]
        _tell([(arrival.done, answer) for arrival, answer in zip(arrivals, answers, strict=True)])

    def _taken(self, place: tuple[int, dict[str, Any]]) -> Taken:
        status, receipt = place
        return Taken(status, members.signed_json(self.hub, "receipt", receipt))

    # --- in pieces ------------------------------------------------------------------------------------------------

    def offset(self, member: Member, task: str, digest: str) -> tuple[int, bool]:
        """How many bytes of this update are here, and whether it is complete; 404 when nothing is."""
        table = tables.update
        with self.hub.reading() as connection:
            there = sa.select(table.c.bytes).where(
                table.c.project == member.project, table.c.task == task, table.c.digest == digest,
                table.c.person == member.person,
            )  # fmt: skip
            row = connection.execute(there).one_or_none()
            if row is not None:
                return int(row.bytes), True
            pieces = _chunks(connection, member, task, digest)
        if not pieces:
            raise Refusal(404, "nothing of this update is here.")
        return sum(piece.bytes for piece in pieces), False

    def append(
        self, member: Member, task: str, digest: str, start: int, length: int, content: bytes, most: int
    ) -> Taken | int:
        """Add one piece; the new offset while more is to come, else what `receive` says of the whole.

        start, length   where the piece begins, and how long the whole file is
        Errors: Refusal 409 with the right offset when another was expected
        """
        _check_piece(start, length, content, most)
        with self.hub.reading() as connection:
            there = _among(connection, member.project, task, [digest])
            pieces = _chunks(connection, member, task, digest)
        if there and there[0].person == member.person:  # the answer to the last piece was lost on its way
            return self._taken((200, receipt_of(self.hub, there[0])))
        have = sum(piece.bytes for piece in pieces)
        if start != have or any(piece.length != length for piece in pieces):
            raise Refusal(
                409, f"{have} bytes are here: go on from there, with the same length.", "Offset",
                Upload_Offset=str(have),
            )  # fmt: skip
        if start + len(content) < length:
            self._keep(member, task, digest, start, length, content)
            return start + len(content)
        # The last piece is not kept apart: from whatever is here as pieces, an upload can always go on.
        whole = b"".join([*(self.hub.store.get(piece.object) for piece in pieces), content])
        try:
            return self.receive(member, task, digest, whole)
        except Refusal as refusal:
            if refusal.status != 503:
                self.forget(member, task, digest)
            raise
        finally:
            del whole

    def _keep(self, member: Member, task: str, digest: str, start: int, length: int, content: bytes) -> None:
        """A piece's bytes, then its row."""
        name = f"chunks/{sha256_of(content)}"
        self.hub.store.put(name, content)
        row = {
            "project": member.project, "task": task, "digest": digest, "key": member.key, "start": start,
            "bytes": len(content), "length": length, "object": name, "received": self.hub.now(),
        }  # fmt: skip
        table = tables.chunk
        mine = sa.select(sa.func.count(sa.distinct(table.c.digest))).where(
            table.c.project == member.project, table.c.key == member.key, table.c.digest != digest
        )
        try:
            with self.hub.writing() as connection:
                if connection.execute(mine).scalar_one() >= MOST_UNFINISHED:
                    raise Refusal(
                        429, f"{MOST_UNFINISHED} uploads of this key are unfinished: finish one first.", "TooMany"
                    )
                connection.execute(sa.insert(table), [row])
        except sa.exc.IntegrityError as error:
            raise Refusal(409, "another piece for this place came first.", "Offset") from error

    def forget(self, member: Member, task: str, digest: str) -> None:
        """The pieces of an update are not needed any more."""
        table = tables.chunk
        with self.hub.writing() as connection:
            connection.execute(
                sa.delete(table).where(
                    table.c.project == member.project, table.c.task == task, table.c.digest == digest,
                    table.c.key == member.key,
                )
            )  # fmt: skip


def _tell(answers: Iterable[tuple[Done, Answer]]) -> None:
    """Answer those who wait; an event loop is woken once for all of its own."""
    loops: dict[asyncio.AbstractEventLoop | None, list[tuple[Done, Answer]]] = {}
    for done, answer in answers:
        loops.setdefault(done.get_loop() if isinstance(done, asyncio.Future) else None, []).append((done, answer))
    for loop, own in loops.items():
        if loop is None:
            _settle(own)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and who asked with it
                loop.call_soon_threadsafe(_settle, own)


def _settle(answers: Iterable[tuple[Done, Answer]]) -> None:
    for done, answer in answers:
        with contextlib.suppress(concurrent.futures.InvalidStateError, asyncio.InvalidStateError):  # has given up
            if isinstance(answer, Exception):
                done.set_exception(answer)
            else:
                done.set_result(answer)


def _chunks(connection: sa.Connection, member: Member, task: str, digest: str) -> list[sa.Row[Any]]:
    table = tables.chunk
    chosen = sa.select(table).where(
        table.c.project == member.project, table.c.task == task, table.c.digest == digest, table.c.key == member.key
    )
    return list(connection.execute(chosen.order_by(table.c.start)))


def _check_piece(start: int, length: int, content: bytes, most: int) -> None:
    if not 0 <= start < length or start + len(content) > length:
        raise Refusal(422, "a piece lies within the file: Upload-Offset and Upload-Length do not fit its size.")
    if length > most:
        raise Refusal(413, f"the update has {length} bytes, the task allows {most}.")
    last = start + len(content) == length
    if len(content) > CHUNK_MOST or (len(content) < CHUNK_LEAST and not last) or not content:
        raise Refusal(422, f"a piece has {CHUNK_LEAST} to {CHUNK_MOST} bytes; the last may be smaller.")


def _checked(task: Task, member: Member, digest: str, content: bytes) -> tuple[str, str]:
    """What the update in these bytes replaces, and its guarantee; what `run.fuse` would say of it is said now."""
    if len(content) > task.max_bytes + UPDATE_HEADER:
        raise Refusal(413, f"the update has {len(content)} bytes, the task allows {task.max_bytes}.")
    try:
        update = file.from_bytes(content, Update, place="update")
        if file.digest(update) != digest:
            raise Refusal(422, "the file's digest is not the one in the address.", "FileError")
        if update.signer != member.key:
            raise Refusal(422, "the update is signed by another key than the request.", "SignatureError")
        gate = Gate(task, accept_replacements=True, allow_unsigned=False)
        for _ in gate.admit([update]):
            pass
    except Refusal:
        raise
    except FusionlearnError as error:
        raise Refusal(422, str(error), type(error).__name__) from error
    return update.replaces, update.guarantee.mode


# --- the transaction ------------------------------------------------------------------------------------------------


def _place(
    hub: Hub, connection: sa.Connection, arrivals: Sequence[Arrival]
) -> list[tuple[int, dict[str, Any]] | Refusal]:
    """Give each arrival of one task its place, or the reason why it has none."""
    project, digest = arrivals[0].member.project, arrivals[0].task
    audit.lock(connection, project)
    task = task_row(connection, project, digest)
    now = hub.now()
    is_open = task.state == "open" and (task.deadline is None or task.deadline > now)
    known: dict[str, Any] = {
        row.digest: row for row in _among(connection, project, digest, [a.digest for a in arrivals])
    }
    taken = _answers(connection, project, digest, [a.member.person for a in arrivals])
    valid = _valid_keys(connection, project, [a.member.key for a in arrivals])
    answers: list[tuple[int, dict[str, Any]] | Refusal | None] = []
    fresh: list[tuple[int, Arrival, str]] = []  # where its answer goes, the arrival, its state
    for arrival in arrivals:
        row = known.get(arrival.digest)
        if arrival.member.key not in valid:
            answers.append(Refusal(403, "this key was revoked: ask the project's owner for a new join code."))
        elif row is not None:
            answers.append(_again(hub, arrival, row))
        elif (state := _state(arrival, is_open, taken)) is None:
            answers.append(_second(taken.get(arrival.member.person)))
        else:
            answers.append(None)
            known[arrival.digest] = _Coming(arrival.sha256, arrival.member.person, len(answers) - 1)
            if state != "waiting":
                taken[arrival.member.person] = arrival.digest
            fresh.append((len(answers) - 1, arrival, state))
    told = _insert(hub, connection, project, digest, fresh, now)
    for (place, _, state), receipt in zip(fresh, told, strict=True):
        answers[place] = (ANSWERED[state], receipt)
    if is_open and task.quorum is not None and any(state == "counted" for _, _, state in fresh):
        _close_at_quorum(hub, connection, task)
    return [_settled(answer, answers) for answer in answers]


@dataclass(frozen=True)
class _Coming:
    """Stands for a row that is being written in this very transaction."""

    sha256: str
    person: str
    place: int


def _again(hub: Hub, arrival: Arrival, row: Any) -> Any:
    """The same update once more: the same receipt, unless it is another's or has changed its bytes."""
    if row.person != arrival.member.person:
        return Refusal(409, "this very update came from another key.", "UpdateError")
    if isinstance(row, _Coming):
        return row
    return 200, receipt_of(hub, row)


def _settled(answer: Any, answers: Sequence[Any]) -> Any:
    """An update that came twice in one transaction: the second is answered as a repetition of the first."""
    if isinstance(answer, _Coming):
        first = answers[answer.place]
        return first if isinstance(first, Refusal) else (200, first[1])
    return answer


def _state(arrival: Arrival, is_open: bool, taken: dict[str, str]) -> str | None:
    """The state of a new update; None when its client has answered and this one replaces nothing."""
    has = taken.get(arrival.member.person)
    if has is None and not arrival.replaces:
        return "counted" if is_open else "late"
    return "waiting" if has is not None and arrival.replaces == has else None


def _second(has: str | None) -> Refusal:
    if has is None:
        return Refusal(
            409, "this update replaces an earlier one, but its client has none here: make it without --replaces.",
            "UpdateError",
        )  # fmt: skip
    return Refusal(
        409,
        f"this client has answered already, with update {has[:12]}…: a client answers once. To correct an answer, make "
        f"the new one with --replaces {has}; the owner then decides.",
        "UpdateError",
    )


def _insert(
    hub: Hub, connection: sa.Connection, project: str, task: str, fresh: Sequence[tuple[int, Arrival, str]], now: Any
) -> list[dict[str, Any]]:
    """The rows and events of new updates, and their receipts."""
    if not fresh:
        return []
    told = [
        (
            "update",
            arrival.member.key,
            {
                "task": task, "update": arrival.digest, "sha256": arrival.sha256, "bytes": arrival.num_bytes,
                "state": state, "replaces": arrival.replaces,
            },
        )
        for _, arrival, state in fresh
    ]  # fmt: skip
    numbered = audit.append(connection, project, now, told)
    rows = [
        {
            "project": project, "task": task, "digest": arrival.digest, "signer": arrival.member.key,
            "person": arrival.member.person, "state": state, "bytes": arrival.num_bytes, "sha256": arrival.sha256,
            "replaces": arrival.replaces, "guarantee": arrival.guarantee, "received": now,
            "event": number, "chain": chain,
        }
        for (_, arrival, state), (number, chain) in zip(fresh, numbered, strict=True)
    ]  # fmt: skip
    connection.execute(_INSERT_UPDATE, rows)
    bodies = [
        {"project": project, "task": task, "digest": arrival.digest, "content": arrival.content}
        for _, arrival, _ in fresh
        if arrival.content is not None
    ]
    if bodies:
        connection.execute(_INSERT_BODY, bodies)
    places = [
        {"project": project, "task": task, "person": arrival.member.person, "digest": arrival.digest}
        for _, arrival, state in fresh
        if state != "waiting"
    ]
    if places:
        connection.execute(_INSERT_ANSWER, places)
    connection.execute(_COMPLETE, _given(project, task, [arrival.digest for _, arrival, _ in fresh]))
    changed(connection, project, task)
    return [_receipt(hub, row) for row in rows]


def _of_task(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.project == sa.bindparam("project"), table.c.task == sa.bindparam("task"))


def _wanted(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam("wanted", expanding=True))


# Made once: putting a statement together takes longer than running it, and each transaction runs all of these.
_AMONG = sa.select(tables.update).where(_of_task(tables.update), _wanted(tables.update.c.digest))
_ANSWERS = sa.select(tables.answer.c.person, tables.answer.c.digest).where(
    _of_task(tables.answer), _wanted(tables.answer.c.person)
)
_VALID_KEYS = sa.select(tables.member.c.key).where(
    tables.member.c.project == sa.bindparam("project"), _wanted(tables.member.c.key), tables.member.c.revoked.is_(None)
)
_COMPLETE = sa.delete(tables.chunk).where(_of_task(tables.chunk), _wanted(tables.chunk.c.digest))
_INSERT_UPDATE, _INSERT_BODY, _INSERT_ANSWER = map(sa.insert, (tables.update, tables.body, tables.answer))


def _given(project: str, task: str, wanted: Iterable[str]) -> dict[str, Any]:
    return {"project": project, "task": task, "wanted": sorted(set(wanted))}


def _among(connection: sa.Connection, project: str, task: str, digests: Iterable[str]) -> list[sa.Row[Any]]:
    return list(connection.execute(_AMONG, _given(project, task, digests)))


def _answers(connection: sa.Connection, project: str, task: str, persons: Iterable[str]) -> dict[str, str]:
    return {row.person: row.digest for row in connection.execute(_ANSWERS, _given(project, task, persons))}


def _valid_keys(connection: sa.Connection, project: str, wanted: Iterable[str]) -> set[str]:
    given = {"project": project, "wanted": sorted(set(wanted))}
    return {row.key for row in connection.execute(_VALID_KEYS, given)}


def _close_at_quorum(hub: Hub, connection: sa.Connection, task: sa.Row[Any]) -> None:
    from fusionlearn.hub import fusions

    table = tables.update
    counted = sa.select(sa.func.count()).where(
        table.c.project == task.project, table.c.task == task.digest, table.c.state == "counted"
    )
    if connection.execute(counted).scalar_one() >= task.quorum:
        fusions.close_in(hub, connection, task, "quorum")


# --- receipts and lists ---------------------------------------------------------------------------------------------


def _receipt(hub: Hub, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "hub": hub.public, "project": row["project"], "task": row["task"], "update": row["digest"],
        "signer": row["signer"], "bytes": row["bytes"], "sha256": row["sha256"],
        "received": row["received"].isoformat(timespec="microseconds"), "event": row["event"], "chain": row["chain"],
    }  # fmt: skip


def receipt_of(hub: Hub, row: sa.Row[Any]) -> dict[str, Any]:
    """The receipt of an update that is here, the same every time."""
    return _receipt(hub, dict(row._mapping))


def receipt(hub: Hub, member: Member, task: str, digest: str) -> dict[str, Any]:
    """The signed receipt again, for the signer and the owner."""
    return members.signed_json(hub, "receipt", receipt_of(hub, _row(hub, member, task, digest)))


def _row(hub: Hub, member: Member, task: str, digest: str) -> sa.Row[Any]:
    with hub.reading() as connection:
        task_row(connection, member.project, task)
        rows = _among(connection, member.project, task, [digest])
    if not rows or (member.role != "owner" and rows[0].person != member.person):
        raise Refusal(404, "this task has no such update of yours.")
    return rows[0]


def listed(hub: Hub, member: Member, task: str) -> list[dict[str, Any]]:
    """Who sent what and when, in order of arrival; a client sees its own only. Never an array."""
    table = tables.update
    with hub.reading() as connection:
        task_row(connection, member.project, task)
        chosen = sa.select(table).where(table.c.project == member.project, table.c.task == task)
        if member.role != "owner":
            chosen = chosen.where(table.c.person == member.person)
        rows = connection.execute(chosen.order_by(table.c.event)).all()
        called = members.names(connection, member.project)
    return [
        {
            "digest": row.digest, "signer": row.signer, "name": called.get(row.person, ""), "bytes": row.bytes,
            "received": row.received.isoformat(), "guarantee": row.guarantee, "state": row.state,
            "replaces": row.replaces,
        }
        for row in rows
    ]  # fmt: skip


def withdraw(hub: Hub, member: Member, task: str, digest: str) -> None:
    """A client takes its update back: it is in no later model. A model that holds it needs the owner to make anew."""
    from fusionlearn.hub import fusions

    with hub.writing() as connection:
        audit.lock(connection, member.project)
        rows = _among(connection, member.project, task, [digest])
        if not rows or rows[0].person != member.person:
            raise Refusal(404, "this task has no such update of yours.")
        if rows[0].state == "replaced":
            raise Refusal(409, "this update was replaced already: withdraw the one that took its place.")
        if rows[0].state != "withdrawn":
            set_state(connection, member.project, task, [digest], "withdrawn")
            fusions.leave(hub, connection, member.project, task, digest, member.key)
            changed(connection, member.project, task)
            hub.log(connection, member.project, "withdraw", member.key, task=task, update=digest)


def accept(hub: Hub, owner: Member, task: str, digest: str) -> dict[str, Any]:
    """The owner lets in a late update, a replacement, or one that was excluded; it counts in the next fusion."""
    with hub.writing() as connection:
        audit.lock(connection, owner.project)
        task_row(connection, owner.project, task)
        rows = _among(connection, owner.project, task, [digest])
        if not rows:
            raise Refusal(404, "this task has no such update.")
        row = rows[0]
        if row.state in ("withdrawn", "replaced"):
            raise Refusal(409, f"this update was {row.state} by its signer: it cannot be let in.")
        if row.state == "waiting":
            _replace(connection, row)
        if row.state != "counted":
            set_state(connection, owner.project, task, [digest], "counted")
            changed(connection, owner.project, task)
            hub.log(connection, owner.project, "accept", owner.key, task=task, update=digest, was=row.state)
    return {"digest": digest, "state": "counted"}


def _replace(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """The replacement takes its client's place, if the one it replaces still holds it."""
    table = tables.answer
    mine = sa.and_(table.c.project == row.project, table.c.task == row.task, table.c.person == row.person)
    held = connection.execute(sa.select(table.c.digest).where(mine)).scalar()
    if held != row.replaces:
        raise Refusal(409, "the update that this one replaces is not its client's any more.")
    connection.execute(sa.update(table).where(mine).values(digest=row.digest))
    set_state(connection, row.project, row.task, [held], "replaced")


def set_state(connection: sa.Connection, project: str, task: str, digests: Sequence[str], state: str) -> None:
    """Move updates to another state."""
    table = tables.update
    chosen = sa.update(table).where(table.c.project == project, table.c.task == task, table.c.digest.in_(digests))
    connection.execute(chosen.values(state=state))


def sweep_chunks(hub: Hub, older: float = 7 * 24 * 3600.0) -> int:
    """Forget pieces of uploads that nobody finished in a week."""
    import datetime

    table = tables.chunk
    with hub.writing() as connection:
        before = hub.now() - datetime.timedelta(seconds=older)
        return int(connection.execute(sa.delete(table).where(table.c.received < before)).rowcount)
