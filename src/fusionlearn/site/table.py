"""What every kind of file gives: batches of the wanted columns, with the rows that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import DataError, Fault
from fusionlearn.site.cells import Cells


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of the wanted columns."""

    columns: Mapping[str, Cells]  # the export's name -> cells
    numbers: NDArray[np.int64]  # of the rows, counted from 1
    faults: Sequence[Fault] = field(default=())  # about rows that are not in `columns`


class Table(Protocol):
    """A file of records."""

    path: Path
    names: tuple[str, ...]  # of all its columns
    fraction: float  # of the file that the latest pass has read
    takes_numbers: bool  # set when every wanted column may be parsed as plain numbers

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """All rows in order, in batches of bounded size; may be called again.

        Errors: DataError where nothing after a fault can be told apart any more.
        """
        ...


def broken(path: Path, kind: str, hint: str = "", row: int = 0) -> DataError:
    """An error of a file as a whole, or of one row after which nothing can be read."""
    return DataError(str(path), [Fault("", kind, (row,) if row else (), 1 if row else 0, hint)])
