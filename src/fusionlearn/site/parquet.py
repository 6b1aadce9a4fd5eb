"""Parquet files, through pyarrow, which is optional: read by row groups, the wanted columns only."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import MissingExtra
from fusionlearn.site.cells import Cells
from fusionlearn.site.table import Batch, broken

BATCH_CELLS = 2**19  # cells held at a time
HINT = "write it again"


class ParquetTable:
    """A .parquet file. Errors: MissingExtra without pyarrow; DataError."""

    def __init__(self, path: Path) -> None:
        self.path, self.fraction, self.takes_numbers = path, 0.0, False
        try:
            self.arrow = importlib.import_module("pyarrow")
            self.parquet = importlib.import_module("pyarrow.parquet")
        except ModuleNotFoundError:
            raise MissingExtra("reading Parquet", "pyarrow", "parquet") from None
        with self.path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise broken(path, "is not a Parquet file", HINT)
        try:
            with self.parquet.ParquetFile(path) as file:
                self.rows = int(file.metadata.num_rows)
                self.names = tuple(file.schema_arrow.names)
        except (self.arrow.ArrowException, OSError, ValueError):
            raise broken(path, "is not a whole Parquet file: it is cut or altered", HINT) from None

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """All rows in order; see `Table`."""
        names = list(dict.fromkeys(wanted))
        size = max(1, min(2**16, BATCH_CELLS // max(1, len(names))))
        done = 0
        try:
            with self.parquet.ParquetFile(self.path) as file:
                for part in file.iter_batches(batch_size=size, columns=names, use_threads=False):
                    columns: dict[str, Cells] = {name: self._cells(name, part.column(name)) for name in names}
                    count = part.num_rows
                    yield Batch(columns, np.arange(done + 1, done + count + 1))
                    done += count
                    self.fraction = done / max(1, self.rows)
        except (self.arrow.ArrowException, OSError, OverflowError, ValueError):
            raise broken(self.path, "cannot be read to its end: it is cut or altered", HINT) from None

    def _cells(self, name: str, column: Any) -> Cells:
        """One column: numbers with NaN, dates with NaT, texts with "" where there is nothing."""
        pa = self.arrow
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.dictionary_decode()
            kind = column.type
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan)
        if pa.types.is_boolean(kind):
            column, kind = column.cast(pa.int8()), pa.int8()
        if pa.types.is_decimal(kind):
            column, kind = column.cast(pa.float64()), pa.float64()
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.asarray(column.to_numpy(zero_copy_only=False))
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            return np.asarray(column.cast(pa.date32(), safe=False).to_numpy(zero_copy_only=False), "datetime64[D]")
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return [cell if cell is not None else "" for cell in column.to_pylist()]
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return self._vector(name, column)
        raise broken(self.path, f"column '{name}' holds neither numbers nor texts nor dates")

    def _vector(self, name: str, column: Any) -> NDArray[np.float64]:
        """A column of lists of one length as a block of numbers."""
        flat = column.flatten()
        count = len(column)
        if column.null_count or (count and len(flat) % count) or not self._numeric(flat.type):
            raise broken(self.path, f"column '{name}' holds lists of unlike length, or not of numbers")
        lengths = set(self.arrow.compute.list_value_length(column).to_pylist())
        if len(lengths) > 1:
            raise broken(self.path, f"column '{name}' holds lists of unlike length")
        return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(count, -1)

    def _numeric(self, kind: Any) -> bool:
        return bool(self.arrow.types.is_integer(kind) or self.arrow.types.is_floating(kind))
