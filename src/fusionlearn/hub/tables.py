"""The hub's tables, and engines for SQLite and PostgreSQL. Migrations in `migrations/` make them; nothing else does.

An update's bytes lie in the store under the SHA-256 of the file; rows here say what they are. A row is written only
after the bytes are safe, or with them, so whatever a row names can be read.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fusionlearn.errors import SettingsError

BUSY_MS = 20_000  # how long SQLite waits for another writer
LATEST = "0002"  # the revision in migrations/ that makes these tables
GIVE_UP = {"connect_timeout": 10, "tcp_user_timeout": 20_000}  # seconds, ms: PostgreSQL's machine may just be gone
METADATA = sa.MetaData()
_Digest = sa.String(64)


class Moment(sa.types.TypeDecorator[datetime.datetime]):
    """A moment in UTC, kept as ISO 8601 text, which sorts as time does and is the same in every database."""

    impl = sa.String(32)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:  # noqa: ARG002
        return None if value is None else value.astimezone(datetime.UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Any) -> datetime.datetime | None:  # noqa: ARG002
        return None if value is None else datetime.datetime.fromisoformat(value)


project = sa.Table(
    "project",
    METADATA,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("made", Moment, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),  # how many the chain has: whoever appends locks this row
    sa.Column("chain", _Digest, nullable=False),  # its head
)

member = sa.Table(
    "member",
    METADATA,
    sa.Column("project", sa.ForeignKey("project.name"), primary_key=True),
    sa.Column("key", _Digest, primary_key=True),
    sa.Column("person", _Digest, nullable=False),  # the first key, which rotations keep: one person, one answer
    sa.Column("role", sa.String(16), nullable=False),  # owner, client, reader, manufacturer
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("revoked", Moment),
)

code = sa.Table(
    "code",
    METADATA,
    sa.Column("hash", _Digest, primary_key=True),  # SHA-256: whoever reads the database cannot join
    sa.Column("project", sa.ForeignKey("project.name"), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("uses", sa.Integer, nullable=False),  # how many are left
    sa.Column("expires", Moment, nullable=False),
)

nonce = sa.Table(
    "nonce",
    METADATA,
    sa.Column("key", _Digest, primary_key=True),
    sa.Column("nonce", sa.String(128), primary_key=True),
    sa.Column("expires", Moment, nullable=False, index=True),
)

task = sa.Table(
    "task",
    METADATA,
    sa.Column("project", sa.ForeignKey("project.name"), primary_key=True),
    sa.Column("digest", _Digest, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("method", sa.String(200), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", _Digest, nullable=False),
    sa.Column("max_bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open, closed
    sa.Column("quorum", sa.Integer),
    sa.Column("deadline", Moment),
    sa.Column("public_model", sa.Boolean, nullable=False),
    sa.Column("published", Moment, nullable=False),
    sa.Column("closed", Moment),
    sa.Column("closed_by", sa.String(200)),
    sa.Column("changed", sa.BigInteger, nullable=False),  # rises with every change a client may see: the status' ETag
)

update = sa.Table(
    "upload",
    METADATA,
    sa.Column("project", sa.String(40), primary_key=True),
    sa.Column("task", _Digest, primary_key=True),
    sa.Column("digest", _Digest, primary_key=True),
    sa.Column("signer", _Digest, nullable=False),
    sa.Column("person", _Digest, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # counted, waiting, late, withdrawn, replaced, excluded
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", _Digest, nullable=False),
    sa.Column("replaces", sa.String(64), nullable=False),
    sa.Column("guarantee", sa.String(32), nullable=False),
    sa.Column("received", Moment, nullable=False),
    sa.Column("event", sa.BigInteger, nullable=False),
    sa.Column("chain", _Digest, nullable=False),
    sa.ForeignKeyConstraint(["project", "task"], ["task.project", "task.digest"]),
    sa.Index("upload_of_person", "project", "task", "person"),
    sa.Index("upload_by_state", "project", "task", "state"),
)

body = sa.Table(  # a small update's bytes, where the store is a folder: see uploads.SMALL
    "body",
    METADATA,
    sa.Column("project", sa.String(40), primary_key=True),
    sa.Column("task", _Digest, primary_key=True),
    sa.Column("digest", _Digest, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["project", "task", "digest"], ["upload.project", "upload.task", "upload.digest"]),
)

answer = sa.Table(  # the place each person has in a task: its primary key is what "once" means
    "answer",
    METADATA,
    sa.Column("project", sa.String(40), primary_key=True),
    sa.Column("task", _Digest, primary_key=True),
    sa.Column("person", _Digest, primary_key=True),
    sa.Column("digest", _Digest, nullable=False),
)

chunk = sa.Table(  # pieces of an upload that is not complete yet
    "chunk",
    METADATA,
    sa.Column("project", sa.String(40), primary_key=True),
    sa.Column("task", _Digest, primary_key=True),
    sa.Column("digest", _Digest, primary_key=True),
    sa.Column("key", _Digest, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),  # of the whole file
    sa.Column("object", sa.String(200), nullable=False),
    sa.Column("received", Moment, nullable=False, index=True),
)

version = sa.Table(  # a model, from the moment it is asked for
    "version",
    METADATA,
    sa.Column("project", sa.String(40), primary_key=True),
    sa.Column("task", _Digest, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),  # wanted, published, failed
    sa.Column("members", sa.JSON, nullable=False),  # digests of the updates in it, sorted: fixed when it is asked for
    sa.Column("asked", Moment, nullable=False),
    sa.Column("asked_by", sa.String(200), nullable=False),
    sa.Column("lease", Moment),  # a worker has it until then
    sa.Column("worker", sa.String(200)),
    sa.Column("sentence", sa.Text, nullable=False),  # why it failed
    sa.Column("made", Moment),
    sa.Column("digest", _Digest),
    sa.Column("sha256", _Digest),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("report", _Digest),  # the report's digest …
    sa.Column("report_sha256", _Digest),
    sa.Column("findings", sa.JSON, nullable=False),  # what the dashboard shows of it
    sa.ForeignKeyConstraint(["project", "task"], ["task.project", "task.digest"]),
    sa.Index("version_by_state", "state"),
)

event = sa.Table(  # the hash chain
    "event",
    METADATA,
    sa.Column("project", sa.String(40), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # canonical JSON
    sa.Column("chain", _Digest, nullable=False),
)

session = sa.Table(  # a browser's
    "session",
    METADATA,
    sa.Column("hash", _Digest, primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),  # login (once), cookie
    sa.Column("project", sa.ForeignKey("project.name"), nullable=False),
    sa.Column("key", _Digest, nullable=False),
    sa.Column("expires", Moment, nullable=False),
)


def engine(url: str) -> sa.Engine:
    """An engine for a database's URL: sqlite:///file or postgresql+psycopg://…

    Errors: SettingsError when the URL is of no database we know.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise SettingsError(
            "the database is named by a URL such as sqlite:////folder/hub.db or postgresql://user@host/hub."
        ) from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise SettingsError(f"a hub keeps its tables in sqlite or postgresql, not in {parsed.get_backend_name()}.")
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(
            parsed, pool_size=8, max_overflow=24, pool_pre_ping=True, pool_timeout=10, connect_args=GIVE_UP
        )
    if parsed.database:
        _own_file(Path(parsed.database))
    made = sa.create_engine(parsed, pool_size=8, max_overflow=24, connect_args={"timeout": BUSY_MS / 1000})
    sa.event.listen(made, "connect", _prepare_sqlite)
    sa.event.listen(made, "begin", _begin_sqlite)
    return made


