"""What starting takes: `import fusionlearn` beyond numpy, and the shortest command.

The floor of the command is an interpreter that imports numpy and does nothing with it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.measure import COMMAND, run

# An installed package has its byte code; a checkout gets it at the first import, unless the environment forbids it.
BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": ""}
IMPORT = "import time, numpy; t = time.process_time(); import fusionlearn; print(time.process_time() - t)"


def import_seconds(repeats: int = 9) -> float:
    """Processor seconds of `import fusionlearn` once numpy is there: the median of fresh processes."""
    command = [sys.executable, "-c", IMPORT]
    settings = os.environ | BYTE_CODE
    told = [subprocess.run(command, capture_output=True, check=True, env=settings).stdout for _ in range(repeats + 1)]
    return statistics.median(map(float, told[1:]))  # the first may have written byte code


def measure(repeats: int = 9) -> dict[str, Any]:
    """Processor seconds of the import, of the shortest command, and of what that has to do anyway."""
    floor = [run([sys.executable, "-c", "import numpy"], **BYTE_CODE) for _ in range(repeats)]
    version = [run([*COMMAND, "--version"], **BYTE_CODE) for _ in range(repeats)]
    seconds = {
        "import": import_seconds(repeats),
        "command": min(cost.processor_seconds for cost in version),
        "floor": min(cost.processor_seconds for cost in floor),
    }
    return {
        "repeats": repeats,
        "processor_seconds": seconds,
        "ratio": seconds["command"] / seconds["floor"],
        "peak_bytes": version[0].peak_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
