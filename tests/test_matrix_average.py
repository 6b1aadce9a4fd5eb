"""Fused ridge is the matrix-weighted average of the local heads (docs/explanation/matrix-weighted-average.md)."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import method

COLUMNS = {
    "a": fl.Number(-8, 8, center=0, scale=1),
    "b": fl.Number(-8, 8, center=0, scale=1),
    "c": fl.Category(("x", "y")),
}
PENALTY = 0.03


def clients(rng):
    """Very uneven: each sees its own region and mostly one class."""
    for k in range(5):
        rows = int(rng.integers(3, 80))
        a, b = rng.normal(2 * (k - 2), 0.3, rows), rng.normal(size=rows)
        yield {"a": a, "b": b, "c": rng.choice(["x", "y"], rows), "y": (a + b + rng.normal(size=rows) > 0).astype(int)}


@pytest.mark.parametrize("seed", range(5))
def test_fused_is_the_average_of_local_heads_weighted_by_matrices(seed):
    task = fl.new_task(
        "average", COLUMNS, fl.ClassLabel("y", {"no": ["0"], "yes": ["1"]}),
        method=method.make("ridge", {"penalty": PENALTY}), privacy="none",
    )  # fmt: skip
    tables = list(clients(np.random.default_rng(seed)))
    model, _ = fl.fuse(task, [fl.summarize(task, table) for table in tables])

    encoded = [task.encoder.encode(task.schema.read(table).data, task.schema, {}) for table in tables]
    rows = [np.hstack([np.ones((len(data["x"]), 1)), data["x"]]) for data in encoded]
    together = np.vstack(rows)
    n, d = together.shape
    # The penalty acts on columns standardised over everybody's rows, and leaves the bias alone.
    penalty = PENALTY * n * np.diag([0.0, *together[:, 1:].var(axis=0)])
    heads, weights = [], []
    for z, data in zip(rows, encoded, strict=True):
        own = penalty * len(z) / n + 1e-6 * np.eye(d)  # a hair more: a client alone may not fix every direction
        weights.append(z.T @ z + own)
        heads.append(np.linalg.solve(weights[-1], z.T @ np.eye(2)[data["y"]]))
    # The hairs are taken out of what is inverted again, and out of each weight's share of its own head.
    average = np.linalg.solve(
        sum(weights) - len(rows) * 1e-6 * np.eye(d), sum(w @ h for w, h in zip(weights, heads, strict=True))
    )
    fused = np.vstack([model.arrays["bias"], model.arrays["weights"]])
    assert np.abs(average - fused).max() <= 1e-9 * np.abs(fused).max()

    plain = sum(h * len(z) for h, z in zip(heads, rows, strict=True)) / n
    assert np.abs(plain - fused).max() > 0.05 * np.abs(fused).max()  # what plain averaging loses
