"""A site's table as the task wants it: opened with its map, read in pieces as often as asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import DataError, Fault
from fusionlearn.problem import ROWS_SHOWN, Schema
from fusionlearn.site.cells import Reader, readers
from fusionlearn.site.map import SiteMap, unknown
from fusionlearn.site.npz import NpzTable
from fusionlearn.site.parquet import ParquetTable
from fusionlearn.site.table import Batch, Table, broken
from fusionlearn.site.text import TextTable
from fusionlearn.types import CONTROL

LONGEST_SHOWN = 60  # characters of a column's name


@dataclass(frozen=True)
class Part:
    """Consecutive rows as the task names them, and what is wrong with them."""

    columns: Mapping[str, NDArray[Any]]
    numbers: NDArray[np.int64]  # of the rows, counted from 1
    faults: tuple[Fault, ...]  # of rows that could not be read, and of cells that no rule of the map fits


class Source:
    """An opened table. Undeclared columns are never turned into arrays, only named in `ignored`."""

    def __init__(self, table: Table, schema: Schema, readers: Sequence[Reader], ignored: tuple[str, ...]) -> None:
        self.schema, self.ignored = schema, ignored
        self.place = str(table.path)  # how errors name it
        self._table, self._readers = table, readers
        self._wanted = tuple(dict.fromkeys(source for reader in readers for source in reader.sources))

    @property
    def fraction(self) -> float:
        """The share of the file that the latest pass has read."""
        return self._table.fraction

    def pieces(self, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """The task's columns, `rows` rows at a time (the last piece may have fewer); may be called again.

        Where pieces are cut depends on `rows` alone, not on the kind of file: sums come out alike, bit for bit.
        Errors: DataError with every fault of the first faulty batch.
        """
        held: list[Mapping[str, NDArray[Any]]] = []
        count = 0
        for part in self.parts():
            if part.faults:
                raise DataError(self.place, [*part.faults, *self.faults_of(part)])
            held.append(part.columns)
            count += len(part.numbers)
            if count >= rows:
                whole = _joined(held)
                for start in range(0, count - rows + 1, rows):
                    yield {name: cells[start : start + rows] for name, cells in whole.items()}
                rest = count % rows
                held = [{name: cells[count - rest :] for name, cells in whole.items()}] if rest else []
                count = rest
        if count:
            yield _joined(held)

    def parts(self) -> Iterator[Part]:
        """All rows in order, faulty or not."""
        try:
            for batch in self._table.batches(self._wanted):
                yield self._part(batch)
        except OSError as error:
            raise _unreadable(self._table.path, error) from None

    def _part(self, batch: Batch) -> Part:
        columns = {}
        faults = list(batch.faults)
        for reader in self._readers:
            cells, flaws = reader.read([batch.columns[source] for source in reader.sources])
            columns[reader.name] = cells
            for flaw in flaws:
                rows = batch.numbers[flaw.where]
                shown = tuple(int(row) for row in rows[:ROWS_SHOWN])
                faults.append(Fault(reader.name, flaw.kind, shown, len(rows), flaw.hint))
        return Part(columns, batch.numbers, tuple(faults))

    def faults_of(self, part: Part) -> list[Fault]:
        """What the task finds wrong with the cells of a part."""
        if not len(part.numbers):
            return []
        try:
            self.schema.read(part.columns, place=self.place, with_label=self.schema.label.column in part.columns)
        except DataError as error:
            return [_renumbered(fault, part.numbers) for fault in error.faults]
        return []

    def column(self, name: str) -> list[str] | None:
        """One column of the file as its texts, declared or not, to divide rows by; None when the file has none.

        `takes_numbers` does not hold for it: it is read as it stands.
        """
        if name not in self._table.names:
            return None
        plain, self._table.takes_numbers = self._table.takes_numbers, False
        try:
            return [str(cell).strip() for batch in self._table.batches((name,)) for cell in batch.columns[name]]
        finally:
            self._table.takes_numbers = plain

    def cells(self, wanted: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
        """Row, column and content, as the file has it, of single cells: for the person at the terminal alone."""
        asked = set(wanted)
        sources = {reader.name: reader.sources[0] for reader in self._readers}
        for batch in self._table.batches(self._wanted):
            places = {int(number): place for place, number in enumerate(batch.numbers)}
            for row, column in sorted(asked):
                if row in places and column in sources:
                    yield row, column, str(batch.columns[sources[column]][places[row]])


def open_source(path: Path, schema: Schema, site_map: SiteMap | None = None, *, with_label: bool = True) -> Source:
    """The table in a file, as the task wants it.

    path        .npz, .parquet, or text: anything else is taken for CSV
    with_label  False when predicting: the label's column is neither needed nor read
    Errors: DataError when columns are missing or the file is none; SettingsError when the map does not suit the task;
    MissingExtra for Parquet without pyarrow.
    """
    site_map = site_map or SiteMap()
    error = unknown(site_map, [*schema.columns, schema.label.column])
    if error:
        raise error
    table = open_table(path, site_map)
    wanted = readers(schema, site_map, table.names, with_label=with_label)
    faults = _header_faults(table, wanted)
    if faults:
        raise DataError(str(path), faults)
    table.takes_numbers = all(reader.takes_numbers for reader in wanted)
    used = {source for reader in wanted for source in reader.sources}
    label = site_map.of(schema.label.column).source or schema.label.column
    ignored = tuple(shown(name) for name in dict.fromkeys(table.names) if name not in used and name != label)
    return Source(table, schema, wanted, ignored)


def open_table(path: Path, site_map: SiteMap) -> Table:
    """A file by its kind. Errors: DataError when it is none that can be read."""
    if path.is_dir():
        raise broken(path, "is a folder, a file is needed")
    try:
        if not path.exists():
            raise broken(path, "there is no file of that name", "check the path")
        if not path.is_file():
            raise broken(path, "is a device or a pipe, which cannot be read twice", "write the table to a file")
        kinds: dict[str, Any] = {".npz": NpzTable, ".parquet": ParquetTable, ".pq": ParquetTable}
        kind = kinds.get(path.suffix.lower())
        table: Table = kind(path) if kind else TextTable(path, site_map.file)
        return table
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    return broken(path, f"cannot be read ({error.strerror or type(error).__name__})", "check the path and its rights")


def shown(name: str) -> str:
    """A column's name as it may be printed."""
    clean = CONTROL.sub("·", name.strip()) or "(no name)"
    return clean if len(clean) <= LONGEST_SHOWN else clean[: LONGEST_SHOWN - 1] + "…"


