"""One column of an export → the numbers, categories or ages the task speaks of.

Cells come as text (of a CSV file) or as arrays (of npz and Parquet). A reader turns them into one array and the flaws
it met: a kind of fault and where. At a flaw the array holds a value the task allows, so that no second fault is
told about it; it is never used, for a flaw refuses the table.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import SettingsError
from fusionlearn.problem import (
    Category,
    ClassLabel,
    Number,
    NumberLabel,
    Schema,
    Text,
    TextLabel,
    Vector,
    canonical,
    is_missing,
)
from fusionlearn.site.map import DAYS_A_YEAR, ISO_DATE, ColumnMap, SiteMap

Cells: TypeAlias = Sequence[str] | NDArray[Any]
Declared: TypeAlias = Number | Vector | Category | Text | ClassLabel | NumberLabel | TextLabel

TEXT = "text where a number is expected"
TEXT_HINT = "correct it, or declare a missing code or the decimal mark in site.toml"
DATES = "a date where a number is expected"
DATES_HINT = "give 'age_at' for it in site.toml"
NO_DATE = "a cell that is no date of the declared format"
NO_DATE_HINT = "correct it, or the date_format in site.toml"


@dataclass(frozen=True)
class Flaw:
    """A kind of fault of one column, and the rows it is in."""

    kind: str
    hint: str
    where: NDArray[np.bool_]  # (rows,)


Read: TypeAlias = tuple[NDArray[Any], list[Flaw]]


@dataclass(frozen=True)
class Reader:
    """How one of the task's columns is read."""

    name: str  # the task's
    sources: tuple[str, ...]  # the export's columns it is made of
    takes_numbers: bool  # whether cells may be parsed as plain numbers before they come here
    read: Callable[[Sequence[Cells]], Read]  # the cells of each source → the task's column


def readers(schema: Schema, site_map: SiteMap, names: Sequence[str], *, with_label: bool) -> list[Reader]:
    """A reader for each column the task wants. Errors: SettingsError for a map that does not suit the column.

    names  the columns of the export, which tell whether a vector is one column or one for each of its numbers
    """
    wanted: dict[str, Declared] = dict(schema.columns)
    if with_label:
        wanted[schema.label.column] = schema.label
    return [_reader(name, column, site_map, set(names)) for name, column in wanted.items()]


def _reader(name: str, column: Declared, site_map: SiteMap, names: set[str]) -> Reader:
    how = site_map.of(name)
    source = how.source or name
    place = f"{site_map.place}: [columns.{name}]"
    if isinstance(column, Category | ClassLabel):
        if how.age_at is not None or how.factor != 1 or how.offset != 0 or how.round is not None:
            raise SettingsError(f"{place} computes a number, but the task says this column holds named values.")
        categories = _Categories(column, how, _Notation.of(how, site_map))
        return Reader(name, (source,), categories.takes_numbers, categories)
    if isinstance(column, Text | TextLabel):
        if how.age_at is not None or how.factor != 1 or how.offset != 0 or how.round is not None or how.values:
            raise SettingsError(f"{place} computes or names a value, but the task says this column holds text.")
        return Reader(name, (source,), False, _as_texts)
    if how.age_at is not None:
        if isinstance(column, Vector):
            raise SettingsError(f"{place} has 'age_at', but the task says this column holds {column.length} numbers.")
        sources = (source, how.age_at) if isinstance(how.age_at, str) else (source,)
        return Reader(name, sources, False, _Ages(column, how, _Notation.of(how, site_map)))
    numbers = _Numbers(column, how, _Notation.of(how, site_map))
    plain = not how.values and not numbers.notation.thousands and numbers.notation.decimal == site_map.file.decimal
    if isinstance(column, Vector) and source not in names:
        return Reader(name, tuple(f"{source}_{i}" for i in range(column.length)), plain, numbers)
    return Reader(name, (source,), plain, numbers)


# --- how numbers are written ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Notation:
    """Decimal mark, thousands mark and missing codes of one column."""

    decimal: str
    thousands: str
    codes: frozenset[str]  # canonical
    code_numbers: tuple[float, ...]  # those codes that are numbers

    @staticmethod
    def of(how: ColumnMap, site_map: SiteMap) -> _Notation:
        codes = frozenset(canonical(code) for code in (*site_map.file.missing, *how.missing))
        numbers = tuple(number for code in sorted(codes) if (number := as_float(code)) is not None)
        decimal = how.decimal if how.decimal is not None else site_map.file.decimal
        thousands = how.thousands if how.thousands is not None else site_map.file.thousands
        return _Notation(decimal, "" if thousands == decimal else thousands, codes, numbers)

    def number(self, text: str) -> float | None:
        """The number a stripped cell holds in this notation, or None."""
        if self.thousands and self.thousands in text:
            head, mark, tail = text.partition(self.decimal)
            groups = head.split(self.thousands)
            if not re.fullmatch(r"[+-]?\d{1,3}", groups[0]) or any(len(g) != 3 or not g.isdigit() for g in groups[1:]):
                return None
            text = "".join(groups) + mark + tail
        if self.decimal != ".":
            if "." in text:
                return None
            text = text.replace(self.decimal, ".")
        return as_float(text)

    def missing(self, text: str) -> bool:
        """Whether a stripped cell says that there is no value."""
        return is_missing(text) or canonical(text) in self.codes

    def means_missing(self, number: float) -> bool:
        """Whether a number is one of the codes."""
        return number != number or number in self.code_numbers


