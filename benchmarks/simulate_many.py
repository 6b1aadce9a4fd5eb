"""Ten thousand simulated clients: scikit-learn's digits drawn with replacement, by the command line.

Each client's rows become an update file, as a hub would get it, which is read, checked and added: memory must not grow
with the number of clients, which is why the same rows are also divided over fewer. Memory is that of all processes
together: the sum of their resident sets, pages they share counted in each, every 20 ms.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import COMMAND, ROOT
from fusionlearn import demo, file

SEED = 0
ROWS = 400_000  # drawn, of which a quarter is held back for testing
PAUSE = 0.02  # seconds between looks at the memory


def make(folder: Path) -> tuple[Path, Path]:
    """A task and a table of the digits drawn with replacement, pixels and labels in a byte each."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    drawn = np.random.default_rng(SEED).integers(0, len(digits), ROWS)
    np.savez(folder / "rows.npz", pixels=pixels[drawn].astype(np.uint8), digit=digits[drawn].astype(np.uint8))
    file.write(folder / "task", dataclasses.replace(demo.task("ridge", 0), max_records=ROWS, max_bytes=0))
    return folder / "task", folder / "rows.npz"


def run(clients: int, runner: str) -> dict[str, Any]:
    """What the command says, its time by the clock and the most memory its processes held."""
    with tempfile.TemporaryDirectory() as name:
        task, rows = make(Path(name))
        given = [
            "simulate",
            task,
            rows,
            "--clients",
            clients,
            "--seeds",
            1,
            "--runner",
            runner,
            "--workers",
            2,
            "--json",
        ]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, *map(str, given)], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", text=True,
            env=os.environ | {"FUSIONLEARN_HOME": name, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        peak = [0]
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        told, _ = process.communicate()
        seconds = time.perf_counter() - began
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"the simulation failed with status {process.returncode}.")
    found = json.loads(told)["seeds"]["0"]
    return {
        "runner": runner, "asked": clients, "clients": found["clients"], "seconds": seconds, "peak_bytes": peak[0],
        "accuracy": found["figures"]["accuracy"], "model": found["model"], "client_seconds": found["client_seconds"],
        "upload_bytes": found["upload_bytes"],
    }  # fmt: skip


def _watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    """The most bytes that a process and its descendants hold, until it ends."""
    import psutil

    top = psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        with contextlib.suppress(psutil.Error):
            for one in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    held += one.memory_info().rss
        peak[0] = max(peak[0], held)
        time.sleep(PAUSE)


def measure(few: int = 1_000, many: int = 10_000) -> dict[str, Any]:
    """Few and many clients in this process, and many in two worker processes: one result."""
    runs = [run(few, "serial"), run(many, "serial"), run(many, "processes")]
    return {
        "seed": SEED,
        "rows": ROWS,
        "runs": runs,
        "growth_bytes": runs[1]["peak_bytes"] - runs[0]["peak_bytes"],
        "equal": runs[1]["model"] == runs[2]["model"],
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
