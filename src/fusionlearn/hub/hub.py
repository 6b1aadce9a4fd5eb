"""A hub's parts in one place: its database, its store, its key, its clock."""

from __future__ import annotations

import contextlib
import datetime
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fusionlearn import file, keys
from fusionlearn.hub import audit, tables
from fusionlearn.hub.refusal import Refusal, unavailable
from fusionlearn.hub.store import Store, blob
from fusionlearn.types import Task

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DEFAULT = "default"  # the project a hub starts with
KNOWN_TASKS = 64  # tasks kept parsed


class Hub:
    """What the operations in this package work on. Stateless besides caches: processes may share database and store.

    database  its URL, see `tables.engine`; migrated when the hub is made
    store     its URL, see `store.Store`
    key       signs models, reports and receipts
    hosts     what it is called in requests' Host; others are refused, so that no other hub can repeat to this one a
              request that was signed for it. None: any, for tests and one's own machine
    now       the clock, in UTC; tests move it
    Errors    SettingsError for URLs that cannot work; Refusal 503 when the database does not answer
    """

    def __init__(
        self,
        *,
        database: str,
        store: str,
        key: Ed25519PrivateKey,
        name: str = "",
        hosts: Iterable[str] = (),
        now: Callable[[], datetime.datetime] | None = None,
    ) -> None:
        self.key = key
        self.public = keys.public_hex(key)
        self.name = name or "fusionlearn hub"
        self.hosts = frozenset(host.lower() for host in hosts)
        self.now = now or (lambda: datetime.datetime.now(datetime.UTC))
        self.engine = tables.engine(database)
        self._writing = tables.writing(self.engine)
        try:
            with refusing():
                tables.migrate(self.engine)
        except BaseException:
            self.engine.dispose()
            raise
        with self.reading() as connection:  # files that rows name cannot be in a folder made just now
            begun = connection.execute(sa.select(tables.task.c.digest).limit(1)).first() is not None
        self.store = Store(store, make=not begun)
        self._body = tables.Lookup(self.engine, _BODY)
        self.lock = threading.Lock()
        self.wake: Callable[[], None] = lambda: None  # tells workers that there is something to fuse; they look anyway
        self._local = threading.local()
        self.parsed = functools.lru_cache(KNOWN_TASKS)(self._parsed)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with refusing(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes; whatever it appended to the log is there if and only if the rest is."""
        self._local.asked = False
        with refusing(), self._writing.begin() as connection:
            yield connection
        if self._local.asked:
            self.wake()

    def ask(self) -> None:
        """Have a worker look once this thread's transaction is over."""
        self._local.asked = True

    def log(self, connection: sa.Connection, project: str, kind: str, who: str, **what: Any) -> tuple[int, str]:
        """One event in the caller's transaction: its number and chain."""
        return audit.append(connection, project, self.now(), [(kind, who, what)])[0]

    def task(self, project: str, digest: str) -> tuple[sa.Row[Any], Task]:
        """A task's row and the task; 404 when the project has none of this digest."""
        with self.reading() as connection:
            row = task_row(connection, project, digest)
        return row, self.parsed(row.sha256)

    def _parsed(self, sha256: str) -> Task:
        return file.from_bytes(self.store.get(blob(sha256)), Task, place="task")

    def update(self, project: str, task: str, digest: str, sha256: str) -> bytes:
        """An update's bytes, from wherever they are kept."""
        with refusing():
            beside = self._body(project=project, task=task, digest=digest)
        return bytes(beside[0]) if beside else self.store.get(blob(sha256))

    def check(self) -> None:
        """Refused with 503 when database or store do not answer."""
        with self.reading() as connection:
            connection.execute(sa.select(tables.project.c.name).limit(1)).all()
        self.store.check()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


_BODY = sa.select(tables.body.c.content).where(
    *(tables.body.c[name] == sa.bindparam(name) for name in ("project", "task", "digest"))
)
_TASK = sa.select(tables.task).where(
    tables.task.c.project == sa.bindparam("project"), tables.task.c.digest == sa.bindparam("digest")
)


def task_row(connection: sa.Connection, project: str, digest: str) -> sa.Row[Any]:
    """A task's row; 404 when the project has none of this digest."""
    row = connection.execute(_TASK, {"project": project, "digest": digest}).one_or_none()
    if row is None:
        raise Refusal(404, "this project has no task of that digest: ask its owner for the task's address.")
    return row


def changed(connection: sa.Connection, project: str, digest: str, **values: Any) -> None:
    """Change a task's row, so that whoever polls sees that something did."""
    table = tables.task
    if values:
        moved = sa.update(table).where(table.c.project == project, table.c.digest == digest)
        connection.execute(moved.values(changed=table.c.changed + 1, **values))
    else:
        connection.execute(_CHANGED, {"at": project, "of": digest})


_CHANGED = (
    sa.update(tables.task)
    .where(tables.task.c.project == sa.bindparam("at"), tables.task.c.digest == sa.bindparam("of"))
    .values(changed=tables.task.c.changed + 1)
)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Whatever the database's trouble, the client is told to come again, and nothing was acknowledged."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        raise unavailable("the database", error) from error
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise unavailable("the database", error) from error
        raise