def _own_file(path: Path) -> None:
    """The database's file, for its owner alone; SQLite gives what it writes beside it the same permissions."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.touch(mode=0o600)
    except OSError as error:
        raise SettingsError(f"the database {path} cannot be made: {error.strerror}.") from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: `_begin_sqlite` does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """A transaction that will write takes the lock at once: taken later, it could fail half-way for another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def writing(made: sa.Engine) -> sa.Engine:
    """The same engine, its transactions made for writing."""
    return made.execution_options(writes=True)


class Lookup:
    """One row, asked of the driver itself: for what every upload asks, SQLAlchemy's part takes six times the query's.

    Errors: the driver's, as SQLAlchemy's
    """

    def __init__(self, made: sa.Engine, query: sa.Select[Any]) -> None:
        self.engine = made
        compiled = query.compile(dialect=made.dialect)
        self.text, self.order = str(compiled), getattr(compiled, "positiontup", None)

    def __call__(self, **given: str) -> Any:
        """The row for these values as a tuple, or None."""
        values: Any = given if self.order is None else [given[name] for name in self.order]
        try:
            connection = self.engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(self.text, values)
                row = cursor.fetchone()
                cursor.close()
                return row
            except BaseException:
                connection.invalidate()
                raise
            finally:
                connection.close()
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.OperationalError(self.text, None, error) from error


def migrate(made: sa.Engine) -> None:
    """Bring the tables to this version's shape.

    Errors: SettingsError when a later version made them.
    """
    with made.connect() as connection:
        if _revision(connection) == LATEST:
            return  # alembic would take 10 MB to say so
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with writing(made).begin() as connection:
        if made.dialect.name == "postgresql":  # one process migrates, the others wait
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7254381)"))
        present = _revision(connection)
        if present and present not in known:
            raise SettingsError(
                f"the database has the tables of a later version ({present}): start that version of fusionlearn."
            )
        if present != script.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
