"""Plug-ins by name: a table of ours, entry points of others, and settings that travel as JSON.

A file names an encoder or a method and its settings; the receiver looks the name up in its own tables. No code
crosses the wire. A plug-in is a frozen dataclass with the class attributes `name` and `revision`; its fields are
its settings, each a bool, int, float, str or a tuple of them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from fusionlearn.errors import SettingsError


class Plugin:
    """What encoders and methods have in common: a name, a revision, and settings as fields."""

    name: ClassVar[str]
    revision: ClassVar[int] = 1  # raised when the same settings start to mean something else


P = TypeVar("P", bound=Plugin)


def available(table: Mapping[str, str], group: str) -> dict[str, str]:
    """Every name that can be made: ours, and those of installed packages that declare the entry-point group."""
    from importlib.metadata import entry_points  # 25 ms, which `import fusionlearn` does not spend

    others = {entry.name: entry.value for entry in entry_points(group=group)}
    return {**others, **table}  # ours win: an installed package must not redefine what a task means


def find(kind: type[P], name: str, table: Mapping[str, str], group: str) -> type[P]:
    """The class of that name. Errors: SettingsError when nobody offers it."""
    place = table.get(name) or available(table, group).get(name)
    if place is None:
        known = ", ".join(sorted(available(table, group)))
        what = kind.__name__.lower()
        raise SettingsError(f"no {what} is called '{name}'; there are {known}. Is a package missing?")
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise SettingsError(f"'{name}' leads to {place}, which is not a {kind.__name__}.")
    return found


LATER: Mapping[str, bool] = {"later": True}  # metadata of a setting added after a release: written only if it is set


def to_json(plugin: Plugin) -> dict[str, Any]:
    """Name, revision and settings: what a file says of a plug-in.

    A setting of `LATER` that has its default is not written: files from before it came keep their bytes and digests.
    """
    fields = dataclasses.fields(typing.cast(Any, plugin))
    told = {item.name: getattr(plugin, item.name) for item in fields}
    kept = {item.name for item in fields if not item.metadata.get("later") or told[item.name] != item.default}
    return {
        "name": plugin.name,
        "revision": plugin.revision,
        "settings": {name: told[name] for name in told if name in kept},
    }


def from_json(kind: type[P], value: Any, table: Mapping[str, str], group: str) -> P:
    """The plug-in that a file speaks of. Errors: SettingsError for an unknown name, revision, field or type."""
    what = kind.__name__.lower()
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise SettingsError(f"a{'n' if what[0] in 'aeiou' else ''} {what} is written as name, revision and settings.")
    found = find(kind, value["name"], table, group)
    revision = value.get("revision", found.revision)
    if revision != found.revision:
        raise SettingsError(
            f"{what} '{found.name}' is of revision {revision} in the file, {found.revision} here; update fusionlearn."
        )
    settings = value.get("settings", {})
    if not isinstance(settings, Mapping):
        raise SettingsError(f"the settings of {what} '{found.name}' must be a table of names and values.")
    return make(found, settings)


def make(found: type[P], settings: Mapping[str, Any]) -> P:
    """An instance with these settings, each checked against the type its field declares."""
    fields = {item.name for item in dataclasses.fields(typing.cast(Any, found))}
    unknown = sorted(set(settings) - fields)
    if unknown:
        known = ", ".join(sorted(fields)) or "none"
        raise SettingsError(f"'{found.name}' has no setting '{unknown[0]}'; its settings are {known}.")
    hints = _hints(typing.cast(Any, found))
    checked = {name: _value(found.name, name, value, hints[name]) for name, value in settings.items()}
    try:
        return found(**checked)
    except TypeError as error:
        raise SettingsError(
            f"'{found.name}' cannot be made with these settings: one without default is missing."
        ) from error


def parse(kind: type[P], text: str, table: Mapping[str, str], group: str) -> P:
    """The plug-in that people write on one line: NAME or NAME:key=value,key=value. Errors: SettingsError."""
    name, settings = split(text)
    found = find(kind, name, table, group)
    return make(found, read(found, settings))


def split(text: str) -> tuple[str, dict[str, str]]:
    """NAME:key=value,key=value → the name and the values as they are written. Errors: SettingsError."""
    name, _, rest = text.partition(":")
    settings = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise SettingsError(f"'{text}': settings are written key=value, as in {name}:{key}=…")
        settings[key] = value
    return name.strip(), settings


def read(found: type[Plugin], settings: Mapping[str, str]) -> dict[str, Any]:
    """Written values as their fields' types say: true, 3, 0.1, a word; tuples as in 28x28x1 or one+two."""
    hints = _hints(typing.cast(Any, found))
    return {key: _read(value, hints.get(key, str)) for key, value in settings.items()}


def _read(text: str, hint: Any) -> Any:
    """What a word on the command line means where a setting of this type is expected."""
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return tuple(_read(part, kind) for part in text.split("+" if kind is str else "x"))
    if hint is str:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


@functools.cache
def _hints(found: type[Plugin]) -> dict[str, Any]:
    """The types of a plug-in's fields. Python compiles their text: once, rather than for each file that is read."""
    return typing.get_type_hints(found)


def _value(owner: str, name: str, value: Any, hint: Any) -> Any:
    """`value` as the type of the field, where JSON and TOML write it a little differently."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            if _fits(value, choice):
                return _value(owner, name, value, choice)
    elif _fits(value, hint):
        if origin is tuple:
            return tuple(_value(owner, name, item, arguments[0]) for item in value)
        return float(value) if hint is float else value
    wanted = getattr(hint, "__name__", None) if origin is None else str(hint).replace("typing.", "")
    raise SettingsError(f"setting '{name}' of '{owner}' is {value!r}; {wanted or hint} is expected.")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None) or hint is None:
        return value is None
    if origin is typing.Literal:
        return value in arguments and type(value) in {type(choice) for choice in arguments}
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def describe(place: str) -> dict[str, Any]:
    """First sentence of a plug-in's module and its settings with their defaults, for people."""
    module, _, attribute = place.partition(":")
    loaded = importlib.import_module(module)
    found = getattr(loaded, attribute)
    text = (loaded.__doc__ or found.__doc__ or "").strip()
    summary = text.split("\n", 1)[0]
    settings = [
        f"{item.name} = {item.default!r}" if item.default is not dataclasses.MISSING else item.name
        for item in dataclasses.fields(found)
    ]
    return {"summary": summary, "settings": settings}
