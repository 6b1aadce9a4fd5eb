"""What every benchmark needs: the best of several runs, and a command's time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = Path(__file__).resolve().parent / "launch.py"
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

    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCH), str(address_space or 0), *map(str, command)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")
    return Cost(**json.loads(done.stdout))
