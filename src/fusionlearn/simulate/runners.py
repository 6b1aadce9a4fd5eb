"""Runners: where the clients of a simulation are computed. Each has the shape of `map`, and gives results in order.

    serial      in this process, one after the other
    processes   in worker processes of this machine, one thread each
    dask        on a Dask cluster: `dask` starts one of worker processes here, `dask:ADDRESS` uses one that runs

At most twice as many results as workers are waited for at any time, so memory is bounded by workers, not by clients.
A worker that dies is replaced and what it had is done again; as every client's randomness is its own, the result is
the same.

A script of your own that uses `processes` or `dask` does so under `if __name__ == "__main__":`, as Python's own
multiprocessing demands: every worker begins by importing the script.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fusionlearn import __version__
from fusionlearn.errors import FusionlearnError, MissingExtra, SettingsError

RUNNERS = ("serial", "processes", "dask")
AHEAD = 2  # results waited for, for each worker
PATIENCE = 5.0  # seconds a worker may take to end
TRIES = 3  # times a client's work is given to a worker before it is called deadly
HEAVY = ("torch", "sklearn")  # takes a second to load
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # PyTorch asks for them, where the system has them: some hundredths of its time
LARGE = 2**20  # bytes from which what every client's work shares goes to workers once, not with each client
KNOWN = 2  # … of which a worker keeps so many at hand
WAIT = "20s"  # for a Dask scheduler to answer
WORKERS_WAIT = 60  # seconds for its first worker

A = TypeVar("A")
B = TypeVar("B")


class Runner(Protocol):
    """Any callable with the shape of `map`, its results in order."""

    def __call__(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """The function's value for each item, in the items' order."""


class WorkerError(FusionlearnError):
    """Workers die of one client's work again and again, or are gone."""


