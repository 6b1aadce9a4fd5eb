"""How a site's export is written: site.toml; docs/reference/site-toml.md says what may stand in it.

Everything has a default, so that `SiteMap()` reads a file written as the task says.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from fusionlearn import toml
from fusionlearn.errors import SettingsError
from fusionlearn.toml import Table

AgeUnit: TypeAlias = Literal["years", "decimal_years", "days"]

DAYS_A_YEAR = 365.25  # of a decimal year
ISO_DATE = "%Y-%m-%d"
MOST_DECIMALS = 15


@dataclass(frozen=True)
class FileOptions:
    """How the file as a whole is written; of text files, except `missing`."""

    delimiter: str | None = None  # one character; None: a tab in .tsv files, else a comma
    encoding: str = "utf-8"  # any of Python's; with or without a byte-order mark
    quote: str = '"'  # "" when cells are never quoted
    decimal: str = "."
    thousands: str = ""  # "" when there are none
    skip_lines: int = 0  # lines above the header
    names: tuple[str, ...] = ()  # of all columns, for a file that has no header
    missing: tuple[str, ...] = ()  # codes that mean "no value" in every column


@dataclass(frozen=True)
class ColumnMap:
    """Where one of the task's columns comes from. A cell passes through the fields from top to bottom."""

    source: str | None = None  # the export's name of it (`from` in site.toml); None: the task's own
    missing: tuple[str, ...] = ()  # codes that mean "no value", besides the file's
    values: Mapping[str, str] = field(default_factory=dict)  # the site's value -> the task's
    date_format: str | None = None  # of `strptime`; for dates
    age_at: str | datetime.date | None = None  # the day ages are taken at: another column of the export, or one date
    age_in: AgeUnit = "years"  # completed years, decimal years of 365.25 days, or days
    decimal: str | None = None  # None: the file's
    thousands: str | None = None  # None: the file's
    factor: float = 1.0  # the task's value = the site's value · factor + offset
    offset: float = 0.0
    round: int | None = None  # decimals the result is rounded to; None: not rounded


@dataclass(frozen=True)
class SiteMap:
    """site.toml: options of the file and a map for each column that is written otherwise than the task says."""

    file: FileOptions = FileOptions()
    columns: Mapping[str, ColumnMap] = field(default_factory=dict)  # the task's name -> where it comes from
    place: str = "site.toml"  # how errors name it

    @staticmethod
    def load(path: Path) -> SiteMap:
        """The map that a TOML file describes. Errors: SettingsError naming the file and the key."""
        top = toml.read(path, "a site map")
        file = _file(top.table("file"))
        columns = {name: _column(table) for name, table in top.table("columns").tables()}
        top.done()
        return SiteMap(file, columns, path.name)

    def of(self, name: str) -> ColumnMap:
        """The map of one of the task's columns."""
        return self.columns.get(name, ColumnMap())


def _file(table: Table) -> FileOptions:
    options = FileOptions(
        delimiter=table.take("delimiter", _character, None),
        encoding=table.take("encoding", _encoding, "utf-8"),
        quote=table.take("quote", _character_or_none, '"'),
        decimal=table.take("decimal", _decimal, "."),
        thousands=table.take("thousands", _character_or_none, ""),
        skip_lines=table.take("skip_lines", _count, 0),
        names=table.take("names", toml.texts, ()),
        missing=table.take("missing", toml.cells, ()),
    )
    table.done()
    _check_marks(table, options.decimal, options.thousands)
    if options.quote and options.quote == (options.delimiter or ","):
        raise table.refuse("'quote' and 'delimiter' are the same character.")
    return options


def _column(table: Table) -> ColumnMap:
    column = ColumnMap(
        source=table.take("from", _filled, None),
        missing=table.take("missing", toml.cells, ()),
        values=table.take("values", _values, {}),
        date_format=table.take("date_format", _date_format, None),
        age_at=table.take("age_at", _age_at, None),
        age_in=table.take("age_in", toml.one_of(*get_args(AgeUnit)), "years"),  # type: ignore[arg-type]
        decimal=table.take("decimal", _decimal, None),
        thousands=table.take("thousands", _character_or_none, None),
        factor=table.take("factor", _factor, 1.0),
        offset=table.take("offset", toml.number, 0.0),
        round=table.take("round", _decimals, None),
    )
    table.done()
    if column.age_at is None and (column.date_format is not None or "age_in" in table):
        raise table.refuse("has dates but no 'age_at': give the date ages are taken at, or the column that holds it.")
    if column.age_at is not None and column.values:
        raise table.refuse("has both 'age_at' and 'values': dates have no value names.")
    if column.decimal and column.thousands:
        _check_marks(table, column.decimal, column.thousands)
    return column


def _check_marks(table: Table, decimal: str, thousands: str) -> None:
    if decimal == thousands:
        raise table.refuse("'decimal' and 'thousands' are the same character.")


# --- what a value may be --------------------------------------------------------------------------------------------


def _filled(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("the name of a column of the export")
    return value


def _character(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0":
        raise ValueError(r'one character, such as ";" or "\t",')
    return value


def _character_or_none(value: Any) -> str:
    return value if value == "" else _character(value)


def _decimal(value: Any) -> str:
    if value not in (".", ","):
        raise ValueError('"." or ","')
    return str(value)


def _encoding(value: Any) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=value)
    except (LookupError, TypeError, ValueError):
        raise ValueError('an encoding that Python knows, such as "utf-8", "cp1252" or "utf-16",') from None
    return str(value)


def _count(value: Any) -> int:
    if toml.whole(value) < 0:
        raise ValueError("a whole number from 0 up")
    return int(value)


def _decimals(value: Any) -> int:
    if abs(toml.whole(value)) > MOST_DECIMALS:
        raise ValueError(f"a whole number of decimals, {-MOST_DECIMALS} to {MOST_DECIMALS},")
    return int(value)


def _factor(value: Any) -> float:
    if toml.number(value) == 0:
        raise ValueError("a finite number other than 0")
    return float(value)


def _values(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a table of the site's values and the task's")
    try:
        return dict(zip(value, toml.cells(list(value.values())), strict=True))
    except ValueError:
        raise ValueError("a table whose entries are texts or numbers") from None


def _date_format(value: Any) -> str:
    if not isinstance(value, str) or not _reads_dates(value):
        raise ValueError('a format with day, month and year, such as "%d.%m.%Y",')
    return value


def _reads_dates(form: str) -> bool:
    """Whether a day written in this format is read as that day."""
    day = datetime.datetime(1987, 11, 23)
    try:
        return datetime.datetime.strptime(day.strftime(form), form).date() == day.date()
    except ValueError:
        return False


def _age_at(value: Any) -> str | datetime.date:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return _filled(value)
    except ValueError:
        raise ValueError("a date, such as 2026-01-31, or the name of a column of the export") from None


def unknown(site_map: SiteMap, names: list[str]) -> SettingsError | None:
    """An error when the map speaks of a column the task does not have."""
    for name in site_map.columns:
        if name not in names:
            told = toml.suggestion(name, names)
            return SettingsError(f"{site_map.place}: [columns.{name}] is none of the task's columns; {told}")
    return None