def _header_faults(table: Table, wanted: Sequence[Reader]) -> list[Fault]:
    """Columns that are missing or there twice; never what else the first row holds: it may be a patient's."""
    faults = []
    for reader in wanted:
        absent = [source for source in reader.sources if source not in table.names]
        twice = [source for source in reader.sources if table.names.count(source) > 1]
        if absent:
            named = "" if absent[0] == reader.name else f" under the name '{shown(absent[0])}'"
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            faults.append(Fault(reader.name, f"is not in the data{named}{more}", hint=_absent_hint(table)))
        elif twice:
            faults.append(Fault(reader.name, "stands more than once in the header", hint="rename or remove one"))
    return faults


def _absent_hint(table: Table) -> str:
    if len(table.names) == 1 and isinstance(table, TextTable):
        return "the header is one cell: is the delimiter another? declare it in site.toml"
    return "map it in site.toml"


def _renumbered(fault: Fault, numbers: NDArray[np.int64]) -> Fault:
    rows = tuple(int(numbers[row - 1]) for row in fault.rows)
    return Fault(fault.column, fault.kind, rows, fault.count, fault.hint)


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def hold_out_mask(first_row: int, count: int, fraction: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which of `count` rows from number `first_row` on are held back.

    A row's fate depends on its number and the seed alone (SplitMix64 of them), not on how the table is cut.
    """
    with np.errstate(over="ignore"):
        state = np.arange(first_row, first_row + count, dtype=np.uint64) + np.uint64(seed) * np.uint64(2**32)
        state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)) * 2.0**-53 < fraction)
