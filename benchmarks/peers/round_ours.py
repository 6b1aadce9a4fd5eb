"""Our round: the very task, updates and fusion that users get, simulated in two worker processes."""

from __future__ import annotations

import json

import numpy as np
import work

import fusionlearn as fl
from fusionlearn.methods.average import Average
from fusionlearn.simulate import simulate
from fusionlearn.simulate.runners import Runner, open_runner

NETWORKS = {"mlp": "mlp:hidden=200", "cnn": "cnn"}


def main() -> None:
    """One round; the workers begin to load what they need while this process does."""
    with open_runner("processes", 2, preload=["torch"] if work.NETWORK == "cnn" else []) as runner:
        round_by(runner)


def round_by(runner: Runner) -> None:
    """One round by these workers."""
    method = Average(
        network=NETWORKS[work.NETWORK],
        epochs=1,
        batch_size=work.BATCH,
        rate=work.RATE,
        momentum=0.0,
        decay=0.0,
        word=32,  # as many bytes a weight as the others pass on
    )
    task = fl.new_task(
        "peers", {"x": fl.Vector(work.SIDE**2, low=0, high=1)},
        fl.ClassLabel("y", tuple((str(code), (code,)) for code in range(work.CLASSES))),
        method=method, privacy=fl.Privacy("none", "allow"),
    )  # fmt: skip
    x = np.empty((work.CLIENTS * work.ROWS, work.SIDE**2), np.float32)
    y = np.empty(len(x), np.int64)
    places = np.split(np.arange(len(x)), work.CLIENTS)
    for client, here in enumerate(places):
        x[here], y[here] = work.rows(client)
    found = simulate(task, {"x": x, "y": y}, places, runner=runner)
    x, y = work.rows(work.TEST)
    print(json.dumps({"accuracy": fl.evaluate(found.model, {"x": x, "y": y})["accuracy"]}))


if __name__ == "__main__":
    main()
