"""What is asked and of which columns: everything public a client must know to size its arrays.

A `Schema` says what a table holds: declared columns with units and ranges, one label, and the rules for missing
and out-of-range values. `Schema.read` turns a raw table into clean columns or lists every fault.
A `Problem` is what a method sees of it after encoding: the kind of question, the labels, the bound of every feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Array, Data
from fusionlearn.errors import DataError, Fault, SettingsError

Kind: TypeAlias = Literal["binary", "multiclass", "regression", "text"]
Missing: TypeAlias = Literal["refuse", "drop", "center", "indicator"]
OutOfRange: TypeAlias = Literal["refuse", "clip"]

LABEL = "y"  # the key of the label among encoded data; `Schema` refuses a column of that name
ROWS_SHOWN = 5  # rows named in a fault
NOTHING, BEGIN, END, UNKNOWN, FIRST_PIECE = range(5)  # numbers of an encoded text's pieces; see the encoder 'subwords'


@dataclass(frozen=True)
class Problem:
    """What a method needs to know; derived from a task's schema and encoder, never sent twice."""

    kind: Kind
    labels: tuple[str, ...]  # names of the classes; () for regression and for texts
    feature_names: tuple[str, ...]  # of the encoded columns, in order
    feature_bounds: tuple[float, ...]  # |x_j| <= bound for each encoded column
    max_records: int  # the most records all clients together may hold
    target_bound: float = 1.0  # |y| <= bound, in scaled units; 1 for classes

    @property
    def num_features(self) -> int:
        return len(self.feature_names)

    @property
    def num_classes(self) -> int:
        """Columns of the target: one for each class, 1 for regression, one for each piece of a text."""
        if self.kind == "text":
            return int(self.max_bound) + 1  # features are the numbers of pieces
        return len(self.labels) or 1

    @property
    def max_bound(self) -> float:
        """The largest bound of any feature, at least 1 (the bias column)."""
        return max((1.0, *self.feature_bounds))


@dataclass(frozen=True)
class Number:
    """A numeric column, sent as (value - center) / scale."""

    low: float  # the least value a record may have, in `unit`
    high: float  # the greatest
    center: float | None = None  # public; default the middle of the range
    scale: float | None = None  # public, > 0; default half the range
    unit: str = ""  # for people and for the unit check in the report
    missing: Missing | None = None  # overrides the schema's rule

    def __post_init__(self) -> None:
        _check_range(self)

    @property
    def bound(self) -> float:
        """The largest |value| after centring and scaling."""
        return _scaled_bound(self)


@dataclass(frozen=True)
class Vector:
    """A block of `length` numbers that share a range: pixels, or features computed elsewhere."""

    length: int
    low: float
    high: float
    center: float | None = None
    scale: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SettingsError(f"a vector column has length {self.length}, at least 1 is needed.")
        _check_range(self)

    @property
    def bound(self) -> float:
        """The largest |value| after centring and scaling."""
        return _scaled_bound(self)


@dataclass(frozen=True)
class Category:
    """A column with a declared list of values; the first is the reference the others are compared with."""

    values: tuple[str, ...]
    missing: Missing | None = None  # overrides the schema's rule

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(canonical(value) for value in self.values))
        if len(set(self.values)) != len(self.values) or len(self.values) < 2:
            raise SettingsError("a category needs at least two values, each declared once ('1' and '1.0' are one).")


@dataclass(frozen=True)
class Text:
    """A column of free text: one sentence or many, which an encoder such as 'ngrams' turns into features."""

    longest: int = 100_000  # the most characters a record may have; a longer one is refused or cut, as the schema says
    missing: Missing | None = None  # overrides the schema's rule; under "center" what is missing counts as empty

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= 2**24:
            raise SettingsError(f"a text column has longest = {self.longest}; it may be 1 to 16777216.")


Column: TypeAlias = Number | Vector | Category | Text


