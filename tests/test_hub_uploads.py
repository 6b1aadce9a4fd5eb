"""The ways in: beside a row, into a store, or through a file; and how workers hear of work."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests import hub_world as world
from tests.hub_client import Client
from tests.hub_process import Served

from fusionlearn import file

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')

import sqlalchemy as sa

from fusionlearn.hub import fusions, members, tables, tasks
from fusionlearn.hub.app import create_app
from fusionlearn.hub.gate import SMALL_BODY
from fusionlearn.hub.refusal import Refusal

SMALL = 4  # columns


class Place:
    """A hub with one task, open to five clients."""

    def __init__(self, folder: Path, columns: int) -> None:
        self.folder, self.columns = folder, columns
        self.hub = world.hub(folder)
        members.make_project(self.hub, "default", world.public(world.OWNER))
        self.owner = members.standing(self.hub, "default", world.public(world.OWNER))
        self.task = world.task(columns=columns)
        tasks.publish(self.hub, self.owner, file.digest(self.task), world.content(self.task), quorum=3)
        for client in range(1, 6):
            members.enrol(self.hub, self.owner, world.public(client), "client", "")
        self.app = create_app(self.hub)
        self.client = Client(self.app)

    def put(self, client: int, content: bytes | None = None) -> Any:
        update = world.update(client, columns=self.columns)
        path = f"/v1/projects/default/tasks/{file.digest(self.task)}/updates/{file.digest(update)}"
        return self.client("PUT", path, world.key(client), world.content(update) if content is None else content)

    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.rglob("*") if path.is_file() and "store" in path.parts]

    def kept(self) -> list[bytes]:
        with self.hub.reading() as connection:
            return [*self.files(), *connection.execute(sa.select(tables.body.c.content)).scalars()]

    def close(self) -> None:
        self.app.state.uploads.close()
        self.client.close()
        self.hub.close()


@pytest.fixture(params=[SMALL, world.COLUMNS], ids=["small", "large"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, request.param)
    yield made
    made.close()


def test_the_two_sizes_go_the_two_ways() -> None:
    small, large = (len(world.content(world.update(1, columns=columns))) for columns in (SMALL, world.COLUMNS))
    assert small < SMALL_BODY < large


def test_what_comes_in_is_kept_as_it_was_and_nothing_else_is(place: Place) -> None:
    update = world.update(1, columns=place.columns)
    content = world.content(update)
    assert place.put(1).status == 201
    assert place.put(1).status == 200
    before = sorted(place.kept())
    assert before.count(content) == 1
    assert (content in place.files()) == (place.columns != SMALL)  # small ones lie beside their rows
    named = (file.digest(place.task), file.digest(update), hashlib.sha256(content).hexdigest())
    assert place.hub.update("default", *named) == content
    assert place.put(2, world.content(world.update(3, columns=place.columns))).status == 422  # another's
    assert place.put(2, content[:-8]).status == 422
    assert sorted(place.kept()) == before


def test_a_store_that_is_no_folder_keeps_small_updates_too(tmp_path: Path) -> None:
    place = Place(tmp_path, SMALL)
    place.hub.store.folder = None  # obstore's own way from here on, as into a bucket
    content = world.content(world.update(1, columns=SMALL))
    assert place.put(1).status == 201
    assert content in place.files()
    assert place.kept().count(content) == 1
    place.close()


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    place = Place(tmp_path, SMALL)
    with place.hub.writing() as connection:
        connection.execute(sa.text("DROP TABLE body"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    place.close()
    hub = world.hub(tmp_path)
    with hub.reading() as connection:
        assert not connection.execute(sa.select(tables.body)).all()
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == tables.LATEST
    hub.close()


def test_a_store_that_fails_is_told_whoever_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(place.kept())
    if place.columns == SMALL:
        place.hub.store.folder = None  # a folder is not asked
        monkeypatch.setattr("obstore.put", full)
    else:
        monkeypatch.setattr("os.fsync", full)
    assert place.put(1).status == 503
    assert sorted(place.kept()) == before
    monkeypatch.undo()
    assert place.put(1).status == 201


def test_workers_are_called_once_a_model_is_asked_for_and_not_before(tmp_path: Path) -> None:
    place = Place(tmp_path, SMALL)
    found = []
    place.hub.wake = lambda: found.append(fusions.pending(place.hub))
    for client in (1, 2):
        assert place.put(client).status == 201
    assert not found
    assert place.put(3).status == 201  # the quorum
    assert found == [1]  # what it asked for can be seen already
    with contextlib.suppress(ZeroDivisionError), place.hub.writing():
        place.hub.ask()
        raise ZeroDivisionError
    with place.hub.writing():
        pass
    assert found == [1]
    place.close()


def test_the_drivers_row_is_sqlalchemys_and_its_trouble_too(tmp_path: Path) -> None:
    place = Place(tmp_path, SMALL)
    asked = sa.select(tables.member.c.role, tables.member.c.key).where(
        tables.member.c.project == sa.bindparam("project"), tables.member.c.key == sa.bindparam("key")
    )
    look = tables.Lookup(place.hub.engine, asked)
    for key in (world.public(1), world.public(world.OWNER), world.public(world.STRANGER)):
        with place.hub.reading() as connection:
            row = connection.execute(asked, {"project": "default", "key": key}).one_or_none()
        assert look(project="default", key=key) == (None if row is None else tuple(row))
    with place.hub.writing() as connection:
        connection.execute(sa.text("ALTER TABLE member RENAME TO other"))
    with pytest.raises(sa.exc.OperationalError):
        look(project="default", key=world.public(1))
    with pytest.raises(Refusal) as told:
        place.app.state.uploads.allowed("default", world.public(1), file.digest(place.task))
    assert told.value.status == 503
    place.close()


def test_the_tables_are_those_of_the_last_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == tables.LATEST


def test_a_head_without_end_ends_the_connection(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        port = int(served.url.rsplit(":", 1)[1])
        for head in (b"x-long: " + b"x" * 2**20, b"x: y\r\n" * 2**17):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                said = b""
                with contextlib.suppress(ConnectionError):  # it may be cut while this is still being sent
                    connection.sendall(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n" + head)
                    while piece := connection.recv(4096):
                        said += piece
                assert said[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")
        assert httpx.get(f"{served.url}/v1/health").status_code == 200
