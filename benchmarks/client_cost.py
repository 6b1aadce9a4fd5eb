"""What a round costs a client, for each method: memory, processor seconds, bytes; the same 6,000 images of MNIST.

    python -m benchmarks.client_cost [NAME...]     writes results/client_cost.json; without names all

Every method runs in a process of its own with one thread. Memory is the most that was resident from the moment when
all libraries the method needs were loaded, less what was resident then: the client's rows, their encoding, the
computation and the update. Seconds are processor time of `fusionlearn.summarize`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import sections

ROWS = 6_000
PIXELS, COSINES = "table", "table, random_features:num_features=1024,bandwidth=9.0"
LENET = "lenet5"
# name on the page: method, its settings, encoders, the client's own choices
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, str]]] = {
    "ridge": ("ridge", {}, COSINES, {}),
    "ridge, 32 bits": ("ridge", {"word": 32}, COSINES, {}),
    "gaussian": ("gaussian", {}, COSINES, {}),
    "gaussian, diagonal": ("gaussian", {"covariance": "diagonal"}, COSINES, {}),
    "naive_bayes": ("naive_bayes", {}, PIXELS, {}),
    "ensemble": ("ensemble", {}, PIXELS, {}),
    "forest": ("forest", {}, PIXELS, {}),
    "distill_head, a forest teaches": ("distill_head", {"word": 32}, COSINES, {"teacher": "forest"}),
    "average, lenet5": ("average", {"network": LENET, "rate": 0.01}, PIXELS, {}),
    "distill, lenet5, a forest teaches": ("distill", {"student": LENET, "rate": 0.01}, PIXELS, {"teacher": "forest"}),
    "distill, lenet5, a cnn teaches": (
        "distill", {"student": LENET, "rate": 0.01}, PIXELS, {"teacher": "cnn:epochs=3"},
    ),
    "synthesize": ("synthesize", {}, COSINES, {}),
    "auto": ("auto", {}, COSINES, {}),
}  # fmt: skip


def rows(at: Path) -> None:
    """The client's images: the first of MNIST's training part, all digits."""
    import numpy as np

    from fusionlearn import datasets

    part = datasets.mnist()["train"]
    np.savez(at, pixels=part["image"][:ROWS].reshape(ROWS, -1), digit=part["label"][:ROWS])


def one(name: str, at: Path) -> dict[str, Any]:
    """In this process: what one method takes."""
    import numpy as np

    import fusionlearn as fl
    from fusionlearn import encoder, file, plugin
    from fusionlearn.method import make

    method, settings, encoders, local = CASES[name]
    task = fl.new_task(
        "mnist", {"pixels": fl.Vector(784, 0, 255, 0, 255)},
        fl.ClassLabel("digit", {str(digit): [str(digit)] for digit in range(10)}),
        encoder=[plugin.parse(encoder.Encoder, text.strip(), encoder.ENCODERS, encoder.GROUP)  # type: ignore[type-abstract]
                 for text in encoders.split(", ")],
        method=make(method, settings), privacy=fl.Privacy("none", "allow"), max_records=100_000,
    )  # fmt: skip
    # Everything is loaded that a client loads on the way, by a round so small that it leaves nothing behind.
    rng = np.random.default_rng(0)
    digits = np.arange(40) % 10
    fl.summarize(task, {"pixels": rng.integers(0, 256, (40, 784)), "digit": digits}, local=quick(local))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with np.load(at) as kept:
        table = {column: kept[column] for column in kept.files}
    began, clock = time.process_time(), time.perf_counter()
    update = fl.summarize(task, table, local=local)
    return {
        "processor_seconds": round(time.process_time() - began, 2),
        "seconds": round(time.perf_counter() - clock, 2),
        "peak_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        "before_bytes": before * 1024,
        "update_bytes": len(file.to_bytes(update)),
        "settings": {"method": method, **settings, "encoder": encoders, **local},
    }


def quick(local: dict[str, str]) -> dict[str, str]:
    """The same libraries, hardly any work."""
    return {name: "mlp:hidden=4,epochs=1" if choice.startswith("cnn") else choice for name, choice in local.items()}


def main() -> None:
    """Measure, and keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(CASES))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(one(given.names[0], Path(given.inside))))
        return
    path = sections.RESULTS / "client_cost.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"methods": {}}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "client.npz"
        rows(at)
        for name in given.names or CASES:
            command = [sys.executable, "-m", "benchmarks.client_cost", name, "--inside", str(at)]
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            done = subprocess.run(
                command, cwd=sections.ROOT, env=os.environ | threads, stdout=subprocess.PIPE, check=True
            )
            found["methods"][name] = json.loads(done.stdout)
            print(name, done.stdout.decode().strip(), file=sys.stderr, flush=True)
            libraries = ("fusionlearn", "numpy", "scikit-learn", "torch")
            found |= {
                "rows": ROWS,
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "versions": {library: version(library) for library in libraries},
            }
            found["methods"] = {known: found["methods"][known] for known in CASES if known in found["methods"]}
            path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("client_cost")
    if found is None:
        return
    yield "## What a round costs a client\n"
    yield (
        f"One client with {found['rows']:,} images of MNIST, 784 pixels each, default settings but for what is named; "
        "one thread, a process each. `ridge`, `gaussian`, `distill_head`, `synthesize` and `auto` see 1,024 random "
        "features, the others pixels. Memory is what comes on top of the loaded libraries: the rows, their encoding, "
        "the computation, the update.\n"
    )
    yield sections.table(
        ("method", "processor time", "memory", "update"),
        [
            (
                f"`{name.split(', ')[0]}`{name[len(name.split(', ')[0]) :]}",
                f"{cost['processor_seconds']:.1f} s",
                sections.mib(cost["peak_bytes"]),
                size(cost["update_bytes"]),
            )
            for name, cost in found["methods"].items()
        ],
    )
    yield _texts()


def _texts() -> str:
    """What the methods that translate take, from what their own benchmarks keep."""
    told, most = [], 0
    for name, result in (("phrases", "phrases"), ("translate", "translation")):
        found = sections.result_of(result)
        if found is not None:
            run = found["runs"][0]
            most = max(most, *run["rows"])
            told.append(
                f"`{name}` {run['client seconds']:.1f} s of processor time and an update of {size(run['upload bytes'])}"
                f", {sections.mib(run['client peak bytes'])} with the loaded libraries"
            )
    which = f"Of four clients with up to {most:,} pairs of sentences each, the one that takes longest"
    return f"{which}: {'; '.join(told)}.\n"


def size(num_bytes: float) -> str:
    """Bytes as people say them."""
    for unit, least in (("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= least:
            return f"{num_bytes / least:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


if __name__ == "__main__":
    main()
