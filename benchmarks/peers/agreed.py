"""What Flower's FedAvg and ours are both given in agree.py: clients of unlike sizes and classes, and their batches.

Needs NumPy and PyTorch, and nothing of ours or of Flower's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIENTS, ROUNDS, BATCH, RATE, SEED = 5, 3, 16, 0.1, 7
FEATURES, HIDDEN, CLASSES = 20, 16, 3
SIZES = (30, 47, 64, 100, 16)  # rows of each client


def rows(client: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A client's rows (n, d) and classes (n,), of which it has more of one."""
    rng = np.random.default_rng([SEED, client])
    x = rng.standard_normal((SIZES[client], FEATURES)).astype(np.float32)
    y = (x[:, :CLASSES] + np.eye(CLASSES)[client % CLASSES]).argmax(axis=1)
    return x, y.astype(np.int64)


def order(client: int, number: int) -> NDArray[np.int64]:
    """The order of a client's rows in a round, counted from 0."""
    return np.random.default_rng((SEED, number, client, 0)).permutation(SIZES[client])


def module() -> Any:
    """The network as one writes it in PyTorch, its parts named as ours are."""
    from collections import OrderedDict

    from torch import nn

    body = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU())
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(HIDDEN, CLASSES)))


def train(network: Any, client: int, number: int) -> int:
    """One epoch of plain stochastic gradient descent by PyTorch's own; the number of rows."""
    import torch

    x, y = (torch.from_numpy(part) for part in rows(client))
    descent = torch.optim.SGD(network.parameters(), lr=RATE)
    for chosen in torch.from_numpy(order(client, number)).split(BATCH):
        descent.zero_grad()
        torch.nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
        descent.step()
    return len(x)
