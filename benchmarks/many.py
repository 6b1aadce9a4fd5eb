"""The server's work: a thousand signed updates of 512 columns, by files and the command line.

Each update is read, hashed, its signature verified, its numbers checked, its Gram matrix tested for being one, and
then added: nothing of it is kept. So memory must not grow with the number of updates, which is why two numbers of
them are measured. The floor is what cannot be left out whoever writes the program: one Cholesky factorisation of
the Gram matrix and one SHA-256 of the bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fusionlearn as fl
from benchmarks.measure import COMMAND, best_of, run
from fusionlearn import file, keys

SEED = 0
ROWS = 100  # of a client: fewer than columns, as happens
NAMES = tuple(str(code) for code in range(10))


def task(columns: int) -> fl.Task:
    """Ten classes from so many numbers."""
    made = fl.new_task(
        "many clients",
        {"x": fl.Vector(columns, low=-1, high=1)},
        fl.ClassLabel("y", tuple((name, (name,)) for name in NAMES)),
        encoder="identity",
        privacy=fl.Privacy("none", "allow"),
    )
    return file.sign(made, keys.generate())


def updates(question: fl.Task, columns: int, count: int) -> Iterator[fl.Update]:
    """Answers, each of other rows and signed with another key."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        table = {"x": rng.uniform(-1, 1, (ROWS, columns)), "y": np.array(NAMES)[rng.integers(0, len(NAMES), ROWS)]}
        yield file.sign(fl.summarize(question, table), keys.generate())


def make(folder: Path, columns: int, count: int) -> list[Path]:
    """Files of a task and its updates; the updates' paths."""
    question = task(columns)
    file.write(folder / "task", question)
    paths = [folder / f"{number}.update" for number in range(count)]
    for path, update in zip(paths, updates(question, columns, count), strict=True):
        path.write_bytes(file.to_bytes(update))
    return paths


def floor(columns: int, num_bytes: int, times: int) -> Callable[[], None]:
    """The work nobody can leave out, so many times: one factorisation and one hash an update."""
    x = np.random.default_rng(SEED).uniform(-1, 1, (2 * columns, columns + 1))
    gram, content = x.T @ x, bytes(num_bytes)

    def work() -> None:
        for _ in range(times):
            np.linalg.cholesky(gram)
            hashlib.sha256(content).digest()

    return work


def fused(folder: Path, paths: list[Path]) -> dict[str, Any]:
    """What the command takes to fuse these files."""
    arguments = ["fuse", folder / "task", *paths, "-o", folder / "model", "--unsigned"]
    cost = run([*COMMAND, *arguments], FUSIONLEARN_HOME=str(folder / "home"), OMP_NUM_THREADS="1")
    return {"updates": len(paths), **dataclasses.asdict(cost)}


def measure(columns: int = 512, few: int = 50, many: int = 1_000) -> dict[str, Any]:
    """Seconds and memory of the command for few updates and for many."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make(folder, columns, many)
        num_bytes = paths[0].stat().st_size
        costs = [fused(folder, paths[:few]), fused(folder, paths)]
    each = (costs[1]["processor_seconds"] - costs[0]["processor_seconds"]) / (many - few)
    least = best_of(5, {"floor": floor(columns, num_bytes, few)})["floor"] / few
    return {
        "seed": SEED,
        "columns": columns,
        "bytes": num_bytes,
        "runs": costs,
        "growth_bytes": costs[1]["peak_bytes"] - costs[0]["peak_bytes"],
        "processor_seconds": {"update": each, "floor": least},
        "ratio": each / least,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
