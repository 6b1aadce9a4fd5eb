"""A task from the settings a coordinator writes in TOML; docs/reference/task-toml.md says what may stand in them.

Nothing is guessed and nothing is passed over: an unknown key, a wrong type or a missing entry is a SettingsError of
one sentence that names the file and the key.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from fusionlearn import encoder, keys, method, run, toml
from fusionlearn.encoder import Encoder
from fusionlearn.errors import PrivacyError, SettingsError
from fusionlearn.method import Method
from fusionlearn.problem import (
    Category,
    ClassLabel,
    Column,
    Label,
    Missing,
    Number,
    NumberLabel,
    OutOfRange,
    Text,
    TextLabel,
    Vector,
)
from fusionlearn.toml import Table
from fusionlearn.types import Mode, Privacy, Task

T = TypeVar("T")

TYPES = ("number", "category", "vector", "text")
_missing = toml.one_of(*get_args(Missing))


def task_from_toml(path: Path) -> Task:
    """The unsigned task that a TOML file describes.

    Errors: SettingsError; PrivacyError for a privacy mode that is not available yet.
    """
    top = toml.read(path, "task settings")
    parts: dict[str, Any] = {
        "name": top.take("name", toml.text),
        "columns": _columns(top),
        "label": _label(_required(top, "label")),
        "missing": top.take("missing", _missing, "refuse"),
        "out_of_range": top.take("out_of_range", toml.one_of(*get_args(OutOfRange)), "refuse"),
        "encoder": _encoders(top),
        "method": _method(top),
        "privacy": _privacy(top),
        "clients": _clients(top, path.parent),
        "max_records": top.take("max_records", toml.whole, Task.max_records),
        "max_bytes": top.take("max_bytes", toml.whole, Task.max_bytes),
    }
    top.done()
    return _made(top, partial(run.new_task, **parts))


def _required(top: Table, name: str) -> Table:
    top.take(name, toml.mapping)
    return top.table(name)


def _made(table: Table, make: Callable[[], T]) -> T:
    """What `make` gives; its error is told with the place in the file."""
    try:
        return make()
    except SettingsError as error:
        raise table.refuse(str(error)) from None


# --- columns and label ----------------------------------------------------------------------------------------------


def _columns(top: Table) -> dict[str, Column]:
    columns = {name: _column(table) for name, table in _required(top, "columns").tables()}
    if not columns:
        raise SettingsError(f"{top.place('columns')} is empty: declare at least one column, as in [columns.age].")
    return columns


def _column(table: Table) -> Column:
    implied = "category" if "values" in table else "vector" if "length" in table else "number"
    kind = table.take("type", toml.one_of(*TYPES), implied)
    if kind == "category":
        settings: dict[str, Any] = {
            "values": table.take("values", toml.cells),
            "missing": table.take("missing", _missing, None),
        }
    elif kind == "vector":
        settings = {"length": table.take("length", toml.whole), **_range(table)}
    elif kind == "text":
        settings = {
            "longest": table.take("longest", toml.whole, Text.longest),
            "missing": table.take("missing", _missing, None),
        }
    else:
        settings = {**_range(table), "missing": table.take("missing", _missing, None)}
    table.done()
    make: Callable[..., Column] = {
        "category": Category, "vector": Vector, "number": Number, "text": Text,
    }[kind]  # fmt: skip
    return _made(table, partial(make, **settings))


def _range(table: Table) -> dict[str, Any]:
    return {
        "low": table.take("low", toml.number),
        "high": table.take("high", toml.number),
        "center": table.take("center", toml.number, None),
        "scale": table.take("scale", toml.number, None),
        "unit": table.take("unit", toml.text, ""),
    }


def _label(table: Table) -> Label:
    column = table.take("column", toml.text)
    if "type" in table:
        table.take("type", toml.one_of("text"))
        longest = table.take("longest", toml.whole, TextLabel.longest)
        table.done()
        return _made(table, partial(TextLabel, column, longest))
    if "classes" in table:
        groups = table.table("classes")
        classes = tuple((name, groups.take(name, toml.cells)) for name in groups)
        table.done()
        return _made(table, partial(ClassLabel, column, classes))
    table.known += ["classes", "type"]
    if "low" not in table and "high" not in table:
        raise table.refuse('needs [label.classes] for classes, low and high for a number, or type = "text".')
    limits = _range(table)
    table.done()
    return _made(table, partial(NumberLabel, column, **limits))


# --- encoder, method, privacy, clients ------------------------------------------------------------------------------


def _encoders(top: Table) -> tuple[Encoder, ...]:
    value = top.take("encoder", _plugins, ["table"])
    return tuple(_made(top, partial(encoder.make, *_named(item))) for item in value)


def _method(top: Table) -> Method:
    value = top.take("method", _plugin, "ridge")
    return _made(top, partial(method.make, *_named(value)))


def _named(item: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings: "ridge", or a table whose other keys are the settings."""
    if isinstance(item, str):
        return item, {}
    return item["name"], {key: value for key, value in item.items() if key != "name"}


def _plugin(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, dict) and isinstance(value.get("name"), str)):
        raise ValueError("a name, or a table with a name and settings,")
    return value


def _plugins(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    try:
        return [_plugin(item) for item in items]
    except ValueError:
        raise ValueError("a name, a table with a name and settings, or a list of them,") from None


def _privacy(top: Table) -> Privacy:
    if "privacy" not in top:
        raise SettingsError(
            f"{top.file}: 'privacy' is missing: every task states what protects the records, there is no default; "
            f'write [privacy] with mode = "none" if the coordinator may see each client\'s exact sums.'
        )
    if isinstance(top.values["privacy"], str):
        settings: dict[str, Any] = {"mode": top.take("privacy", toml.one_of(*get_args(Mode)))}
    else:
        table = _required(top, "privacy")
        settings = {
            "mode": table.take("mode", toml.one_of(*get_args(Mode))),
            "small_cells": table.take("small_cells", toml.one_of("refuse", "allow"), "refuse"),
        }
        table.done()
    try:
        return _made(top, partial(Privacy, **settings))
    except PrivacyError as error:
        raise PrivacyError(f"{top.file}: {error}") from None


def _clients(top: Table, folder: Path) -> Any:
    value = top.take("clients", _open_or_keys, "open")
    if value == "open":
        return "open"
    signers = [_made(top, partial(_signer, item, folder)) for item in value]
    if len(set(signers)) < len(signers):
        raise SettingsError(f"{top.place('clients')} lists a public key twice: list each client once.")
    return tuple(signers)


def _signer(item: str, folder: Path) -> str:
    if keys.is_signer(item.strip().lower()):
        return keys.parse_public(item)
    path = folder / item
    if not path.is_file():
        raise SettingsError(f"'clients' names '{item}', which is neither 64 hex digits nor a file beside the settings.")
    return keys.parse_public(str(path))


def _open_or_keys(value: Any) -> Any:
    if value == "open":
        return value
    try:
        listed = toml.texts(value)
    except ValueError:
        listed = ()
    if not listed:
        raise ValueError('"open", or a list of public keys or .pub files,')
    return listed
