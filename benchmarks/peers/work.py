"""The work that every peer does: one round of clients that train one epoch each, and the mean of their parameters.

Needs NumPy, and PyTorch for those who train with it; nothing of ours, for it is loaded in the peers' environments.
Rows are made from a client's number, so that nobody has to carry them there: 28×28 pixels in [0, 1], two bright
lines of which tell the class. Pixels come as (n, 1, 28, 28) for PyTorch and as (n, 784) for us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIENTS = int(os.environ.get("BENCH_CLIENTS", "100"))
NETWORK = os.environ.get("BENCH_NETWORK", "mlp")  # mlp: 784-200-10; cnn: two convolutions, 1,663,370 weights
ROWS, BATCH, RATE = 600, 32, 0.05
SIDE, CLASSES = 28, 10
TEST = 10_000  # number of the client whose rows nobody trains on


def rows(client: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A client's pixels (n, 784) and classes (n,)."""
    rng = np.random.default_rng([client, 0x706565])
    x, y = rng.random((ROWS, SIDE * SIDE), np.float32), rng.integers(0, CLASSES, ROWS)
    x *= 0.5
    for image, code in zip(x.reshape(-1, SIDE, SIDE), y, strict=True):
        image[2 * code : 2 * code + 2] += 0.5
    return x, y


def order(client: int, epoch: int = 0) -> NDArray[np.int64]:
    """The order in which a client visits its rows."""
    return np.random.default_rng([client, epoch]).permutation(ROWS)


def module() -> Any:
    """The network as one writes it in PyTorch."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if NETWORK == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 200), nn.ReLU(), nn.Linear(200, CLASSES))
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * (SIDE // 4) ** 2, 512), nn.ReLU(), nn.Linear(512, CLASSES)),
    )


def batches(client: int) -> Iterator[tuple[Any, Any]]:
    """A client's batches for one epoch, as PyTorch's tensors."""
    import torch

    x, y = rows(client)
    images, classes = torch.from_numpy(x).reshape(-1, 1, SIDE, SIDE), torch.from_numpy(y)
    for chosen in torch.from_numpy(order(client)).split(BATCH):
        yield images[chosen], classes[chosen]


def train(network: Any, client: int) -> None:
    """One epoch of plain stochastic gradient descent, as one writes it in PyTorch."""
    import torch

    descent = torch.optim.SGD(network.parameters(), lr=RATE)
    network.train()
    for x, y in batches(client):
        descent.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(x), y).backward()
        descent.step()


def accuracy(network: Any) -> float:
    """Of the mean of all, on rows that nobody has."""
    import torch

    x, y = rows(TEST)
    network.eval()
    with torch.inference_mode():
        found = network(torch.from_numpy(x).reshape(-1, 1, SIDE, SIDE)).argmax(dim=1).numpy()
    return float((found == y).mean())
