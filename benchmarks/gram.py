"""A client's work on wide rows: `ridge.summarize` beside the bare Gram product of the same rows in float64.

The floor is what BLAS alone needs for XᵀX, the rows already there as float64. The method also widens the rows from
float32, adds the constant column, multiplies with the classes, and rounds each block to integers; the verb besides
checks every value against the task. One thread each.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fusionlearn as fl
from benchmarks.measure import best_of

SEED = 0
CLASSES = 10


def measure(rows: int = 50_000, columns: int = 1_280, repeats: int = 7) -> dict[str, Any]:
    """Processor seconds of product, method and verb, and the share of the product's rate that both reach."""
    rng = np.random.default_rng(SEED)
    x = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    codes = rng.integers(0, CLASSES, rows)
    names = tuple(str(code) for code in range(CLASSES))
    task = fl.new_task(
        "wide rows",
        {"x": fl.Vector(columns, low=-1, high=1)},
        fl.ClassLabel("y", tuple((name, (name,)) for name in names)),
        encoder="identity",
        privacy="none",
    )
    wide, raw = x.astype(np.float64), {"x": x, "y": np.array(names)[codes]}
    with threadpool_limits(1):
        seconds = best_of(
            repeats,
            {
                "product": lambda: wide.T @ wide,
                "method": lambda: task.method.summarize({"x": x, "y": codes}, task.problem, {}, rng=rng),
                "verb": lambda: fl.summarize(task, raw),
            },
        )
    return {
        "seed": SEED,
        "rows": rows,
        "columns": columns,
        "repeats": repeats,
        "processor_seconds": seconds,
        "rate": {name: seconds["product"] / seconds[name] for name in ("method", "verb")},
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
