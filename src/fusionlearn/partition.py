"""Partitions: how a data set is split over clients, as a function from labels to index arrays.

"Dirichlet(0.1)" means several things in the literature, so what is meant here is written down, and a partition is
published as its indices or their digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import SettingsError

TRIES = 1000  # partitions drawn before a demand for rows at every client is called unreasonable


def dirichlet(
    labels: NDArray[np.int64], num_clients: int, alpha: float, *, at_least: int = 0, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Split each class over the clients in proportions drawn from a symmetric Dirichlet distribution.

    For every class on its own: shares p ~ Dirichlet(alpha, …, alpha) over the clients, the class's rows shuffled and
    cut at the cumulated shares. Every row goes to exactly one client; numbers of rows differ as widely as classes do.

    labels    (n,) class of each row
    alpha     > 0; small is uneven: at 0.1 most rows of a class lie with two or three clients
    at_least  rows every client must have; partitions with fewer are drawn again, which makes them a little more even
    Returns   one sorted int64 array of row numbers for each client
    Errors    SettingsError when the demand is not met in 1,000 draws
    Source    Yurochkin, Agarwal, Ghosh, Greenewald, Hoang, Khazaeni, Bayesian Nonparametric Federated Learning of
              Neural Networks, 2019
    """
    if num_clients < 1 or not alpha > 0:
        raise SettingsError(f"a partition needs clients and alpha above 0; it got {num_clients} and {alpha}.")
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(TRIES):
        parts: list[list[NDArray[np.int64]]] = [[] for _ in range(num_clients)]
        for rows in classes:
            shares = rng.dirichlet(np.full(num_clients, alpha))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
            for part, piece in zip(parts, np.split(rng.permutation(rows), cuts), strict=True):
                part.append(piece)
        joined = [np.sort(np.concatenate([np.empty(0, np.int64), *part])) for part in parts]
        if min(len(part) for part in joined) >= at_least:
            return joined
    raise SettingsError(
        f"{TRIES} partitions of {len(labels)} rows left one of {num_clients} clients with fewer than {at_least} rows: "
        f"ask for fewer clients, fewer rows at each, or a larger alpha."
    )


def digest(parts: Sequence[NDArray[np.int64]]) -> str:
    """SHA-256, in hex, of a partition: for each client in turn its number of rows and its sorted row numbers.

    All are little-endian 64-bit integers, so the digest is the same on every machine.
    """
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(np.array([len(part)], "<i8").tobytes())
        hashed.update(np.sort(part).astype("<i8").tobytes())
    return hashed.hexdigest()
