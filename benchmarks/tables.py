"""A client's work on a file: five million rows of CSV, and a small table where address space is limited.

The floor of the large file is Python's own `csv` module reading its cells as text and doing nothing with them.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fusionlearn as fl
from benchmarks.measure import COMMAND, MIB, Cost, run
from fusionlearn import file

SEED = 0
COLUMNS = 4
BLOCK = 50_000  # rows drawn; a longer table repeats them
ADDRESS_SPACE = 512 * MIB
SMALL = 1_000  # rows of the small table


def task() -> fl.Task:
    """Two classes from four numbers."""
    return fl.new_task(
        "long table",
        {f"x{j}": fl.Number(-10, 10) for j in range(COLUMNS)},
        fl.ClassLabel("y", (("no", ("0",)), ("yes", ("1",)))),
        privacy=fl.Privacy("none", "allow"),
        max_records=10_000_000,
    )


def write(path: Path, rows: int) -> None:
    """A CSV file of four numbers with three decimals and a label."""
    rng = np.random.default_rng(SEED)
    x, y = rng.standard_normal((min(rows, BLOCK), COLUMNS)).clip(-9, 9), rng.integers(0, 2, min(rows, BLOCK))
    lines = [",".join(f"{value:.3f}" for value in row) + f",{label}\n" for row, label in zip(x, y, strict=True)]
    with path.open("w", encoding="ascii") as out:
        out.write(",".join([*(f"x{j}" for j in range(COLUMNS)), "y"]) + "\n")
        for start in range(0, rows, BLOCK):
            out.writelines(lines[: rows - start])


def summarized(rows: int, *, address_space: int | None = None, settings: Mapping[str, str] | None = None) -> Cost:
    """What the command takes for a table of so many rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file.write(folder / "task", task())
        write(folder / "table.csv", rows)
        arguments = ["summarize", folder / "task", folder / "table.csv", "-o", folder / "update"]
        answers = ["--yes", "--allow-unsigned", "--unsigned"]
        home = {"FUSIONLEARN_HOME": str(folder / "home"), **(settings or {})}
        return run([*COMMAND, *arguments, *answers], address_space=address_space, **home)


def floor(rows: int) -> float:
    """Processor seconds of Python's csv module on the same table."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "table.csv"
        write(path, rows)
        began = time.process_time()
        with path.open(newline="", encoding="ascii") as table:
            for _ in csv.reader(table):
                pass
        return time.process_time() - began


def measure(rows: int = 5_000_000) -> dict[str, Any]:
    """Seconds and memory for a long table; memory for a small one under a limit."""
    long, least = summarized(rows), floor(rows)
    small = summarized(SMALL, address_space=ADDRESS_SPACE)
    return {
        "seed": SEED,
        "columns": COLUMNS,
        "long": {"rows": rows, **dataclasses.asdict(long)},
        "floor_processor_seconds": least,
        "ratio": long.processor_seconds / least,
        "small": {"rows": SMALL, "address_space": ADDRESS_SPACE, **dataclasses.asdict(small)},
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
