"""The operator's desk: a hub's start, its files, its key, what its commands say, its pages when clients are many."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests import hub_world as world
from tests.hub_client import Client

from fusionlearn import cli, file, keys

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')

import sqlalchemy as sa

from fusionlearn.hub import members, tables, tasks, uploads


def operate(home: Path, *arguments: object) -> Any:
    """A command of an operator whose home this is."""
    unset = dict.fromkeys(("FUSIONLEARN_KEY", "FUSIONLEARN_DATABASE", "FUSIONLEARN_STORE", "FUSIONLEARN_HUB"))
    environment = {**unset, "FUSIONLEARN_HOME": str(home / "home")}
    return CliRunner().invoke(cli.main, [*map(str, arguments)], env=environment)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of a hub with a project, whose key is `tmp_path / "key"`."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)  # as an operator makes one
    made = world.hub(folder)
    members.make_project(made, "default", world.public(world.OWNER))
    made.close()
    keys.save(world.key(world.HUB), tmp_path / "key")
    return folder


@pytest.mark.parametrize(
    "command", [("serve", "--port", "0"), ("worker",), ("hub", "project", "p", "--owner", "0" * 64)]
)
def test_a_hub_is_not_run_with_another_key(data: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Models signed with it would be refused by every client: a worker on a second machine makes the mistake easily."""
    told = operate(tmp_path, *command, "--data", data)
    assert told.exit_code == 1 and f"signs as {keys.fingerprint(world.public(world.HUB))}" in told.output
    project = operate(tmp_path, "hub", "project", "p", "--owner", "0" * 64, "--data", data, "--key", tmp_path / "key")
    assert project.exit_code == 0, project.output
    assert operate(tmp_path, "hub", "verify", "--data", data).exit_code == 0  # reading needs no key of its own


def test_the_database_is_the_operator_s_alone(data: Path, tmp_path: Path) -> None:
    assert [path.name for path in data.iterdir() if path.is_file() and path.stat().st_mode & 0o077] == []
    assert operate(tmp_path, "hub", "backup", tmp_path / "b.tar", "--data", data).exit_code == 0
    assert operate(tmp_path, "hub", "restore", tmp_path / "b.tar", "--data", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again" / "hub.db").stat().st_mode & 0o077 == 0
    assert (tmp_path / "b.tar").stat().st_mode & 0o077 == 0  # it holds every client's update


def test_a_backup_with_an_altered_update_is_not_restored(tmp_path: Path) -> None:
    """A small update lies in the database, where no name says what its bytes are."""
    data = tmp_path / "data"
    made = world.hub(data)
    members.make_project(made, "default", world.public(world.OWNER))
    owner = members.standing(made, "default", world.public(world.OWNER))
    tasks.publish(made, owner, file.digest(world.task(columns=4)), world.content(world.task(columns=4)))
    members.enrol(made, owner, world.public(1), "client", "")
    update = world.update(1, columns=4)
    uploading = uploads.Uploads(made)
    member, _ = uploading.allowed("default", world.public(1), update.task)
    uploading.receive(member, update.task, file.digest(update), world.content(update))
    uploading.close()
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    assert operate(tmp_path, "hub", "backup", good, "--data", data).exit_code == 0
    with made.writing() as connection:
        connection.execute(sa.update(tables.body).values(content=world.content(update)[:-1] + b"x"))
    made.close()
    told = operate(tmp_path, "hub", "verify", "--data", data)
    assert told.exit_code == 1 and "was altered in the database: restore it" in told.output
    assert operate(tmp_path, "hub", "backup", bad, "--data", data).exit_code == 0
    told = operate(tmp_path, "hub", "restore", bad, "--data", tmp_path / "again")
    assert told.exit_code == 1 and "was altered in the database" in told.output
    assert not (tmp_path / "again").exists()
    assert operate(tmp_path, "hub", "restore", good, "--data", tmp_path / "again").exit_code == 0
    again = world.hub(tmp_path / "again")
    named = ("default", update.task, file.digest(update), hashlib.sha256(world.content(update)).hexdigest())
    assert again.update(*named) == world.content(update)
    again.close()
    told = operate(tmp_path, "hub", "verify", "--data", tmp_path / "again")
    assert told.exit_code == 0 and "2 files as they were stored" in told.output


def test_keys_lie_in_folders_of_their_owner(tmp_path: Path) -> None:
    home = tmp_path / "home" / "deep"
    made = CliRunner().invoke(cli.main, ["hub", "verify"], env={"FUSIONLEARN_HOME": str(home), "FUSIONLEARN_KEY": None})
    assert made.exit_code == 0, made.output
    for folder in (home, home / "hub", home.parent):
        assert folder.stat().st_mode & 0o077 == 0, folder


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--database", "mysql://a/b", "sqlite or postgresql"),
        ("--database", "hub.db", "is named by a URL"),
        ("--database", "sqlite:////proc/x/hub.db", "cannot be made"),
        ("--store", "ftp://x", "name it file:///folder"),
        ("--store", "file:///proc/x", "cannot be made"),
        ("--data", "/proc/x/y", "cannot be made"),
        ("--tls-cert", "x.pem", "both --tls-cert and --tls-key"),
        ("--key", "none.pem", "there is no key"),
    ],
)
def test_what_a_hub_cannot_work_with_is_one_sentence(tmp_path: Path, option: str, value: str, sentence: str) -> None:
    rest = [] if option == "--data" else ["--data", tmp_path / "data"]
    told = operate(tmp_path, "serve", "--port", "0", option, value, *rest)
    assert told.exit_code == 1 and sentence in told.output and told.output.count("Error: ") == 1


