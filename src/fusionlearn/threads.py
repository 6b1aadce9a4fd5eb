"""Before numpy is loaded: where address space is limited, BLAS gets as many threads as fit into it.

OpenBLAS reserves 40 MiB of address space for every core when numpy is loaded, and ends the process where there is no
more: under `ulimit -v` of 512 MiB that is any machine with a dozen cores. What the user has set is left alone.
"""

from __future__ import annotations

import os
import sys

ROOM = 2**28  # bytes of address space a thread gets: 40 MiB for BLAS, up to 128 MiB for the thread's own heap
CHOSEN = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # where a user sets the number; the first is the stronger


def fitting(limit: int) -> int:
    """How many threads fit into so many bytes of address space, beside the program itself."""
    return max(1, limit // ROOM - 1)


def _fit() -> None:
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and "numpy" not in sys.modules and not any(map(os.environ.get, CHOSEN)):
        os.environ[CHOSEN[0]] = str(fitting(limit))


_fit()