@dataclass(frozen=True)
class ClassLabel:
    """The label of a classification: which values of which column count as which class.

    `groups` may be given as a mapping, {"healthy": ["0"], "ill": ["1", "2"]}; it is kept as a tuple of pairs.
    """

    column: str
    groups: tuple[tuple[str, tuple[str, ...]], ...] | Mapping[str, Sequence[object]]

    def __post_init__(self) -> None:
        pairs = self.groups.items() if isinstance(self.groups, Mapping) else self.groups
        groups = tuple((name, tuple(canonical(value) for value in values)) for name, values in pairs)
        object.__setattr__(self, "groups", groups)
        values = [value for _, values in groups for value in values]
        if len(groups) < 2 or len(set(values)) != len(values) or len({name for name, _ in groups}) != len(groups):
            raise SettingsError(
                f"label '{self.column}' needs at least two classes, with different names and no value in two classes."
            )
        if not all(values for _, values in groups):
            raise SettingsError(f"label '{self.column}': every class needs at least one value.")

    @property
    def classes(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """`groups` as it is kept."""
        return cast(tuple[tuple[str, tuple[str, ...]], ...], self.groups)


@dataclass(frozen=True)
class NumberLabel:
    """The label of a regression, learned as (value - center) / scale and predicted in `unit`."""

    column: str
    low: float
    high: float
    center: float | None = None
    scale: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        _check_range(self)

    @property
    def bound(self) -> float:
        """The largest |value| after centring and scaling."""
        return _scaled_bound(self)


@dataclass(frozen=True)
class TextLabel:
    """The label of a task that answers texts with texts, such as a translation."""

    column: str
    longest: int = 100_000  # the most characters an answer may have; a longer one is refused or cut, as the schema says

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= 2**24:
            raise SettingsError(f"a label of text has longest = {self.longest}; it may be 1 to 16777216.")


Label: TypeAlias = ClassLabel | NumberLabel | TextLabel


def _check_range(column: Number | Vector | NumberLabel) -> None:
    """Fill in the default centre and scale and refuse a range that is none."""
    for name in ("low", "high", "center", "scale"):
        value = getattr(column, name)
        if value is not None:
            object.__setattr__(column, name, float(value))  # one way to write a number, one digest
    if not (math.isfinite(column.low) and math.isfinite(column.high) and column.low < column.high):
        raise SettingsError(
            f"a range needs two finite numbers, low < high; it says low={column.low} high={column.high}."
        )
    if column.center is None:
        object.__setattr__(column, "center", (column.low + column.high) / 2)
    if column.scale is None:
        object.__setattr__(column, "scale", (column.high - column.low) / 2)
    if not (math.isfinite(column.center or 0.0) and math.isfinite(column.scale or 0.0) and (column.scale or 0.0) > 0):
        raise SettingsError(f"center must be finite and scale finite and above 0; the scale is {column.scale}.")


def _scaled_bound(column: Number | Vector | NumberLabel) -> float:
    center, scale = column.center or 0.0, column.scale or 1.0
    return max(abs(column.low - center), abs(column.high - center)) / scale


@dataclass(frozen=True)
class Schema:
    """The declared columns, the label, and the rules for what is missing or out of range."""

    columns: Mapping[str, Column]  # in the order of the features
    label: Label
    missing: Missing = "refuse"  # "drop" the row | "center" | "indicator" (centre, plus a column that says so)
    out_of_range: OutOfRange = "refuse"  # or "clip" to the declared range

    def __post_init__(self) -> None:
        if not self.columns:
            raise SettingsError("a schema needs at least one column besides the label.")
        if self.label.column in self.columns:
            raise SettingsError(f"column '{self.label.column}' is both a feature and the label.")
        if LABEL in self.columns:
            raise SettingsError(f"no feature may be named '{LABEL}': that name is the encoded label's; rename it.")
        for rule in (self.missing, *(getattr(column, "missing", None) for column in self.columns.values())):
            if rule is not None and rule not in get_args(Missing):
                raise SettingsError(
                    f"missing = '{rule}' is not known; it may be one of {', '.join(get_args(Missing))}."
                )
        if self.out_of_range not in get_args(OutOfRange):
            raise SettingsError(f"out_of_range = '{self.out_of_range}' is not known; it may be refuse or clip.")

    @property
    def kind(self) -> Kind:
        if not isinstance(self.label, ClassLabel):
            return "regression" if isinstance(self.label, NumberLabel) else "text"
        return "binary" if len(self.label.classes) == 2 else "multiclass"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, () for regression and for texts."""
        return tuple(name for name, _ in self.label.classes) if isinstance(self.label, ClassLabel) else ()

    def missing_rule(self, name: str) -> Missing:
        """The rule for one column: its own, else the schema's."""
        own: Missing | None = getattr(self.columns[name], "missing", None)
        return own or self.missing

    def read(self, raw: Data, *, place: str = "data", with_label: bool = True, first_row: int = 1) -> Table:
        """Turn raw columns into clean ones, or list every fault.

        raw        column name -> array or list of n cells: numbers, or text as a file holds it
        place      how errors name the table
        with_label False when predicting: a label column, if there is one, is ignored
        first_row  number of the first row, for errors when a table is read in pieces

        Returns a Table: number columns float64 (NaN where missing and allowed), vector columns (n, length),
        category columns int64 codes (-1 where missing and allowed), text columns str objects, the label under "y":
        int64 class, scaled float64, or str objects.
        Errors: DataError with every fault of every column.
        """
        return _Reader(self, place, with_label, first_row).read(raw)


@dataclass(frozen=True)
class Table:
    """Clean columns, and which rows of the raw table they are."""

    data: dict[str, NDArray[Any]]
    kept: NDArray[np.bool_]  # (raw rows,) False where the rule "drop" left a row out
    clipped: int = 0  # values moved to the end of their range


def canonical(cell: object) -> str:
    """The text by which category and label values are compared: '1', '1.0', ' 1' and 1 are one value."""
    if type(cell) is str:
        text = cell.strip()
    elif isinstance(cell, bool | np.bool_):
        return "1" if cell else "0"
    elif isinstance(cell, bytes):
        text = cell.decode("utf-8", "replace").strip()
    else:
        text = str(cell).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return "" if math.isnan(number) else text
    return str(int(number)) if number == int(number) and abs(number) < 2**53 else repr(number)


class _Reader:
    """One reading of one table: collects faults and rows to drop while it goes through the columns."""

    def __init__(self, schema: Schema, place: str, with_label: bool, first_row: int) -> None:
        self.schema, self.place, self.with_label, self.first_row = schema, place, with_label, first_row
        self.faults: list[Fault] = []
        self.clipped = 0

    def read(self, raw: Data) -> Table:
        schema = self.schema
        wanted = [*schema.columns, schema.label.column] if self.with_label else [*schema.columns]
        absent = [name for name in wanted if name not in raw]
        if absent:
            faults = [Fault(name, "is not in the data", hint="map it in site.toml") for name in absent]
            raise DataError(self.place, faults)
        lengths = {name: len(raw[name]) for name in wanted}
        rows = lengths[wanted[0]]
        if len(set(lengths.values())) > 1:
            odd = next(name for name in wanted if lengths[name] != rows)
            raise DataError(self.place, [Fault(odd, f"has {lengths[odd]} rows, '{wanted[0]}' has {rows}")])
        self.kept = np.ones(rows, bool)
        data: dict[str, NDArray[Any]] = {}
        for name, column in schema.columns.items():
            if isinstance(column, Category):
                codes = {value: code for code, value in enumerate(column.values)}
                data[name] = self._codes(name, raw[name], codes, "is not among the task's values")
                self._missing(name, data[name] == -1)
            elif isinstance(column, Text):
                data[name], empty = self._texts(name, raw[name], column.longest)
                self._missing(name, empty)
            else:
                data[name] = self._numbers(name, raw[name], column)
        if self.with_label:
            data[LABEL] = self._label(raw[schema.label.column])
        if self.faults:
            raise DataError(self.place, self.faults)
        if not self.kept.all():
            data = {name: column[self.kept] for name, column in data.items()}
        return Table(data, self.kept, self.clipped)

    def _fault(self, name: str, kind: str, where: NDArray[np.bool_], hint: str = "") -> None:
        count = int(where.sum())
        if count:
            rows = np.flatnonzero(where)[:ROWS_SHOWN] + self.first_row
            self.faults.append(Fault(name, kind, tuple(int(row) for row in rows), count, hint))

    def _missing(self, name: str, missing: NDArray[np.bool_]) -> None:
        rule = self.schema.missing_rule(name)
        if rule == "refuse":
            hint = "complete it, or ask the coordinator for a task with another rule for missing values"
            self._fault(name, "a value is missing, which the task refuses,", missing, hint)
        elif rule == "drop":
            self.kept &= ~missing

    def _numbers(self, name: str, cells: Any, column: Number | Vector) -> NDArray[np.float64]:
        values, text = parse_numbers(cells)
        self._fault(name, "text where a number is expected", text, "correct it, or declare a missing code in site.toml")
        if isinstance(column, Vector):
            if values.ndim == 1:
                values = values[:, None]
            elif values.ndim > 2 and np.prod(values.shape[1:]) == column.length:
                values = values.reshape(len(values), column.length)  # images come as (n, height, width, channels)
            if values.shape[1:] != (column.length,):
                kind = f"has rows of shape {values.shape[1:]}, the task says ({column.length},)"
                self.faults.append(Fault(name, kind))
                return np.zeros((len(values), column.length))
        elif values.ndim != 1:
            self.faults.append(Fault(name, f"has rows of shape {values.shape[1:]}, one number is expected"))
            return np.zeros(len(values))
        if values.size and column.low <= values.min() and values.max() <= column.high:
            return values  # nothing is missing either: a NaN is neither above nor below
        infinite = np.isinf(values)
        self._fault(name, "a number is not finite", _any(infinite))
        missing = np.isnan(values) & ~(text if values.ndim == 1 else text[:, None])
        if isinstance(column, Vector):
            if self.schema.missing in ("center", "indicator"):
                self._fault(name, "a value is missing, which a vector column cannot have,", _any(missing))
            else:
                self._missing_rows(name, _any(missing))
        else:
            self._missing(name, missing)
        return self._in_range(name, np.where(infinite, 0.0, values) if infinite.any() else values, column)

    def _missing_rows(self, name: str, missing: NDArray[np.bool_]) -> None:
        if self.schema.missing == "drop":
            self.kept &= ~missing
        else:
            self._fault(name, "a value is missing, which the task refuses,", missing)

    def _in_range(
        self, name: str, values: NDArray[np.float64], column: Number | Vector | NumberLabel
    ) -> NDArray[np.float64]:
        below, above = values < column.low, values > column.high
        if not (below.any() or above.any()):
            return values
        if self.schema.out_of_range == "clip":
            self.clipped += int(below.sum() + above.sum())
            return np.clip(values, column.low, column.high)
        unit = f" {column.unit}" if column.unit else ""
        hint = "is it in another unit? a factor can be set in site.toml"
        self._fault(name, f"a value is below {column.low:g}{unit}, the least the task allows,", _any(below), hint)
        self._fault(name, f"a value is above {column.high:g}{unit}, the most the task allows,", _any(above), hint)
        return values

    def _codes(self, name: str, cells: Any, codes: Mapping[str, int], kind: str) -> NDArray[np.int64]:
        """Codes of the values; -1 where missing; a fault where unknown."""
        unique, inverse = np.unique(_as_cells(cells), return_inverse=True)
        known = np.array([_code(value, codes) for value in unique] or [0], dtype=np.int64)
        result = known[inverse.reshape(-1)] if len(unique) else np.zeros(0, np.int64)
        self._fault(name, f"a value {kind}", result == -2, "map it in site.toml or correct it")
        return result

    def _texts(self, name: str, cells: Any, longest: int) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
        """Each cell as a str, and which are empty; only they are missing: "none" may well be what somebody wrote."""
        array = _host(cells)
        result = np.empty(len(array), dtype=object)
        if array.ndim != 1:
            self.faults.append(Fault(name, f"has rows of shape {array.shape[1:]}, one text is expected"))
            return result, np.zeros(len(array), bool)
        strange = np.zeros(len(array), bool)
        for row, cell in enumerate(array.tolist()):
            if isinstance(cell, bytes):
                cell = cell.decode("utf-8", "replace")
            empty = cell is None or (isinstance(cell, float) and math.isnan(cell))
            strange[row] = not (empty or isinstance(cell, str))
            result[row] = "" if empty or strange[row] else cell
        self._fault(name, "a cell that is no text", strange, "a text column holds text; is another column meant?")
        missing = np.array([not cell.strip() for cell in result], dtype=bool) & ~strange
        long = np.array([len(cell) > longest for cell in result], dtype=bool)
        if self.schema.out_of_range == "clip":
            self.clipped += int(long.sum())
            result[long] = [cell[:longest] for cell in result[long]]
        else:
            self._fault(name, f"a text of more than {longest} characters, the most the task allows,", long)
        return result, missing

    def _label(self, cells: Any) -> NDArray[Any]:
        label = self.schema.label
        if isinstance(label, ClassLabel):
            codes = {value: code for code, (_, values) in enumerate(label.classes) for value in values}
            result: NDArray[Any] = self._codes(label.column, cells, codes, "belongs to none of the task's classes")
            missing = result == -1
        elif isinstance(label, TextLabel):
            result, missing = self._texts(label.column, cells, label.longest)
        else:
            values, text = parse_numbers(cells)
            if values.ndim != 1:
                self.faults.append(Fault(label.column, f"has rows of shape {values.shape[1:]}, one number is expected"))
                return np.zeros(len(values))
            self._fault(label.column, "text where a number is expected", text)
            self._fault(label.column, "a number is not finite", np.isinf(values))
            missing = np.isnan(values) & ~text
            values = self._in_range(label.column, np.where(np.isinf(values), label.low, values), label)
            return self._label_missing(missing, (values - (label.center or 0.0)) / (label.scale or 1.0))
        return self._label_missing(missing, result)

    def _label_missing(self, missing: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
        if self.schema.missing == "drop":
            self.kept &= ~missing
        else:
            hint = 'leave the row out, or ask the coordinator for missing = "drop"'
            self._fault(self.schema.label.column, "the label is missing", missing, hint)
        return values


def _code(value: object, codes: Mapping[str, int]) -> int:
    text = canonical(value)
    return codes.get(text, -1 if is_missing(text) else -2)


def _any(where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return where if where.ndim == 1 else np.asarray(where.reshape(len(where), -1).any(axis=1))


MISSING_MARKS = frozenset({"", "?", "na", "n/a", "nan", "none", "null"})  # compared in lower case


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.strip().lower() in MISSING_MARKS


def _as_cells(cells: Any) -> NDArray[Any]:
    """Cells as a one-dimensional array that sorts: text stays text, mixed cells become text."""
    array = _host(cells)
    if array.dtype.kind == "O":
        array = np.array([canonical(cell) if cell is not None else "" for cell in array], dtype=str)
    return array.reshape(-1)


def _host(cells: Any) -> NDArray[Any]:
    if hasattr(cells, "detach"):
        cells = cells.detach().cpu().numpy()
    return np.asarray(cells)


def parse_numbers(cells: Array | Sequence[object]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cells as float64, and which of them (rows) hold text that is no number.

    Missing marks become NaN; so does text, which the second array tells apart.
    """
    array = _host(cells)
    if array.dtype.kind in "fiub":
        return array.astype(np.float64, copy=False), np.zeros(len(array), bool)
    flat = array.reshape(-1)
    try:
        values = np.array([float(cell) for cell in flat], dtype=np.float64)
        text = np.zeros(len(flat), bool)
    except (TypeError, ValueError):
        values, text = _parse_slowly(flat)
    return values.reshape(array.shape), _any(text.reshape(array.shape))


def _parse_slowly(cells: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, text = np.full(len(cells), np.nan), np.zeros(len(cells), bool)
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell)
        except (TypeError, ValueError):
            text[i] = cell is not None and not is_missing(str(cell))
    return values, text
