"""Partitions: how a data set is split over clients, as functions from labels (or a column) to index arrays.

"Dirichlet(0.1)" means several things in the literature, so what is meant here is written down, and a partition is
published as its indices or their digest. Every partition is disjoint and complete: each row goes to just one client.
A client may be left empty where the rule says so; whoever uses the partition leaves it out and tells how many.

    iid                 rows at random, numbers as equal as can be
    dirichlet:0.1       each class over the clients by a Dirichlet distribution (`dirichlet`)
    dirichlet-client:1  each client's own mixture of classes by one, equal numbers (`dirichlet_per_client`)
    shards:2            two pieces of the rows sorted by class for each client (`shards`)
    quantity:0.5        numbers of rows by a Dirichlet distribution, classes at random (`quantity`)
    feature:0.9         clients along the rows' main direction, nine tenths sorted (`feature_shift`)
    column:hospital     one client for each value of a column (`by_column`)
    file:parts.json     as it was saved (`load`)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import FileError, SettingsError

Parts = list[NDArray[np.int64]]
KINDS = ("iid", "dirichlet", "dirichlet-client", "shards", "quantity", "feature", "column", "file")
FORMAT = "fusionlearn/partition/1"
TOPIC_WORDS, ITERATIONS = 500, 20  # of `by_topic`
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


def iid(num_rows: int, num_clients: int, *, rng: np.random.Generator) -> Parts:
    """Rows at random; numbers of rows differ by one at most."""
    _check_clients(num_clients, num_rows)
    return [np.sort(part) for part in np.array_split(rng.permutation(num_rows), num_clients)]


def dirichlet_per_client(
    labels: NDArray[np.int64], num_clients: int, alpha: float, *, rng: np.random.Generator
) -> Parts:
    """Each client its own mixture of classes, p ~ Dirichlet(alpha · class shares), numbers of rows as equal as can be.

    Clients take turns, one row each: a class drawn from the client's mixture among those that have rows left, then the
    next of that class's shuffled rows. Small alpha: most rows of a client are of one or two classes.
    Source    Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual
              Classification, 2019
    """
    _check_alpha(alpha)
    _check_clients(num_clients, len(labels))
    classes, codes = np.unique(labels, return_inverse=True)
    left = [rng.permutation(np.flatnonzero(codes == code)).tolist() for code in range(len(classes))]
    shares = np.bincount(codes) / len(codes)
    mixtures = np.maximum(rng.dirichlet(alpha * shares, size=num_clients), 1e-12)
    parts: list[list[int]] = [[] for _ in range(num_clients)]
    draws = rng.random(len(labels))
    for turn in range(len(labels)):
        client = turn % num_clients
        weights = np.cumsum(mixtures[client] * [bool(rows) for rows in left])
        code = int(np.searchsorted(weights, draws[turn] * weights[-1], side="right"))
        parts[client].append(left[min(code, len(left) - 1)].pop())
    return [np.sort(np.array(part, np.int64)) for part in parts]


def shards(labels: NDArray[np.int64], num_clients: int, per_client: int, *, rng: np.random.Generator) -> Parts:
    """Rows sorted by class and cut into equal shards; each client gets `per_client` of them at random.

    Source    McMahan, Moore, Ramage, Hampson, Agüera y Arcas, Communication-Efficient Learning of Deep Networks from
              Decentralized Data, 2017
    """
    if per_client < 1:
        raise SettingsError(f"shards need 1 or more for each client; got {per_client}.")
    _check_clients(num_clients * per_client, len(labels), "shards")
    shuffled = rng.permutation(len(labels))  # so that equal labels are in no order
    pieces = np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], num_clients * per_client)
    order = rng.permutation(len(pieces)).reshape(num_clients, per_client)
    return [np.sort(np.concatenate([pieces[piece] for piece in chosen])) for chosen in order]


def by_topic(texts: Sequence[str], num_clients: int, *, rng: np.random.Generator) -> Parts:
    """One client for each topic of the texts: spherical k-means on the words they have.

    The TOPIC_WORDS commonest words of at least three letters that at most a fifth of the texts have, in lower case,
    are its features; each has the weight log(n / texts that have it), each text length 1. Clients begin as texts drawn
    as far from each other as their distances make likely (k-means++), and are the mean of their texts for ITERATIONS
    rounds. A text without any of the words goes to the first client. Same rng, same partition.
    Source    Dhillon, Modha, Concept Decompositions for Large Sparse Text Data Using Clustering, 2001; k-means++:
              Arthur, Vassilvitskii, The Advantages of Careful Seeding, 2007
    """
    _check_clients(num_clients, len(texts))
    x = _topic_features(texts)
    centers = x[[int(rng.integers(len(x)))]]
    for _ in range(1, num_clients):
        away = np.maximum(1.0 - (x @ centers.T).max(axis=1), 1e-12).astype(np.float64)
        centers = np.vstack([centers, x[int(rng.choice(len(x), p=away / away.sum()))]])
    for _ in range(ITERATIONS):
        nearest = (x @ centers.T).argmax(axis=1)
        for k in range(num_clients):
            mean = x[nearest == k].sum(axis=0)
            centers[k] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    nearest = (x @ centers.T).argmax(axis=1)
    return [np.flatnonzero(nearest == k) for k in range(num_clients)]


def _topic_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, words) weights of words, each row of length 1 or 0."""
    words = [set(re.findall(r"[^\W\d_]{3,}", text.lower())) for text in texts]
    having = Counter(word for row in words for word in row)
    ranked = sorted((word for word in having if having[word] <= len(texts) / 5), key=lambda word: (-having[word], word))
    place = {word: number for number, word in enumerate(ranked[:TOPIC_WORDS])}
    x = np.zeros((len(texts), max(len(place), 1)), np.float32)
    for row, found in zip(x, words, strict=True):
        for word in found & place.keys():
            row[place[word]] = math.log(len(texts) / having[word])
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return x