@contextlib.contextmanager
def open_runner(name: str, workers: int = 0, preload: Sequence[str] = ()) -> Iterator[Runner]:
    """A runner by name, ended when the block ends.

    name     serial, processes, dask or dask:ADDRESS
    workers  how many; 0: as many as there are cores
    preload  modules that take long to load and that the work will need, such as torch: worker processes begin with
             them while this one goes on to whatever comes next
    Errors   SettingsError for an unknown name, MissingExtra
    """
    kind, _, address = name.partition(":")
    if kind not in RUNNERS or (address and kind != "dask"):
        raise SettingsError(f"no runner is called '{name[:60]}'; there are serial, processes, dask and dask:ADDRESS.")
    if kind == "serial":
        yield serial
    elif kind == "processes":
        with Processes(workers or cores(), preload) as pool:
            yield pool
    else:
        with dask(workers or cores(), address) as cluster:
            yield cluster


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serial(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """One after the other, here."""
    return map(function, items)


_END: Any = object()


class Pool(Protocol):
    """What the loop below needs of a set of workers."""

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        """What a future raises when its work was lost and can be done again."""

    def submit(self, function: Callable[[Any], Any], item: Any) -> Any:
        """Begin; a future with `result`, `done`, `exception` and `cancel`."""

    def renew(self) -> None:
        """Replace what died. Errors: WorkerError when nothing is left to work on."""


def _in_order(pool: Pool, function: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
    """Results in order; only so many items are taken as are worked on, and what is lost is done again."""
    source = iter(items)
    waiting: collections.deque[tuple[A, Any, int]] = collections.deque()  # item, future, times given to a worker
    try:
        while True:
            while len(waiting) < ahead:
                item = next(source, _END)
                if item is _END:
                    break
                waiting.append((item, pool.submit(function, item), 1))
            if not waiting:
                return
            item, future, tries = waiting[0]
            try:
                result = future.result()
            except pool.lost as error:
                if tries >= TRIES:
                    raise WorkerError(
                        f"workers die of one client's work, {TRIES} times now: is there enough memory? Use fewer "
                        f'--workers. (A script of your own needs `if __name__ == "__main__":` around what it runs.)'
                    ) from error
                pool.renew()
                waiting = collections.deque(
                    (item, future, tries) if _finished(future) else (item, pool.submit(function, item), tries + (not k))
                    for k, (item, future, tries) in enumerate(waiting)
                )
                continue
            waiting.popleft()
            del future
            yield result
    finally:
        for _, future, _ in waiting:
            future.cancel()


def _is_large(argument: Any) -> bool:
    """Whether an argument that all items share goes to workers once."""
    return isinstance(argument, bytes) and len(argument) >= LARGE


def _finished(future: Any) -> bool:
    return bool(future.done() and not future.cancelled() and future.exception() is None)


# --- processes ------------------------------------------------------------------------------------------------------


def _begin() -> None:
    """A worker computes on one thread (two on a busy machine were six to eight times slower), and ends with its parent.

    On Ctrl-C it goes at once, without a word: the parent says what there is to say.
    """
    for name in ONE_THREAD:
        os.environ[name] = "1"
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Workers hold both ends of their queue, so a parent that was killed would leave them waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Remembering:
    """A context that remembers the processes it started."""

    def Process(self, *arguments: Any, **named: Any) -> Any:
        """A new worker."""
        process = super().Process(*arguments, **named)  # type: ignore[misc]
        self.__dict__.setdefault("started", []).append(process)
        return process


class _Spawn(_Remembering, SpawnContext):  # type: ignore[misc]
    """Starts every worker afresh."""


def _context(preload: Sequence[str] = ()) -> Any:
    """How workers are started: never by a fork of this process, which may hang where BLAS has threads.

    On Linux they are forks of a small process that was started afresh, on one thread, and that has loaded what takes
    long to load: once, not in each worker. `preload` names what this process has not loaded yet.
    """
    if sys.platform != "linux":
        return _Spawn()
    from multiprocessing import forkserver  # Windows has none
    from multiprocessing.context import ForkServerContext

    class Fork(_Remembering, ForkServerContext):  # type: ignore[misc]
        """Starts workers as forks of a server."""

    context = Fork()
    loaded = [name for name in HEAVY if name in {*sys.modules, *preload}]  # the work needs what this process needed
    context.set_forkserver_preload(["fusionlearn.simulate.simulation", *loaded])
    with _environment(dict.fromkeys((*ONE_THREAD, LARGE_PAGES), "1")):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Within the block the environment, which processes inherit, holds these settings."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Processes:
    """Worker processes, replaced when they die. Workers live as long as the block, over several calls."""

    lost = (BrokenProcessPool, CancelledError)

    def __init__(self, workers: int, preload: Sequence[str] = ()) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._context: Any = _context(preload) if preload else None

    def __enter__(self) -> Processes:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        """End the workers; after an error at once, whatever they are at."""
        self._end(at_once=kind is not None)

    def __call__(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """The function's value for each item, in the items' order."""
        with contextlib.ExitStack() as files:
            yield from _in_order(self, _told_once(function, files), items, AHEAD * self.workers)

    def submit(self, function: Callable[[A], B], item: A) -> Any:
        """Give an item to a worker; workers start with the first."""
        if self._pool is None:
            self._context = self._context or _context()
            self._pool = ProcessPoolExecutor(self.workers, mp_context=self._context, initializer=_begin)
        try:
            return self._pool.submit(function, item)
        except BrokenProcessPool:  # it broke since the last look; what it had is noticed when its turn comes
            self.renew()
            return self.submit(function, item)

    def renew(self) -> None:
        """New workers in the place of those of a pool that broke."""
        self._end(at_once=True)

    def _end(self, *, at_once: bool) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.shutdown(wait=not at_once, cancel_futures=True)
        if at_once:
            for process in self._context.started:
                process.terminate()
            for process in self._context.started:
                _ended(process)
        self._context = None


@dataclass(frozen=True)
class _Filed:
    """An argument that lies in a file."""

    path: Path


def _told_once(function: Callable[[A], B], files: contextlib.ExitStack) -> Callable[[A], B]:
    """The same function, its large arguments in files: workers read them once, not with every item from a pipe."""
    if not isinstance(function, functools.partial) or function.keywords:
        return function
    if not any(map(_is_large, function.args)):
        return function
    folder = Path(files.enter_context(tempfile.TemporaryDirectory()))

    def filed(place: int, argument: Any) -> Any:
        if not _is_large(argument):
            return argument
        path = folder / str(place)
        path.write_bytes(argument)
        return _Filed(path)

    return functools.partial(_with_files, function.func, tuple(map(filed, itertools.count(), function.args)))


def _with_files(function: Callable[..., B], given: tuple[Any, ...], item: Any) -> B:
    """A worker's part of `_told_once`."""
    return function(*(_content(one.path) if isinstance(one, _Filed) else one for one in given), item)


@functools.lru_cache(KNOWN)
def _content(path: Path) -> bytes:
    return path.read_bytes()


def _ended(process: Any) -> None:
    """Wait until a process that was told to end has ended; one that does not listen is killed.

    The pool's own thread waits for it too, and whoever comes second is told of the end a moment later: `join` alone
    may return before `is_alive` knows.
    """
    killed = time.monotonic() + PATIENCE
    while process.is_alive():
        process.join(0.02)
        time.sleep(0.005)
        if time.monotonic() > killed:
            process.kill()


# --- Dask -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dask(workers: int, address: str = "") -> Iterator[Runner]:
    """A Dask cluster's workers: one that runs at `address`, or one of processes made here for this block.

    Errors: MissingExtra, SettingsError when no scheduler answers or its workers are not of this version
    """
    try:
        import dask.config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtra("the runner 'dask'", "distributed", "dask") from error
    quiet = {
        "distributed.admin.large-graph-warning-threshold": "1TB",  # a client's rows are as large as they are
        "distributed.comm.timeouts.connect": WAIT,
        "logging.distributed": "critical",  # what matters is told in a sentence
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(quiet))
        stack.enter_context(_silence("distributed"))
        if address:
            client = stack.enter_context(_connected(Client, address))
        else:
            with _without_ctrl_c():
                made = LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
            cluster = stack.enter_context(made)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        yield _Dask(client)


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that are started now do not hear Ctrl-C, which a terminal sends to all: the one that made them does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _silence(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _connected(make: Any, address: str) -> Iterator[Any]:
    """A client of a scheduler that runs, once it is clear that its workers can do our work."""
    try:
        client = make(address, timeout=WAIT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise SettingsError(
            f"no Dask scheduler answers at {address}: start one with `dask scheduler`, and workers with "
            f"`dask worker {address} --nthreads 1`."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_WAIT)
        except TimeoutError as error:
            raise SettingsError(
                f"the Dask scheduler at {address} has no workers: start some with `dask worker {address} --nthreads 1`."
            ) from error
        told = client.get_versions(packages=["fusionlearn"])["workers"].values()
        others = {str(worker["packages"].get("fusionlearn")) for worker in told if worker} - {__version__}
        if others:
            found = ", ".join(sorted("none" if other == "None" else other for other in others))
            raise SettingsError(
                f"workers at {address} have another fusionlearn than this {__version__} ({found}): install this one "
                f'there, `pip install "fusionlearn[dask]=={__version__}"`.'
            )
        yield client


class _Dask:
    """The workers of a cluster. Dask gives the work of one that dies to another, four times at most."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.lost: tuple[type[BaseException], ...] = (CancelledError,)  # a scattered object went with its last worker
        self._shared: dict[int, tuple[Any, Any]] = {}  # by id: the object, which keeps its id alive, and its future

    def __call__(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """The function's value for each item, in the items' order."""
        from distributed.scheduler import KilledWorker

        count = len(self.client.scheduler_info(n_workers=-1)["workers"])
        try:
            yield from _in_order(self, function, items, AHEAD * max(1, count))
        except KilledWorker as error:
            raise WorkerError(
                "Dask workers die of one client's work again and again: is there enough memory? Use fewer workers."
            ) from error
        finally:
            self._shared.clear()

    def submit(self, function: Callable[[A], B], item: A) -> Any:
        """Give an item to the cluster; large arguments that all items share go there once."""
        if isinstance(function, functools.partial) and not function.keywords:
            return self.client.submit(function.func, *map(self._once, function.args), item, pure=False)
        return self.client.submit(function, item, pure=False)

    def _once(self, argument: Any) -> Any:
        if not _is_large(argument):
            return argument
        if id(argument) not in self._shared:
            self._shared[id(argument)] = (argument, self.client.scatter(argument, broadcast=True, hash=False))
        return self._shared[id(argument)][1]

    def renew(self) -> None:
        """Send what is shared again, as long as there is anybody to send it to."""
        self._shared.clear()
        if self.client.status != "running":
            raise WorkerError("the Dask scheduler is gone: start it again; with --out, finished seeds are kept.")
