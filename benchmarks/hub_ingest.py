"""Uploads a hub takes in, beside a floor measured in the same run, at 20 kB and at 1.1 MB.

Ten thousand clients answer one task, each with a key of its own: every request is signed, every update is parsed, its
signature verified, its numbers checked, its bytes brought to the disk, its place committed, its receipt signed. The
floor (`hub_floor`) does the least that can be called keeping: write, hash, fsync, commit a row. Both are given the
same bytes by the same load generator, in a process of its own on the same machine, over the same connections. One
BLAS thread, as a hub sets for itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fusionlearn as fl
from benchmarks import sections
from benchmarks.hub_load import Outcome, Request, drive, peak_bytes
from benchmarks.measure import ROOT
from fusionlearn import file, http_signature, keys

SEED = 0
CONNECTIONS = 32
SHARE = 0.7  # of saturation, for the latencies
ROWS = 50
PROJECT = "default"


@dataclass(frozen=True)
class Load:
    """One size of update."""

    name: str
    columns: int
    clients: int  # that upload as fast as they can
    steady: int  # … and at 70 % of that rate
    repeats: int  # rounds in which floor and hub take turns


LOADS = (
    Load("20 kB", 66, 10_000, 2_000, 1),
    Load("1.1 MB", 512, 400, 300, 2),
)


# --- what is sent ---------------------------------------------------------------------------------------------------


def task_of(columns: int, owner: Any) -> fl.Task:
    """Ten classes from so many numbers."""
    made = fl.new_task(
        f"ingest {columns}",
        {"x": fl.Vector(columns, low=-1, high=1)},
        fl.ClassLabel("y", tuple((str(code), (str(code),)) for code in range(10))),
        encoder="identity",
        privacy=fl.Privacy("none", "allow"),
        max_records=100_000_000,
    )
    return file.sign(made, owner)


@functools.cache
def arrays_of(task: str, columns: int, number: int) -> Any:
    """What one client's rows make; sixteen of them are shared out, as what differs is the key."""
    rng = np.random.default_rng([SEED, number])
    table = {"x": rng.uniform(-1, 1, (ROWS, columns)), "y": rng.integers(0, 10, ROWS).astype(str)}
    return fl.summarize(TASKS[task], table).arrays


TASKS: dict[str, fl.Task] = {}


def requests_of(task: fl.Task, columns: int, clients: Sequence[Any], port: int) -> list[Request]:
    """Each client's signed upload, as bytes on the wire."""
    digest = file.digest(task)
    TASKS[digest] = task
    made = []
    for number, client in enumerate(clients):
        update = file.sign(fl.Update(digest, arrays_of(digest, columns, number % 16)), client)
        body = file.to_bytes(update)
        path = f"/v1/projects/{PROJECT}/tasks/{digest}/updates/{file.digest(update)}"
        made.append(request(client, "PUT", port, path, body))
    return made


def request(key: Any, method: str, port: int, path: str, body: bytes = b"") -> Request:
    """A signed request."""
    host = f"127.0.0.1:{port}"
    summed = hashlib.sha256(body).digest() if body else None
    headers = {"host": host, "content-length": str(len(body))}
    headers |= http_signature.sign(method, f"http://{host}{path}", headers, summed, key)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Request(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode(), body)


# --- the servers ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(
    command: Sequence[object], pattern: str, log: Path, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and its port, which it prints; ended with the block.

    pattern  what it prints when it listens, the port as its first group
    log      where what it prints is kept
    """
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        until = time.monotonic() + 30
        while (found := re.search(pattern, log.read_text(encoding="utf-8"), re.MULTILINE)) is None:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} does not listen: {log.read_text(encoding='utf-8')}")
            time.sleep(0.02)
        yield process, int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def floor(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The bare server."""
    folder.mkdir()
    with started([sys.executable, "-m", "benchmarks.hub_floor", folder], r"^(\d+)$", folder / "log") as found:
        yield found