def quantity(num_rows: int, num_clients: int, alpha: float, *, rng: np.random.Generator) -> Parts:
    """Numbers of rows in proportions from Dirichlet(alpha), classes at random; every client has a row at least."""
    _check_alpha(alpha)
    _check_clients(num_clients, num_rows)
    shares = rng.dirichlet(np.full(num_clients, alpha))
    counts = 1 + np.floor(shares * (num_rows - num_clients)).astype(np.int64)
    counts[int(np.argmax(counts))] += num_rows - int(counts.sum())
    return [np.sort(part) for part in np.split(rng.permutation(num_rows), np.cumsum(counts)[:-1])]


def feature_shift(features: NDArray[Any], num_clients: int, share: float, *, rng: np.random.Generator) -> Parts:
    """Clients lie along the direction in which the rows differ most: what differs is the features, not the labels.

    features  (n, ...) numbers; NaN counts as the mean
    share     0 to 1: so many rows go where the sorted projection puts them, the others anywhere
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"a feature shift is 0 to 1, the share of rows that are sorted; got {share}.")
    rows = np.asarray(features, np.float64).reshape(len(features), -1)
    _check_clients(num_clients, len(rows))
    mean = np.nan_to_num(np.nanmean(rows, axis=0)) if len(rows) else np.zeros(rows.shape[1])
    centred = np.where(np.isnan(rows), 0.0, rows - mean)
    scale = centred.std(axis=0)
    centred = centred / np.where(scale > 0, scale, 1.0)
    direction = _main_direction(centred)
    place = np.argsort(np.argsort(centred @ direction, kind="stable"), kind="stable")  # rank along the direction
    moved = rng.random(len(rows)) >= share
    place[moved] = rng.permutation(place[moved])
    order = np.argsort(place, kind="stable")
    return [np.sort(part) for part in np.array_split(order, num_clients)]


def _main_direction(rows: NDArray[np.float64], steps: int = 50) -> NDArray[np.float64]:
    """The first principal direction, by power iteration from a fixed start: the same on every machine to rounding."""
    direction: NDArray[np.float64] = np.ones(rows.shape[1]) / np.sqrt(rows.shape[1])
    for _ in range(steps):
        turned = rows.T @ (rows @ direction)
        norm = np.linalg.norm(turned)
        if norm == 0:
            return direction
        direction = turned / norm
    return direction


def by_column(values: Sequence[Any] | NDArray[Any]) -> tuple[Parts, list[str]]:
    """One client for each value of a column, in the values' order; the parts and the values' names."""
    names = np.array([str(value) for value in values])
    kinds = np.unique(names)
    return [np.flatnonzero(names == kind).astype(np.int64) for kind in kinds], [str(kind) for kind in kinds]


def _check_alpha(alpha: float) -> None:
    if not alpha > 0 or not np.isfinite(alpha):
        raise SettingsError(f"alpha is {alpha}; it is a number above 0, such as 0.1.")


def _check_clients(num_clients: int, num_rows: int, what: str = "clients") -> None:
    if num_clients < 1:
        raise SettingsError(f"a partition needs 1 or more {what}; got {num_clients}.")
    if num_clients > num_rows:
        raise SettingsError(
            f"{num_clients} {what} cannot share {num_rows} rows: ask for fewer {what} or give more rows."
        )


# --- by name --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partition:
    """A partition by name, such as dirichlet:0.1, before it meets data."""

    kind: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind

    @property
    def natural(self) -> bool:
        """Whether the data say who the clients are, so that no number of them is asked for."""
        return self.kind in ("column", "file")

    def split(
        self,
        labels: NDArray[Any],
        columns: Mapping[str, Any],
        num_clients: int,
        *,
        rng: np.random.Generator,
    ) -> tuple[Parts, list[str]]:
        """The index arrays, and what each client is called.

        labels   (n,) class of each row, or a number where the label is one (then classes are its tenths)
        columns  the raw columns, for `column` and `feature`
        Errors   SettingsError for a demand that cannot be met
        """
        codes = _classes(labels)
        if self.kind == "column":
            if self.value not in columns:
                known = ", ".join(sorted(columns)[:12])
                raise SettingsError(f"there is no column '{self.value}' to divide the clients by; there are {known}.")
            return by_column(columns[self.value])
        if self.kind == "file":
            saved = load(Path(self.value), len(codes))
            return saved.parts, saved.names
        amount = self._amount()
        if self.kind == "dirichlet":
            _check_alpha(amount)
            _check_clients(num_clients, len(codes))
            parts = dirichlet(codes, num_clients, amount, rng=rng)
        elif self.kind == "dirichlet-client":
            parts = dirichlet_per_client(codes, num_clients, amount, rng=rng)
        elif self.kind == "shards":
            parts = shards(codes, num_clients, int(amount), rng=rng)
        elif self.kind == "quantity":
            parts = quantity(len(codes), num_clients, amount, rng=rng)
        elif self.kind == "feature":
            parts = feature_shift(_numbers(columns, len(codes)), num_clients, amount, rng=rng)
        else:
            parts = iid(len(codes), num_clients, rng=rng)
        width = len(str(num_clients))
        return parts, [f"client {number:0{width}d}" for number in range(1, num_clients + 1)]

    def _amount(self) -> float:
        if self.kind == "iid":
            return 0.0
        try:
            amount = float(self.value)
        except ValueError as error:
            raise SettingsError(f"partition '{self}' needs a number after the colon, such as {self.kind}:1.") from error
        if self.kind == "shards" and (amount != int(amount) or amount < 1):
            raise SettingsError(f"partition '{self}' needs a whole number of shards for each client, such as shards:2.")
        return amount


def parse(text: str) -> Partition:
    """A partition by its name, such as iid, dirichlet:0.1, shards:2 or column:hospital.

    Errors: SettingsError for a name that is none
    """
    kind, _, value = text.partition(":")
    if kind not in KINDS or (kind == "iid") != (value == ""):
        raise SettingsError(
            f"'{text[:60]}' is no partition: write iid, dirichlet:0.1, dirichlet-client:0.1, shards:2, quantity:0.5, "
            f"feature:0.9, column:NAME or file:PARTS.json."
        )
    return Partition(kind, value)


def _classes(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as whole numbers; numbers that are measurements fall into tenths by size."""
    values = np.asarray(labels)
    return tenths(values) if values.dtype.kind == "f" else np.unique(values, return_inverse=True)[1].astype(np.int64)