def test_of_many_clients_one_can_be_left_out_and_late_ones_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """More than a hundred: no list, but what the owner has to decide is there, and so is a way to leave one out."""
    from urllib.parse import urlencode

    from fusionlearn.hub import tasks, uploads, views, worker
    from fusionlearn.hub.app import create_app
    from fusionlearn.hub.pages import COOKIE

    monkeypatch.setattr(views, "MOST_ROWS", 3)
    hub = world.hub(tmp_path)
    members.make_project(hub, "p", world.public(world.OWNER))
    owner = members.standing(hub, "p", world.public(world.OWNER))
    task = file.digest(world.task(columns=2))
    tasks.publish(hub, owner, task, world.content(world.task(columns=2)), quorum=4)
    uploading = uploads.Uploads(hub)
    for number in (1, 2, 3, 4, 5):
        members.enrol(hub, owner, world.public(number), "client", f"site {number}")
        update = world.update(number, columns=2)
        member, _ = uploading.allowed("p", world.public(number), task)
        uploading.receive(member, task, file.digest(update), world.content(update))
    while worker.step(hub, "w"):
        pass
    app = create_app(hub)
    client = Client(app)
    cookie = {"cookie": f"{COOKIE}={members.log_in(hub, members.open_session(hub, owner))}"}
    try:
        page = client("GET", f"/tasks/{task}", headers=cookie).content.decode()
        updates = page[page.index('id="updates"') :]
        assert "counted, not listed" in updates and "site 5" in updates and "site 4" not in updates  # 5 came late
        assert "Let in" in updates and 'name="without"' in updates
        token = page.split('name="token" value="')[1].split('"')[0]
        fields = {"token": token, "without": world.public(2)[:12], "confirm": "yes"}
        form = {**cookie, "content-type": "application/x-www-form-urlencoded"}
        assert client("POST", f"/tasks/{task}/fuse", None, urlencode(fields).encode(), headers=form).status == 303
        while worker.step(hub, "w"):
            pass
        assert "Model 2" in client("GET", f"/tasks/{task}", headers=cookie).content.decode()
        # The only owner cannot be revoked: the page says why, and nothing that a stranger's link would have it say.
        form_body = urlencode({"token": token, "key": world.public(world.OWNER)}).encode()
        there = client("POST", "/keys/revoke", None, form_body, headers=form).headers["location"]
        assert b"only owner" in client("GET", there, headers=cookie).content
        assert b"telephone" not in client("GET", there.replace("owner", "telephone"), headers=cookie).content
        listed = {row["name"]: row["state"] for row in uploads.listed(hub, owner, task)}
        assert listed["site 2"] == "excluded" and listed["site 1"] == "counted"
        keys_page = client("GET", "/keys", headers=cookie).content.decode()
        assert keys_page.count("<tr>") == 1 + 3 and "and 3 more" in keys_page
    finally:
        client.close()
        app.state.uploads.close()
        uploading.close()
        hub.close()
