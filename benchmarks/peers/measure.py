"""One round of clients by us, by hand and by the peers, each as a whole process: seconds and memory.

python -m benchmarks.peers.measure [mlp|cnn|small|agree] [PEER...]

Everything named is run in one sitting with the floor: a loop written by hand in PyTorch, in one process (`floor 1`,
where it is named) and in two (`floor 2`, always). `small` is 100 small tabular clients in one process, `agree` Flower's
FedAvg against ours. A sitting takes the place of an earlier one of the same; results/peers.json keeps them all, with
what the page says of them. Memory is that of all processes together, pages they share counted once; processor time is
that of all of them; both are looked at five times a second in a round of its own. Processor time tells more than the
clock where others use the machine too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import run as bench
from benchmarks.measure import best_of
from benchmarks.peers import agree, setup

FOLDER = Path(__file__).resolve().parent
RESULT = bench.RESULTS / "peers.json"
ALWAYS = ("floor 2", "ours")
PACKAGE = {"flower": "flwr", "blazefl": "blazefl", "pfl": "pfl", "fedlab": "fedlab"}
CLIENTS = {"mlp": 100, "cnn": 100}
PAUSE = 0.2  # seconds between looks at the memory
REPEATS = 3  # rounds of the floor and ours, in turns; of each the quickest counts. Others have one
SMALL = {"clients": 100, "rows": 320, "features": 32, "hidden": 64, "classes": 10, "rate": 0.05}


def command(name: str) -> list[str]:
    """What runs a round."""
    kind, _, processes = name.partition(" ")
    python = setup.python(kind) if kind in setup.PACKAGES else sys.executable
    return [str(python), str(FOLDER / f"round_{kind}.py"), *([processes] if processes else [])]


def one(name: str, network: str) -> dict[str, Any]:
    """A round's seconds, then once more what it holds and spends: to be looked at holds processes up.

    Errors: RuntimeError when it fails
    """
    seen = Seen()
    seconds, accuracy = whole(name, network)
    whole(name, network, seen)
    return {
        "seconds": seconds,
        "processor_seconds": sum(seen.spent.values()),
        "peak_bytes": seen.peak,
        "accuracy": accuracy,
    }


def whole(name: str, network: str, seen: Seen | None = None) -> tuple[float, float]:
    """The seconds of a whole process and the accuracy of its model; looked at where `seen` is given."""
    settings = {"BENCH_NETWORK": network, "BENCH_CLIENTS": str(CLIENTS[network]), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command(name), cwd=FOLDER, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    watcher = threading.Thread(target=_watch, args=(process, seen)) if seen is not None else None
    if watcher is not None:
        watcher.start()
    told, _ = process.communicate()
    seconds = time.perf_counter() - began
    if watcher is not None:
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"the round of {name} failed with status {process.returncode}.")
    lines = [line for line in told.decode().splitlines() if line.startswith('{"accuracy"')]
    return seconds, float(json.loads(lines[-1])["accuracy"])


@dataclass
class Seen:
    """What a process and its descendants took, as far as one saw them."""

    peak: int = 0  # bytes, of all at a time
    spent: dict[int, float] = field(default_factory=dict)  # processor seconds of each


def _watch(process: subprocess.Popen[bytes], seen: Seen) -> None:
    """Look at a process and its descendants until it ends."""
    import psutil

    top = psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        with contextlib.suppress(psutil.Error):
            for each in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    held += each.memory_full_info().pss
                    times = each.cpu_times()
                    seen.spent[each.pid] = times.user + times.system
        seen.peak = max(seen.peak, held)
        time.sleep(PAUSE)


def sitting(network: str, others: Sequence[str]) -> dict[str, Any]:
    """The floor, ours and others in turns."""
    names = []
    for name in (*ALWAYS, *others):
        if name in setup.PACKAGES and not setup.is_there(name):
            print(f"{name} is left out: `python benchmarks/peers/setup.py {name}` installs it.", file=sys.stderr)
        else:
            names.append(name)
    load = round(os.getloadavg()[0], 1)  # of others: it is asked before a round adds to it
    found: dict[str, dict[str, Any]] = {}
    for turn in range(REPEATS):
        for name in ALWAYS if turn else names:
            now = one(name, network)
            print(f"{network}: {name} {now['seconds']:.1f} s", file=sys.stderr, flush=True)
            if name not in found or now["seconds"] < found[name]["seconds"]:
                found[name] = now
    return {
        "network": network,
        "clients": CLIENTS[network],
        "repeats": REPEATS,
        "load": load,
        "versions": {name: version(name) for name in names if name in setup.PACKAGES},
        "found": found,
    }


def version(peer: str) -> str:
    """What is installed of a peer."""
    told = f"import importlib.metadata as m; print(m.version({PACKAGE[peer]!r}), m.version('torch'))"
    return subprocess.run(
        [setup.python(peer), "-c", told], check=True, capture_output=True, encoding="utf-8"
    ).stdout.strip().replace(" ", ", torch ")  # fmt: skip


# --- small clients --------------------------------------------------------------------------------------------------


def small() -> dict[str, Any]:
    """One epoch of 100 small tabular clients: a loop in PyTorch, and `summarize_many`; processor seconds by batch size.

    `trained` is the training alone, `summarized` all of it: the updates as they would be sent.
    """
    import torch

    from fusionlearn import network, training
    from fusionlearn.methods.average import Average
    from fusionlearn.problem import Problem

    torch.set_num_threads(1)
    count, features, classes = SMALL["clients"], SMALL["features"], SMALL["classes"]
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (count, SMALL["rows"], features)).astype(np.float32)
    y = rng.integers(0, classes, (count, SMALL["rows"]))
    labels, names = tuple(map(str, range(classes))), tuple(f"x{place}" for place in range(features))
    problem = Problem("multiclass", labels, names, (1.0,) * features, 10**6)
    text = f"mlp:hidden={SMALL['hidden']}"
    start = network.initial(text, problem)

    module = network.module_with(text, problem, start)
    fresh = {name: value.clone() for name, value in module.state_dict().items()}

    def loop(batch: int) -> None:
        for rows, codes in zip(torch.from_numpy(x), torch.from_numpy(y), strict=True):
            module.load_state_dict(fresh)
            descent = torch.optim.SGD(module.parameters(), lr=SMALL["rate"])
            for chosen in torch.randperm(len(rows)).split(batch):
                descent.zero_grad()
                torch.nn.functional.cross_entropy(module(rows[chosen]), codes[chosen]).backward()
                descent.step()

    def works(batch: int) -> Mapping[str, Callable[[], object]]:
        method = Average(
            network=text, epochs=1, batch_size=batch, rate=SMALL["rate"], momentum=0.0, decay=0.0, classes="all"
        )
        settings = training.Training(1, batch, SMALL["rate"], 0.0, 0.0)
        jobs = [training.Job(rows, codes, k) for k, (rows, codes) in enumerate(zip(x, y, strict=True))]
        given = [{"x": rows, "y": codes} for rows, codes in zip(x, y, strict=True)]
        rngs = [np.random.default_rng(k) for k in range(count)]
        return {
            "loop": lambda: loop(batch),
            "trained": lambda: training.fit_many(text, problem, start, jobs, settings),
            "summarized": lambda: method.summarize_many(given, problem, {}, rngs=rngs),
        }

    return {**SMALL, "processor_seconds": {str(batch): best_of(5, works(batch)) for batch in (8, 32)}}


# --- what is kept ---------------------------------------------------------------------------------------------------


def kept() -> dict[str, Any]:
    """What earlier sittings found."""
    return dict(json.loads(RESULT.read_text(encoding="utf-8"))) if RESULT.exists() else {}


def keep(part: str, found: Mapping[str, Any]) -> None:
    """Put a part into the result, in the place of an earlier one."""
    result = kept() | {part: bench._rounded(found)}
    result["machine"] = bench.machine()
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Measure one thing and keep it."""
    what, *others = arguments or ["mlp", "floor 1", *setup.PACKAGES]
    if what == "small":
        keep("small", small())
    elif what == "agree":
        if not setup.is_there("flower"):
            sys.exit("Flower is not there: `python benchmarks/peers/setup.py flower` installs it.")
        keep("agreement", agree.measure() | {"version": version("flower")})
    else:
        keep(" ".join((what, *others)), sitting(what, others))


if __name__ == "__main__":
    main(sys.argv[1:])