def as_float(text: str) -> float | None:
    """The number a text holds, or None; stricter than `float`: no underscores."""
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _texts(cells: Cells) -> Sequence[str]:
    """Cells as text, whatever they came as."""
    if not isinstance(cells, np.ndarray):
        return cells
    if cells.dtype.kind == "S":
        return [cell.decode("utf-8", "replace") for cell in cells.tolist()]
    return cast(Sequence[str], cells.tolist())


def _is_text(cells: Cells) -> bool:
    return not isinstance(cells, np.ndarray) or cells.dtype.kind in "US"


# --- numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbers:
    """Number, vector and number-label columns: float64, NaN where missing."""

    column: Number | Vector | NumberLabel
    how: ColumnMap
    notation: _Notation

    def __call__(self, sources: Sequence[Cells]) -> Read:
        parts = [self._parsed(cells) for cells in sources]
        values = parts[0][0] if len(parts) == 1 else np.column_stack([values for values, _ in parts])
        flaws: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for _, found in parts:
            for flaw in found:
                key = (flaw.kind, flaw.hint)
                flaws[key] = flaws[key] | flaw.where if key in flaws else flaw.where
        values = scaled(values, self.how)
        for where in flaws.values():
            values[where] = self.column.low
        if isinstance(self.column, Vector) and values.ndim != 2:
            values = values.reshape(len(values), -1)
        return values, [Flaw(kind, hint, where) for (kind, hint), where in flaws.items()]

    def _parsed(self, cells: Cells) -> Read:
        """The site's own numbers, NaN where missing."""
        if not _is_text(cells):
            assert isinstance(cells, np.ndarray)
            if cells.dtype.kind == "M":
                return np.zeros(len(cells)), [Flaw(DATES, DATES_HINT, np.ones(len(cells), bool))]
            with np.errstate(over="ignore"):  # infinity is a fault of its own
                values = cells.astype(np.float64)
            if self.how.values:
                values = self._mapped(values)
        else:
            texts = _texts(cells)
            fast = None if self.how.values or self.notation.thousands else _plain_numbers(texts, self.notation.decimal)
            if fast is None:
                return self._slowly(texts)
            values = fast
        for code in self.notation.code_numbers:
            values[values == code] = np.nan
        return values, []

    def _mapped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        result = values.copy()
        for cell, meant in self.how.values.items():
            site, task = as_float(cell), as_float(meant)
            if site is not None and task is not None:
                result[values == site] = task
        return result

    def _slowly(self, cells: Sequence[str]) -> Read:
        known: dict[str, float | None] = {}
        values = np.empty(len(cells))
        text = np.zeros(len(cells), bool)
        for i, cell in enumerate(cells):
            if cell not in known:
                known[cell] = self._one(cell.strip())
            number = known[cell]
            if number is None:
                text[i], values[i] = True, self.column.low
            else:
                values[i] = number
        return values, [Flaw(TEXT, TEXT_HINT, text)] if text.any() else []

    def _one(self, text: str) -> float | None:
        """The number of one cell: NaN when missing, None when it is text."""
        if self.notation.missing(text):
            return np.nan
        meant = {canonical(cell): value for cell, value in self.how.values.items()}.get(canonical(text))
        if meant is not None:
            return np.nan if is_missing(meant) else as_float(meant)
        number = self.notation.number(text)
        return np.nan if number is not None and self.notation.means_missing(number) else number


def _plain_numbers(cells: Sequence[str], decimal: str) -> NDArray[np.float64] | None:
    """All cells as numbers, empty ones as NaN; None when any needs a closer look."""
    if decimal != ".":
        joined = "\n".join(cells)
        if "." in joined:
            return None
        cells = joined.replace(decimal, ".").split("\n") if cells else cells
    if "_" in "".join(cells):  # Python would read 1_0 as ten
        return None
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    except ValueError:
        return None


