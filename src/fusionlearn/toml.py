"""Settings people write, read strictly: a key nobody asks for, or of another type, is refused in one sentence.

A `Table` hands out its keys one by one; `done` refuses what is left over and says what was probably meant.
"""

from __future__ import annotations

import datetime
import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fusionlearn.errors import SettingsError

T = TypeVar("T")
Check: TypeAlias = Callable[[Any], T]  # the value in our type, or ValueError whose text says what is expected

LARGEST = 4 * 2**20  # bytes; settings are written by hand
REQUIRED: Any = object()


class Table:
    """One table of a TOML file; remembers which keys were asked for."""

    def __init__(self, values: Mapping[str, Any], file: str, key: str = "") -> None:
        self.values, self.file, self.key = values, file, key
        self.known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def take(self, name: str, check: Check[T], default: Any = REQUIRED) -> T:
        """The value of a key. Errors: SettingsError when it is of another type, or absent and without default."""
        self.known.append(name)
        if name not in self.values:
            if default is REQUIRED:
                raise SettingsError(f"{self.place(name)} is missing: {_expected(check)} is expected.")
            return default  # type: ignore[no-any-return]
        try:
            return check(self.values[name])
        except ValueError as error:
            came = _kind(self.values[name])
            raise SettingsError(f"{self.place(name)} is {came}; {error} is expected.") from None

    def table(self, name: str) -> Table:
        """The table of that name, empty when there is none. Errors: SettingsError when it is something else."""
        values = self.take(name, mapping, {})
        return Table(values, self.file, self.path(name))

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Every entry, each of which must be a table itself: those of [columns], for one."""
        for name in self.values:
            yield name, self.table(name)

    def done(self) -> None:
        """Refuse keys nobody asked for."""
        for name in self.values:
            if name not in self.known:
                raise SettingsError(f"{self.place(name)} is not a key; {suggestion(name, self.known)}")

    def path(self, name: str) -> str:
        """The dotted name of a key."""
        return f"{self.key}.{name}" if self.key else name

    def place(self, name: str) -> str:
        """How a message names a key: the file, then the dotted name."""
        return f"{self.file}: '{self.path(name)}'"

    def refuse(self, what: str) -> SettingsError:
        """An error about this table as a whole."""
        return SettingsError(f"{self.file}: [{self.key}] {what}" if self.key else f"{self.file}: {what}")


def read(path: Path, what: str) -> Table:
    """A whole file as a table. Errors: SettingsError when there is none, or it is not TOML.

    what  how messages call such a file: "task settings", "a site map"
    """
    try:
        if path.stat().st_size > LARGEST:
            raise SettingsError(f"{path} is larger than {LARGEST >> 20} MiB: is it {what}?")
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}): give the path of {what} in TOML.") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8.") from None
    try:
        return Table(tomllib.loads(content.replace("\r\n", "\n")), path.name)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None


def suggestion(name: str, known: list[str]) -> str:
    """What was probably meant, or what there is."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(sorted(set(known)))}."


def _expected(check: Check[Any]) -> str:
    """The words a check uses for what it wants."""
    try:
        check(_NOTHING)
    except ValueError as error:
        return str(error)
    return "a value"


_NOTHING = object()


def _kind(value: Any) -> str:
    for kind, words in (
        (bool, "true or false"),
        (str, "a text"),
        (int, "a whole number"),
        (float, "a number"),
        (list, "a list"),
        (dict, "a table"),
        (datetime.date, "a date"),
    ):
        if isinstance(value, kind):
            return words
    return "a time"


# --- what a value may be --------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError("a text in quotes")
    return value


def number(value: Any) -> float:
    """A finite number, whole or not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ValueError("a finite number")
    return float(value)


def whole(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """A table."""
    if not isinstance(value, dict):
        raise ValueError("a table")
    return value


def one_of(*choices: str) -> Check[str]:
    """One of these texts."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError("one of " + ", ".join(f'"{choice}"' for choice in choices))
        return value

    return check


def cells(value: Any) -> tuple[str, ...]:
    """A list of cells, each a text or a number; numbers count as their text."""
    if not isinstance(value, list) or not all(type(item) in (str, int, float) for item in value):
        raise ValueError("a list of texts or numbers")
    return tuple(item if isinstance(item, str) else repr(item) for item in value)


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of texts")
    return tuple(value)
