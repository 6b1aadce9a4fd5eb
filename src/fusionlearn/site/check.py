"""All faults of an export at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fusionlearn.errors import DataError, Fault
from fusionlearn.problem import ROWS_SHOWN, Schema
from fusionlearn.site.source import Source


@dataclass(frozen=True)
class Stats:
    """What a check learned besides the faults."""

    rows: int


def faults(
    source: Source, schema: Schema, progress: Callable[[float], None] | None = None
) -> tuple[list[Fault], Stats]:
    """Every fault of a table, one for each column and kind with its first rows, in the order of the columns.

    progress  called with the share of the file that was read
    """
    found: list[Fault] = []
    rows = 0
    try:
        for part in source.parts():
            rows = max(rows, int(part.numbers[-1]) if len(part.numbers) else 0)
            found += [*part.faults, *source.faults_of(part)]
            found = merged(found)
            if progress is not None:
                progress(source.fraction)
    except DataError as error:
        found += error.faults
    if not rows and not found:
        found.append(Fault("", "holds no rows", hint="only the header was exported"))
    order = {name: place for place, name in enumerate(["", *schema.columns, schema.label.column])}
    return sorted(merged(found), key=lambda fault: order.get(fault.column, 0)), Stats(rows)


def merged(found: Iterable[Fault]) -> list[Fault]:
    """Faults of one column and kind as one."""
    result: dict[tuple[str, str], Fault] = {}
    for fault in found:
        key = (fault.column, fault.kind)
        old = result.get(key)
        if old is None:
            result[key] = fault
        else:
            rows = (*old.rows, *fault.rows)[:ROWS_SHOWN]
            result[key] = dataclasses.replace(old, rows=rows, count=old.count + fault.count)
    return list(result.values())