def tenths(values: NDArray[Any]) -> NDArray[np.int64]:
    """The tenth, 0 to 9, in which each number falls by size; NaN in the last."""
    known = values[~np.isnan(values)]
    edges = np.quantile(known, np.linspace(0, 1, 11)[1:-1]) if len(known) else np.zeros(0)
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _numbers(columns: Mapping[str, Any], rows: int) -> NDArray[np.float64]:
    """The columns that hold numbers, side by side."""
    found = []
    for name in sorted(columns):
        values = np.asarray(columns[name])
        if values.dtype.kind in "fiub" and len(values) == rows:
            found.append(values.reshape(rows, -1).astype(np.float64))
    if not found:
        raise SettingsError("a feature shift needs a column of numbers: this table has none.")
    return np.concatenate(found, axis=1)


def check(parts: Sequence[NDArray[np.int64]], num_rows: int) -> None:
    """Refuse parts that are not disjoint and complete."""
    joined = np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
    if len(joined) != num_rows or not np.array_equal(joined, np.arange(num_rows)):
        raise SettingsError(
            f"a partition of {num_rows} rows holds each row once; this one holds {len(joined)}, "
            f"{len(np.unique(joined))} of them different."
        )


def save(
    path: Path, parts: Sequence[NDArray[np.int64]], names: Sequence[str], held_out: NDArray[np.int64] | None = None
) -> None:
    """Write a partition as JSON: names, row numbers of the whole table from 0, digest.

    held_out  rows that no client has, kept back for testing; parts and they together hold each row once
    """
    from fusionlearn.file import replacing

    told: dict[str, Any] = {
        "format": FORMAT, "digest": digest(parts), "clients": list(names), "rows": [np.sort(p).tolist() for p in parts],
    }  # fmt: skip
    if held_out is not None:
        told |= {"held_out_digest": digest([held_out]), "held_out": np.sort(held_out).tolist()}
    with replacing(path, "w", encoding="utf-8") as file:
        json.dump(told, file)


