"""Backup and restore of a hub on SQLite and a folder: one tar file, made while the hub runs.

The database is copied first, then the objects its rows name: they were safe before their rows and never change, so the
copy is whole however much arrives meanwhile. PostgreSQL and S3 have tools of their own: see docs/how-to/deploy.md.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3
import tarfile
import tempfile
from pathlib import Path

import sqlalchemy as sa

from fusionlearn.errors import FileError, SettingsError
from fusionlearn.file import replacing
from fusionlearn.hub import audit, fusions, tables
from fusionlearn.hub.hub import Hub
from fusionlearn.hub.store import sha256_of

DATABASE = "hub.db"


def backup(hub: Hub, target: Path) -> int:
    """Write the backup, whole or not at all; returns how many objects it holds.

    Errors: SettingsError when the hub is not on SQLite and a folder
    """
    if hub.engine.dialect.name != "sqlite" or hub.store.folder is None:
        raise SettingsError(
            "this hub keeps its data in PostgreSQL or an object store: back them up with their own tools, the database "
            "first (docs/how-to/deploy.md)."
        )
    with tempfile.TemporaryDirectory() as folder, replacing(target, private=True) as file:
        copy = Path(folder) / DATABASE
        _copy_database(Path(str(hub.engine.url.database)), copy)
        names = _named_in(copy)
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.add(copy, DATABASE)
            for name in sorted(names):
                content = hub.store.get(name)
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o600
                tar.addfile(info, io.BytesIO(content))
    return len(names)


def restore(source: Path, folder: Path) -> int:
    """Unpack a backup into a folder that does not exist or is empty, and verify it; returns how many objects came.

    Errors: FileError for a file that is no backup or was altered; SettingsError when the folder is in use
    """
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty: restore into a new folder, then start the hub with --data.")
    made = folder.with_name(folder.name + ".restoring")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True, mode=0o700)
    try:
        found = _unpack(source, made)
        _verify(made / DATABASE, found)
        if folder.exists():
            folder.rmdir()
        made.replace(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return len(found)


def _unpack(source: Path, folder: Path) -> set[str]:
    found: set[str] = set()
    try:
        with tarfile.open(source, "r:") as tar:
            for info in tar:
                content = tar.extractfile(info)
                if content is None:
                    raise FileError(f"{source} is not a backup of a hub: it holds links or folders.")
                if info.name == DATABASE:
                    path = folder / DATABASE
                else:
                    kind, *_, name = info.name.split("/")
                    data = content.read()
                    if kind not in ("blobs", "chunks") or sha256_of(data) != name:
                        raise FileError(f"{source}: an object in it is not what its name says: the backup was altered.")
                    path = folder / "store" / info.name if kind == "chunks" else _blob_path(folder, name)
                    content = io.BytesIO(data)
                    found.add(info.name)
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.touch(mode=0o600)
                with path.open("wb") as written:
                    shutil.copyfileobj(content, written)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise FileError(f"{source} is not a backup of a hub, or was cut.") from error
    except FileNotFoundError as error:
        raise FileError(f"there is no file {source}.") from error
    return found


def _blob_path(folder: Path, sha256: str) -> Path:
    return folder / "store" / "blobs" / sha256[:2] / sha256


def _verify(database: Path, found: set[str]) -> None:
    """The log holds, every object a row names is there, and what the database keeps itself is what its rows say."""
    if not database.is_file():
        raise FileError("the backup holds no database: it was cut.")
    missing = _named_in(database) - found
    if missing:
        raise FileError(f"the backup lacks {len(missing)} objects its database names: it was cut.")
    engine = tables.engine(f"sqlite:///{database}")
    try:
        with engine.begin() as connection:
            for (project,) in connection.execute(sa.select(tables.project.c.name)).all():
                fault = audit.verify(connection, project)
                if fault:
                    raise FileError(fault)
            fusions.beside(connection)
    finally:
        engine.dispose()


def _copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source, timeout=tables.BUSY_MS / 1000)) as live,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)


def _named_in(database: Path) -> set[str]:
    engine = tables.engine(f"sqlite:///{database}")
    try:
        with engine.begin() as connection:
            return fusions.named(connection)
    finally:
        engine.dispose()
