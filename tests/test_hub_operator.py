"""The operator's desk: a hub's start, its files, its key, and what the commands say when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests import hub_world as world

from fusionlearn import cli, keys

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')

from fusionlearn.hub import members


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