@dataclass(frozen=True)
class Saved:
    """A partition out of a file."""

    parts: Parts
    names: list[str]
    held_out: NDArray[np.int64] | None  # rows no client has; None where the file says nothing of any


def load(path: Path, num_rows: int) -> Saved:
    """A saved partition of a table of so many rows.

    Errors: FileError for a file that is none or was altered, SettingsError when it is of another table
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        parts = [np.array(rows, np.int64) for rows in told["rows"]]
        held_out = np.array(told["held_out"], np.int64) if "held_out" in told else None
        names = [str(name) for name in told["clients"]]
        known, known_held = told["digest"], told.get("held_out_digest")
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise FileError(f"{path} is not a saved partition.") from error
    everything = [*parts, *([] if held_out is None else [held_out])]
    flat = all(part.ndim == 1 for part in everything) and len(names) == len(parts)
    if not flat or digest(parts) != known or (held_out is not None and digest([held_out]) != known_held):
        raise FileError(f"{path}: the partition is not the one its digest names, so it was altered.")
    check(everything, num_rows)
    return Saved(parts, names, held_out)


def digest(parts: Sequence[NDArray[np.int64]]) -> str:
    """SHA-256, in hex, of a partition: for each client in turn its number of rows and its sorted row numbers.

    All are little-endian 64-bit integers, so the digest is the same on every machine.
    """
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(np.array([len(part)], "<i8").tobytes())
        hashed.update(np.sort(part).astype("<i8").tobytes())
    return hashed.hexdigest()