@contextlib.contextmanager
def hub(folder: Path, owner: Any, *options: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`fusionlearn serve` on SQLite and a folder, as it comes."""
    folder.mkdir()
    keys.save(owner, folder / "key")
    command = [sys.executable, "-m", "fusionlearn", "serve", "--data", folder, "--key", folder / "key", "--port", 0]
    with started([*command, *options], r"127.0.0.1:(\d+)$", folder / "log", FUSIONLEARN_HOME=str(folder)) as found:
        yield found


def enrol(folder: Path, clients: Sequence[str]) -> None:
    """Put the clients among the project's keys, many at once: joining is not what is measured."""
    import datetime

    import sqlalchemy as sa

    from fusionlearn.hub import tables

    engine = tables.engine(f"sqlite:///{folder / 'hub.db'}")
    since = datetime.datetime.now(datetime.UTC)
    rows = [
        {"project": PROJECT, "key": key, "person": key, "role": "client", "name": "", "since": since, "revoked": None}
        for key in clients
    ]
    with tables.writing(engine).begin() as connection:
        connection.execute(sa.insert(tables.member), rows)
    engine.dispose()


def told(outcome: Outcome) -> dict[str, Any]:
    """The figures of a run."""
    return {
        "uploads": len(outcome.latencies),
        "seconds": outcome.seconds,
        "rate": outcome.rate,
        "p50": outcome.percentile(0.5),
        "p99": outcome.percentile(0.99),
        "errors": outcome.errors(),
        "statuses": outcome.statuses,
    }


# --- the measurement ------------------------------------------------------------------------------------------------


def measure_one(load: Load, folder: Path) -> dict[str, Any]:
    """Floor and hub in turns, as fast as they go; then the hub at 70 % of its own best."""
    owner = keys.generate()
    task = task_of(load.columns, owner)
    rounds = []
    for number in range(load.repeats):
        clients = [keys.generate() for _ in range(load.clients)]
        with floor(folder / f"floor {number}") as (_, port):
            made = requests_of(task, load.columns, clients, port)
            least = told(drive(port, made, connections=CONNECTIONS))
        steady = [keys.generate() for _ in range(load.steady)]
        with hub(folder / f"hub {number}", owner) as (process, port):
            enrol(folder / f"hub {number}", [keys.public_hex(client) for client in (*clients, *steady)])
            published = drive(
                port, [request(owner, "PUT", port, f"/v1/projects/{PROJECT}/tasks/{file.digest(task)}",
                               file.to_bytes(task))], connections=1,
            )  # fmt: skip
            assert published.statuses == {"201": 1}, published.statuses
            taken = told(drive(port, requests_of(task, load.columns, clients, port), connections=CONNECTIONS))
            waiting = requests_of(task, load.columns, steady, port)
            calm = told(drive(port, waiting, connections=4 * CONNECTIONS, rate=SHARE * taken["rate"]))
            memory = peak_bytes(process.pid)
        rounds.append({"floor": least, "hub": taken, "steady": calm, "peak_bytes": memory})
    best = {name: max(found[name]["rate"] for found in rounds) for name in ("floor", "hub")}
    return {
        "name": load.name,
        "bytes": len(made[0].body),
        "clients": load.clients + load.steady,
        "connections": CONNECTIONS,
        "rounds": rounds,
        "rate": best,
        "share_of_floor": best["hub"] / best["floor"],
        "p99": min(found["steady"]["p99"] for found in rounds),
        "peak_bytes": max(found["peak_bytes"] for found in rounds),
        "errors": sum(found[name]["errors"] for found in rounds for name in ("floor", "hub", "steady")),
    }


def measure(loads: Sequence[Load] = LOADS) -> dict[str, Any]:
    """Every load."""
    found = []
    for load in loads:
        with tempfile.TemporaryDirectory() as name:
            found.append(measure_one(load, Path(name)))
    return {"share": SHARE, "loads": found}


def busy(found: Mapping[str, Any]) -> str:
    """What a reader has to know of a machine that was not idle."""
    load, cores = found["machine"]["load"], found["machine"]["cores"]
    if load is None or load <= cores:
        return ""
    return (
        f" Measured while others used the machine and its disk (load {load:.0f} on {cores} cores): the floor, which "
        f"waits for the disk after each upload, is slowed more by that than the hub, whose uploads wait together, so "
        f"the ratio says little about an idle machine."
    )


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("hub_ingest")
    if found is None:
        return
    yield "## The hub\n"
    yield (
        f"Uploads over loopback from one process that signed them beforehand, over {CONNECTIONS} connections; the "
        f"floor writes, hashes, fsyncs and commits one row for each, and does nothing else "
        f"(`benchmarks/hub_floor.py`). Latencies at {found['share']:.0%} of the hub's own best rate. Memory is the "
        f"peak of the hub's processes together. Bars: half the floor's rate, 250 ms, 250 MB, no error.{busy(found)}\n"
    )
    yield sections.table(
        ("update", "clients of one task", "hub, uploads a second", "floor", "share", "p99", "memory", "errors"),
        [
            (
                f"{load['bytes'] / 1000:,.0f} kB",
                f"{load['clients']:,}",
                f"{load['rate']['hub']:.0f}",
                f"{load['rate']['floor']:.0f}",
                f"{load['share_of_floor']:.0%}",
                f"{1000 * load['p99']:.0f} ms",
                f"{load['peak_bytes'] / 1e6:.0f} MB",
                str(load["errors"]),
            )
            for load in found["loads"]
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:  # a quick look: NAME COLUMNS CLIENTS STEADY
        columns, clients, steady = map(int, sys.argv[1:])
        print(json.dumps(measure([Load("a look", columns, clients, steady, 1)]), indent=1))
    else:
        print(json.dumps(measure()))
