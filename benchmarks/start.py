"""What starting takes: `import fusionlearn` beyond numpy, and the shortest command.

The floor of the command is an interpreter that imports numpy and does nothing with it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.measure import COMMAND, run

IMPORT = "import time, numpy; t = time.process_time(); import fusionlearn; print(time.process_time() - t)"


def import_seconds(repeats: int = 9) -> float:
    """Processor seconds of `import fusionlearn` once numpy is there: the median of fresh processes."""
    command = [sys.executable, "-c", IMPORT]
    seconds = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(repeats)]
    return statistics.median(seconds)


def measure(repeats: int = 9) -> dict[str, Any]:
    """Processor seconds of the import, of the shortest command, and of what that has to do anyway."""
    floor = [run([sys.executable, "-c", "import numpy"]) for _ in range(repeats)]
    version = [run([*COMMAND, "--version"]) for _ in range(repeats)]
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
