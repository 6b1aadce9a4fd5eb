"""What every benchmark needs: the best of several runs, and a command's time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "fusionlearn")
MIB = 2**20


def best_of(repeats: int, works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least processor time, in seconds, that each work took.

    The works take turns, so that a busy spell of the machine hits all of them. Processor time of a single thread is
    what the clock shows on an idle machine; on a shared one it leaves out what others took.
    """
    best = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            began = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - began)
    return best


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    seconds: float  # by the clock
    processor_seconds: float  # user and system, of all its threads
    peak_bytes: int  # most memory resident at a time


def run(command: Sequence[object], *, address_space: int | None = None, **settings: str) -> Cost:
    """Run a command that has to succeed; memory is what the system says at its end.

    address_space  bytes of address space it may take, as with `ulimit -v`
    settings       environment variables besides those of this process; FUSIONLEARN_HOME should be among them
    Errors: RuntimeError with what the command said when it fails.
    """

    def limit() -> None:
        import resource

        if address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))

    began = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=limit,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)  # `process.wait` would not tell the memory
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said.strip()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)
