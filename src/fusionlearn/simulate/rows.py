"""Rows to simulate with: a table, or one of the public data sets by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionlearn import datasets, run, site
from fusionlearn.errors import DatasetError, SettingsError
from fusionlearn.types import Task

DATASET = "dataset:"
SOURCE = "source"  # the column that names where a row of a public data set is from


def load(text: str, task: Task, map_path: Path | None = None, *, divide_by: str = "") -> dict[str, Any]:
    """Raw columns by name, as `run.summarize` takes them.

    text       a table's path, or dataset:NAME; a set of several parts gets a column `source` with their names
    divide_by  a column that the task need not declare, kept as text so that clients can be divided by it
    Errors     what the readers raise
    """
    if text.startswith(DATASET):
        return _public(text.removeprefix(DATASET))
    source = site.open_source(Path(text), task.schema, site.SiteMap.load(map_path) if map_path else site.SiteMap())
    pieces = list(source.pieces(run.chunk_rows(task)))
    columns = {name: joined([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}
    if divide_by and divide_by not in columns:
        cells = source.column(divide_by)
        if cells is not None:
            columns[divide_by] = np.array(cells)
    return columns


def joined(parts: list[Any]) -> Any:
    """Cells of one column out of several pieces."""
    if isinstance(parts[0], list | tuple):
        return [cell for part in parts for cell in part]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _public(name: str) -> dict[str, Any]:
    loader = getattr(datasets, name, None)
    if name not in datasets.names() or not callable(loader):
        raise SettingsError(f"no data set is called '{name[:60]}'; there are {', '.join(datasets.names())}.")
    found = loader()
    if not all(isinstance(part, Mapping) for part in found.values()):
        return dict(found)
    parts = list(found.items())
    columns = {column: np.concatenate([np.asarray(part[column]) for _, part in parts]) for column in parts[0][1]}
    if SOURCE in columns:
        raise DatasetError(f"data set '{name}' has a column '{SOURCE}' of its own.")
    names = [np.full(len(next(iter(part.values()))), label) for label, part in parts]
    return columns | {SOURCE: np.concatenate(names)}


def _stacked(cells: list[Any]) -> Any:
    """Cells of several parts; images of several sizes stay a list."""
    if len({np.asarray(part[0]).shape for part in cells if len(part)}) == 1 and not isinstance(cells[0], list):
        return np.concatenate([np.asarray(part) for part in cells])
    return [cell for part in cells for cell in part]
