"""One round of many clients: each client's very `summarize`, the server's very `fuse`."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import file, run
from fusionlearn.errors import SettingsError
from fusionlearn.problem import Schema
from fusionlearn.simulate.runners import Runner, open_runner
from fusionlearn.simulate.spool import Spool
from fusionlearn.types import Model, Report, Task, Update

Table: TypeAlias = Mapping[str, Any]
CLIENTS, SERVER = 0, 1  # branches of a seed's randomness
TASKS = 4  # tasks a worker keeps parsed
PIECE = 2**16  # rows looked at together for missing values


@dataclass(frozen=True)
class Simulated:
    """What a round gave, and what it cost."""

    model: Model
    report: Report
    clients: int  # that took part
    empty: int  # left out for want of rows, or of complete ones
    client_seconds: float  # processor time of all clients together
    most_seconds: float  # … of the slowest one
    server_seconds: float  # elapsed, fusing
    elapsed: float  # by the clock, all in all
    upload_bytes: int  # of all update files
    most_bytes: int  # … of the largest
    raw_bytes: int  # of the rows the updates were made from, as they lie in memory
    seconds: tuple[float, ...] = field(default=(), repr=False)  # processor time of each client


@dataclass(frozen=True)
class Job:
    """One client's work as it travels to a worker: its own rows, its randomness."""

    name: str  # for errors
    rows: dict[str, Any]
    entropy: tuple[int, ...]
    local: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Done:
    """What comes back: the update as a file's bytes, as a hub would get it."""

    update: bytes
    seconds: float


def simulate(
    task: Task,
    data: Table,
    parts: Sequence[NDArray[np.int64]],
    *,
    runner: Runner | str = "serial",
    workers: int = 0,
    seed: int = 0,
    local: Mapping[str, str] | None = None,
    keep: Callable[[int, Update], None] | None = None,
    step: Callable[[], None] | None = None,
) -> Simulated:
    """Summarize every client's part of the data and fuse the updates.

    A client without rows, or whose rows all lack a value under the task's rule "drop", takes no part. Memory holds the
    data, what the workers are at, and a running total; where the method needs every update, those beyond 256 MiB
    lie on disk until they are fused.

    data     raw columns, as `run.summarize` takes them
    parts    index arrays, one for each client
    runner   serial, processes, dask, or any callable with the shape of `map`
    workers  how many, where the runner is made here; 0: one for each core
    local    the clients' own choices, such as a teacher
    keep     is shown each update with its client's number, such as to judge it alone
    step     is called after each client
    Errors   SettingsError when no client has a complete row; what `run.summarize` and `run.fuse` raise
    """
    if isinstance(runner, str):
        with open_runner(runner, workers) as made:
            return simulate(task, data, parts, runner=made, seed=seed, local=local, keep=keep, step=step)
    taking = taking_part(task.schema, data, parts)
    if not taking:
        raise SettingsError("no client has a row that misses nothing the task needs: nothing can be simulated.")
    began = time.perf_counter()
    content = file.to_bytes(task)
    chosen = tuple(sorted((local or {}).items()))
    jobs = (_job(data, parts, number, seed, chosen) for number in taking)
    seconds: list[float] = []
    sizes: list[int] = []
    spool = None if task.method.additive else Spool()

    def arriving() -> Iterator[Update]:
        for number, done in zip(taking, runner(functools.partial(work, content), jobs), strict=True):
            seconds.append(done.seconds)
            sizes.append(len(done.update))
            update = file.from_bytes(done.update, Update)
            if keep is not None:
                keep(number, update)
            if step is not None:
                step()
            yield update if spool is None else dataclasses.replace(update, arrays=spool.keep(update.arrays))

    waited = [0.0]
    model, report = run.fuse(task, _timed(arriving(), waited), rng=server_rng(seed))
    elapsed = time.perf_counter() - began
    return Simulated(
        model=model,
        report=report,
        clients=len(taking),
        empty=len(parts) - len(taking),
        client_seconds=float(sum(seconds)),
        most_seconds=max(seconds),
        server_seconds=elapsed - waited[0],
        elapsed=elapsed,
        upload_bytes=sum(sizes),
        most_bytes=max(sizes),
        raw_bytes=sum(raw_bytes(data, parts[number]) for number in taking),
        seconds=tuple(seconds),
    )


def taking_part(schema: Schema, data: Table, parts: Sequence[NDArray[np.int64]]) -> list[int]:
    """Numbers of the clients that have a row with everything the task needs; the others are left empty."""
    if "drop" not in (schema.missing, *(schema.missing_rule(name) for name in schema.columns)):
        return [number for number, part in enumerate(parts) if len(part)]
    kept: list[NDArray[np.bool_]] = []
    rows = 0
    for piece in run.pieces(data, PIECE):
        kept.append(schema.read(piece, first_row=rows + 1).kept)
        rows += len(kept[-1])
    complete = np.concatenate([np.empty(0, bool), *kept])
    return [number for number, part in enumerate(parts) if complete[part].any()]


def _timed(items: Iterator[Update], waited: list[float]) -> Iterator[Update]:
    """The items; how long was waited for them is added up, so that it is not taken for the server's time."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        waited[0] += time.perf_counter() - began
        if item is None:
            return
        yield item


def _job(
    data: Table, parts: Sequence[NDArray[np.int64]], number: int, seed: int, local: tuple[tuple[str, str], ...] = ()
) -> Job:
    return Job(f"client {number + 1}'s rows", rows_of(data, parts[number]), entropy(seed, number), local)


def work(content: bytes, job: Job) -> Done:
    """A client's whole work, wherever it runs; `content` is the task as a file's bytes."""
    task = _task(content)
    began = time.process_time()
    rng = np.random.default_rng(np.random.SeedSequence(job.entropy[0], spawn_key=job.entropy[1:]))
    update = run.summarize(task, job.rows, rng=rng, place=job.name, local=dict(job.local) or None)
    return Done(file.to_bytes(update), time.process_time() - began)


@functools.lru_cache(TASKS)
def _task(content: bytes) -> Task:
    return file.from_bytes(content, Task, place="task")


def entropy(seed: int, client: int) -> tuple[int, ...]:
    """A client's own randomness: it depends on the seed and the client's number, on nothing else."""
    return (seed, CLIENTS, client)


def server_rng(seed: int) -> np.random.Generator:
    """The server's randomness."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SERVER,)))


def rows_of(data: Table, part: NDArray[np.int64]) -> dict[str, Any]:
    """Some rows of raw columns; lists of texts stay lists."""
    return {
        name: [cells[row] for row in part] if isinstance(cells, list) else np.asarray(cells)[part]
        for name, cells in data.items()
    }


def raw_bytes(data: Table, part: NDArray[np.int64]) -> int:
    """Bytes of some rows as they lie in memory; of texts their UTF-8."""
    total = 0
    for cells in data.values():
        if isinstance(cells, list):
            total += sum(len(str(cells[row]).encode()) for row in part)
        else:
            array = np.asarray(cells)
            total += int(array.nbytes * len(part) / max(1, len(array)))
    return total