def scaled(values: NDArray[np.float64], how: ColumnMap) -> NDArray[np.float64]:
    """Factor, offset, rounding.

    Rounded to d decimals a value is a whole number divided by 10^d, both exact, so it is the very double that the
    decimal number is read as: a conversion there and back gives the same bits as the original.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is a fault of its own
        if how.factor != 1:
            values = values * how.factor
        if how.offset != 0:
            values = values + how.offset
        if how.round is not None:
            ten = 10.0 ** abs(how.round)
            values = np.rint(values * ten) / ten if how.round > 0 else np.rint(values / ten) * ten
    return values


# --- text -----------------------------------------------------------------------------------------------------------


def _as_texts(sources: Sequence[Cells]) -> Read:
    """Free text as it stands; the schema tells what is missing or too long."""
    cells = sources[0]
    result = np.empty(len(cells), dtype=object)
    result[:] = list(_texts(cells))
    return result, []


# --- categories -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Categories:
    """Category columns and class labels: the task's own names of the values, as numbers where all are numbers."""

    column: Category | ClassLabel
    how: ColumnMap
    notation: _Notation

    @property
    def takes_numbers(self) -> bool:
        """Whether no name of a value is written with a decimal comma: "1,5" may be a name and no number."""
        names = {*_values(self.column), *self.how.values, *self.notation.codes}
        return self.notation.decimal == "." or not any(self.notation.decimal in name for name in names)

    def __call__(self, sources: Sequence[Cells]) -> Read:
        cells = sources[0]
        if not _is_text(cells):
            assert isinstance(cells, np.ndarray)
            if not self.how.values and not self.notation.codes and cells.dtype.kind in "fiub":
                return cells, []
            distinct, places = np.unique(cells, return_inverse=True)
            meant = [self._meant(canonical(cell)) for cell in distinct.tolist()]
            return _compact(meant)[places.reshape(-1)], []
        texts = _texts(cells)
        order = {cell: place for place, cell in enumerate(dict.fromkeys(texts))}
        places = np.fromiter(map(order.__getitem__, texts), np.int64, len(texts))
        return _compact([self._meant(cell.strip()) for cell in order])[places], []

    def _meant(self, text: str) -> str:
        """The task's name of a value, "" when missing, the site's own when it is unknown."""
        if self.notation.missing(text):
            return ""
        values = {canonical(cell): canonical(value) for cell, value in self.how.values.items()}
        known = _values(self.column)
        number = self.notation.number(text)
        for name in (canonical(text), *([canonical(number)] if number is not None else [])):
            if name in self.notation.codes:
                return ""
            if name in values or name in known:
                return values.get(name, name)
        return text


def _values(column: Category | ClassLabel) -> frozenset[str]:
    if isinstance(column, Category):
        return frozenset(column.values)
    return frozenset(value for _, values in column.classes for value in values)


def _compact(names: list[str]) -> NDArray[Any]:
    """Distinct values as numbers where all are (they sort faster), else as text."""
    try:
        return np.array([float(name) if name else np.nan for name in names], dtype=np.float64)
    except ValueError:
        return np.array(names, dtype=str)


# --- ages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ages:
    """Dates → ages at another date."""

    column: Number | NumberLabel
    how: ColumnMap
    notation: _Notation

    def __call__(self, sources: Sequence[Cells]) -> Read:
        births, wrong = self._dates(sources[0])
        if len(sources) == 2:
            days, also_wrong = self._dates(sources[1])
            wrong = wrong | also_wrong
        else:
            days = np.full(len(births), np.datetime64(cast(datetime.date, self.how.age_at), "D"))
        values = scaled(age(births, days, self.how.age_in), self.how)
        values[wrong] = self.column.low
        return values, [Flaw(NO_DATE, NO_DATE_HINT, wrong)] if wrong.any() else []

    def _dates(self, cells: Cells) -> tuple[NDArray[np.datetime64], NDArray[np.bool_]]:
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            return cells.astype("datetime64[D]"), np.zeros(len(cells), bool)
        texts = _texts(cells) if _is_text(cells) else [canonical(cell) for cell in np.asarray(cells).tolist()]
        order = {cell: place for place, cell in enumerate(dict.fromkeys(texts))}
        days = [self._day(cell.strip()) for cell in order]
        places = np.fromiter(map(order.__getitem__, texts), np.int64, len(texts))
        dates = np.array([day or "NaT" for day in days], dtype="datetime64[D]")
        wrong = np.array([day is None for day in days], dtype=bool)
        return dates[places], wrong[places]

    def _day(self, text: str) -> str:
        """A date in ISO's form, "" when missing, None when it is none (typed so that callers must look)."""
        if self.notation.missing(text):
            return ""
        try:
            return datetime.datetime.strptime(text, self.how.date_format or ISO_DATE).date().isoformat()
        except ValueError:
            return cast(str, None)


def age(births: NDArray[np.datetime64], days: NDArray[np.datetime64], unit: str) -> NDArray[np.float64]:
    """Time from one day to another: completed years, decimal years of 365.25 days, or days; NaN where unknown."""
    unknown = np.isnat(births) | np.isnat(days)
    day_zero = np.datetime64(0, "D")
    births, days = np.where(unknown, day_zero, births), np.where(unknown, day_zero, days)
    if unit == "years":
        had_birthday = _day_of_year(days) >= _day_of_year(births)
        whole = days.astype("datetime64[Y]").astype(np.int64) - births.astype("datetime64[Y]").astype(np.int64)
        values = (whole - ~had_birthday).astype(np.float64)
    else:
        values = (days - births).astype(np.int64) / (DAYS_A_YEAR if unit == "decimal_years" else 1.0)
    values[unknown] = np.nan
    return values


def _day_of_year(dates: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Month and day as one number that grows through the year: 32 · month + day."""
    months = dates.astype("datetime64[M]")
    month = (months - dates.astype("datetime64[Y]").astype("datetime64[M]")).astype(np.int64)
    return np.asarray(month * 32 + (dates - months.astype("datetime64[D]")).astype(np.int64))
