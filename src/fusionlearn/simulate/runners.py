"""Runners: where the clients of a simulation are computed. Each has the shape of `map`, and gives results in order.

    serial      in this process, one after the other
    processes   in worker processes of this machine, one thread each
    dask        on a Dask cluster: `dask` starts one of worker processes here, `dask:ADDRESS` uses one that runs

At most twice as many results as workers are waited for at any time, so memory is bounded by workers, not by clients.
A worker that dies is replaced and what it had is done again; as every client's randomness is its own, the result is
the same.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from fusionlearn.errors import FusionlearnError, MissingExtra, SettingsError

RUNNERS = ("serial", "processes", "dask")
AHEAD = 2  # results waited for, for each worker
TRIES = 3  # times a client's work is given to a worker before it is called deadly
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

A = TypeVar("A")
B = TypeVar("B")


class Runner(Protocol):
    """Any callable with the shape of `map`, its results in order."""

    def __call__(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """The function's value for each item, in the items' order."""


class WorkerError(FusionlearnError):
    """Workers die of one client's work again and again."""


@contextlib.contextmanager
def open_runner(name: str, workers: int = 0) -> Iterator[Runner]:
    """A runner by name, ended when the block ends.

    name     serial, processes, dask or dask:ADDRESS
    workers  how many; 0: as many as there are cores
    Errors   SettingsError for an unknown name, MissingExtra
    """
    kind, _, address = name.partition(":")
    if kind not in RUNNERS or (address and kind != "dask"):
        raise SettingsError(f"no runner is called '{name[:60]}'; there are serial, processes, dask and dask:ADDRESS.")
    count = workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if kind == "serial":
        yield serial
    elif kind == "processes":
        with Processes(count) as pool:
            yield pool
    else:
        with dask(count, address) as cluster:
            yield cluster


def serial(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """One after the other, here."""
    return map(function, items)


def _one_thread() -> None:
    """A worker computes on one thread: two on a busy machine were six to eight times slower."""
    for name in ONE_THREAD:
        os.environ[name] = "1"
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
    with contextlib.suppress(ImportError):
        import sys

        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)


class Processes:
    """Worker processes, replaced when they die."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Results in order; only so many items are taken from `items` as are worked on."""
        source = iter(items)
        waiting: collections.deque[tuple[A, Future[B], int]] = collections.deque()
        try:
            while True:
                while len(waiting) < AHEAD * self.workers:
                    item = next(source, _END)
                    if item is _END:
                        break
                    waiting.append((item, self._submit(function, item), 1))
                if not waiting:
                    return
                item, future, tries = waiting[0]
                try:
                    result = future.result()
                except BrokenProcessPool as error:
                    if tries >= TRIES:
                        raise WorkerError(
                            f"worker processes die of this client's work, {TRIES} times now: is there enough memory? "
                            f"Use fewer --workers."
                        ) from error
                    self._start_anew()
                    waiting = collections.deque(
                        (item, self._submit(function, item), tries + (place == 0))
                        for place, (item, _, tries) in enumerate(waiting)
                    )
                    continue
                waiting.popleft()
                yield result
        finally:
            for _, future, _ in waiting:
                future.cancel()

    def _submit(self, function: Callable[[A], B], item: A) -> Future[B]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork of a process with BLAS threads may hang
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_one_thread)
        try:
            return self._pool.submit(function, item)
        except BrokenProcessPool:  # it broke since the last look
            self._start_anew()
            return self._submit(function, item)

    def _start_anew(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


_END: Any = object()


@contextlib.contextmanager
def dask(workers: int, address: str = "") -> Iterator[Runner]:
    """A Dask cluster's workers: one that runs at `address`, or one of processes made here for this block."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtra("the runner 'dask'", "distributed", "dask") from error
    with contextlib.ExitStack() as stack:
        if address:
            try:
                client = stack.enter_context(Client(address, timeout="20s"))
            except (OSError, TimeoutError, ValueError) as error:
                raise SettingsError(
                    f"no Dask scheduler answers at {address}: start one with `dask scheduler`, and workers with "
                    f"`dask worker {address} --nthreads 1`."
                ) from error
        else:
            cluster = stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
            )
            client = stack.enter_context(Client(cluster))

        def run(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
            ahead = AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            source = iter(items)
            waiting: collections.deque[Any] = collections.deque()
            try:
                while True:
                    while len(waiting) < ahead:
                        item = next(source, _END)
                        if item is _END:
                            break
                        waiting.append(client.submit(function, item, pure=False, retries=TRIES - 1))
                    if not waiting:
                        return
                    future = waiting.popleft()
                    yield future.result()
                    del future
            finally:
                for future in waiting:
                    future.cancel()

        yield run
