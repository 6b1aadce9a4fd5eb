"""What a site remembers of its contacts with hubs, in files: enrolment, and for each task what was sent and received.

Everything is written whole or not at all, so that an agent may be killed at any moment and run again: it goes on from
what is here. The update is kept before it is first sent, and the same bytes are sent again, never others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionlearn import file, keys
from fusionlearn.errors import FileError
from fusionlearn.types import Model, Task, Update


def folder() -> Path:
    """Where all contacts are kept."""
    return keys.home() / "sites"


def _write(path: Path, content: bytes) -> None:
    keys.private_folder(path.parent)
    with file.replacing(path, private=True) as opened:
        opened.write(content)


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as JSON: remove it to start this contact anew.") from error
    if not isinstance(told, dict):
        raise FileError(f"{path} cannot be read as JSON: remove it to start this contact anew.")
    return told


def enrolment(url: str, key: str) -> dict[str, Any]:
    """What is known of a hub for this key: its own key and the projects joined; empty before the first contact."""
    return _json(_enrolled(url, key))


def keep_enrolment(url: str, key: str, told: dict[str, Any]) -> None:
    """Remember a hub and the projects joined there."""
    _write(_enrolled(url, key), json.dumps(told, indent=1, sort_keys=True).encode())


def _enrolled(url: str, key: str) -> Path:
    return folder() / f"{hashlib.sha256(f'{url} {key}'.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Contact:
    """One task of one hub, and the files of it that are here."""

    url: str
    project: str
    task: str  # its digest

    @property
    def folder(self) -> Path:
        """Where its files are."""
        name = hashlib.sha256(f"{self.url} {self.project} {self.task}".encode()).hexdigest()[:16]
        return folder() / name

    def path(self, name: str) -> Path:
        """One of its files: task, update, receipt.json, model."""
        return self.folder / name

    def read_task(self) -> Task | None:
        """The task, once fetched."""
        path = self.path("task")
        return file.read(path, Task) if path.is_file() else None

    def read_update(self) -> Update | None:
        """The update, once made."""
        path = self.path("update")
        return file.read(path, Update) if path.is_file() else None

    def read_model(self) -> Model | None:
        """The model, once fetched."""
        path = self.path("model")
        return file.read(path, Model) if path.is_file() else None

    def receipt(self) -> dict[str, Any]:
        """The hub's receipt, once given."""
        return _json(self.path("receipt.json"))

    def keep(self, name: str, content: bytes) -> Path:
        """Write one of its files, whole."""
        path = self.path(name)
        _write(path, content)
        return path

    def keep_settings(self, **settings: Any) -> None:
        """Remember how the update was made: the share held back."""
        about = {"url": self.url, "project": self.project, "task": self.task, **settings}
        self.keep("contact.json", json.dumps(about, indent=1, sort_keys=True).encode())

    def settings(self) -> dict[str, Any]:
        """What `keep_settings` kept."""
        return _json(self.path("contact.json"))


def contacts(url: str = "") -> list[Contact]:
    """Every contact there was, or those with one hub."""
    found = []
    for path in sorted(folder().glob("*/contact.json")):
        told = _json(path)
        if {"url", "project", "task"} <= set(told) and (not url or told["url"] == url):
            found.append(Contact(told["url"], told["project"], told["task"]))
    return found
