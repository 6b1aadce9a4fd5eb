"""Where a client's rows of each class lie: Gaussian mixtures, as arrays that travel.

Each class that a client holds is one mixture with diagonal covariances (`mixture`), of one component for every
LEAST_ROWS of its rows, at least one and up to a limit; numbers as labels are one class. They tell where a client is to
be heard (`together`), and rows can be drawn from them.

    density.class     (m,)    int32    the class of each component, in rising order
    density.weight    (m,)    float32  its share of its class's rows; those of a class sum to 1
    density.mean      (m, d)  float32
    density.variance  (m, d)  float32  above 0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import mixture, sums
from fusionlearn.arrays import Arrays, ArraySpec, UpTo
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.mixture import Matrix, Mixture

PREFIX = "density."
CLASS, WEIGHT, MEAN, VARIANCE = (PREFIX + name for name in ("class", "weight", "mean", "variance"))
LEAST_ROWS = 25  # of each component beyond a class's first
LARGEST = 1e15  # of a column: its square is far from float32's end
LOOSE = 1e-5  # what rounding to float32 may do, as a share
LEAST_VARIANCE = 1e-30  # float32 holds it
SMOOTH = 0.3  # share of the mean variance of all components in that of each
TRUST = 10.0  # independent features that all are taken for among rows drawn from densities
SHARP = 3  # power of what clients say together, as the log loss on rows held out had it


@dataclass(frozen=True)
class Densities:
    """One client's: its rows of each class (c,), and a mixture for each class it holds."""

    count: Matrix
    mixtures: Mapping[int, Mixture]


def declare(num_classes: int, components: int, bounds: Sequence[float]) -> dict[str, ArraySpec]:
    """What the densities of any rows look like; bounds (d,) are those of the columns. Errors: SettingsError."""
    most, width, top = UpTo(num_classes * components), len(bounds), max(bounds, default=0.0)
    if top > LARGEST:
        raise SettingsError(f"densities are sent in 32 bits, and a column reaches {top:g}: give it a scale.")
    return {
        CLASS: ArraySpec("int32", (most,), 0, num_classes - 1),
        WEIGHT: ArraySpec("float32", (most,), 0.0, 1.0 + LOOSE),
        MEAN: ArraySpec("float32", (most, width), -top * (1 + LOOSE), top * (1 + LOOSE)),
        VARIANCE: ArraySpec("float32", (most, width), 0.0),
    }


def encode(
    x: NDArray[np.floating], codes: NDArray[np.int64], components: int, *, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """One client's densities from its rows x (n, d), n at least 1, with class codes (n,)."""
    rows = np.asarray(x, np.float64)
    spread, square = rows.var(axis=0), (rows**2).mean(axis=0)
    spread = np.where(sums.is_constant(spread, square), 0.0, spread)
    labels, parts = [], []
    for label in np.unique(codes):
        mine = rows[codes == label]
        part = mixture.fit(mine, max(1, min(components, len(mine) // LEAST_ROWS)), rng=rng, spread=spread)
        labels += [label] * len(part.weights)
        parts.append(part)
    return {
        CLASS: np.array(labels, np.int32),
        WEIGHT: np.concatenate([part.weights for part in parts]).astype(np.float32),
        MEAN: np.concatenate([part.means for part in parts]).astype(np.float32),
        VARIANCE: np.maximum(np.concatenate([part.variances for part in parts]), LEAST_VARIANCE).astype(np.float32),
    }


def check(sent: Arrays, count: NDArray[np.int64], bounds: Sequence[float], place: str) -> None:
    """Refuse densities that do not belong to so many rows of each class, (c,). Errors: UpdateError.

    Shapes and types were checked before, against `declare`.
    """
    labels, weight, variance = sent[CLASS], sent[WEIGHT], sent[VARIANCE]
    held, top = np.flatnonzero(count), np.asarray(bounds)
    told = None
    if len({len(sent[name]) for name in (CLASS, WEIGHT, MEAN, VARIANCE)}) > 1:
        told = "the parts of its densities are not equally many"
    elif (np.diff(labels) < 0).any() or not np.array_equal(np.unique(labels), held):
        told = "its densities are not those of the classes it counts"
    elif (np.bincount(labels)[held] > np.maximum(count[held] // LEAST_ROWS, 1)).any():
        told = f"a component of its densities would speak of fewer than {LEAST_ROWS} rows"
    elif (np.abs(np.bincount(labels, weight)[held] - 1.0) > len(labels) * LOOSE).any() or (weight <= 0).any():
        told = "the weights of its densities do not sum to 1 in each class"
    elif (np.abs(sent[MEAN]) > top * (1 + LOOSE)).any():
        told = "the mean of a density is beyond what its column may hold"
    elif (variance <= 0).any() or (variance > np.maximum(top**2, 1.0) * (1 + LOOSE)).any():
        told = "the variance of a density is not above 0, or beyond what its column may hold"
    if told:
        raise UpdateError(f"{place}: {told}, so no table of records can have given it; ask the client to redo it.")


def decode(sent: Arrays, count: NDArray[np.int64]) -> Densities:
    """The densities that the arrays stand for."""
    weight, mean, variance = (np.asarray(sent[name], np.float64) for name in (WEIGHT, MEAN, VARIANCE))
    labels = sent[CLASS]
    return Densities(
        np.asarray(count, np.float64),
        {
            int(label): Mixture(weight[mine] / weight[mine].sum(), mean[mine], variance[mine])
            for label in np.unique(labels)
            for mine in [labels == label]
        },
    )


def sample(clients: Sequence[Densities], rows: int, *, rng: np.random.Generator) -> tuple[Matrix, NDArray[np.int64]]:
    """So many rows drawn from all clients, of each and of each of its classes its share: (rows, d), classes (rows,)."""
    parts = [(label, part, own.count[label]) for own in clients for label, part in sorted(own.mixtures.items())]
    share = np.array([count for *_, count in parts])
    drawn = rng.multinomial(rows, share / share.sum())
    found = [mixture.sample(part, int(number), rng=rng) for (_, part, _), number in zip(parts, drawn, strict=True)]
    labels = np.repeat([label for label, *_ in parts], drawn)
    return np.concatenate(found), labels


def shares(clients: Sequence[Densities], x: NDArray[np.floating]) -> Matrix:
    """Whose rows lie about each of the points x (n, d): each client's share (K, n) of them, columns sum to 1.

        r_k(x) = Σ_c n_kc · p_kc(x)^τ,        τ = min(1, TRUST / d)

    Were the densities true and τ = 1, Σ_k r_k(x) p_k(c | x) would be Bayes' rule for the rows of all clients. Among
    rows drawn from the densities that is what students learn from best; elsewhere `together` is right more often.
    """
    exponent = min(1.0, TRUST / x.shape[1])
    within = _within(clients)
    told = np.empty((len(clients), len(x)))
    for k, own in enumerate(clients):
        about = [
            np.log(own.count[label]) + exponent * mixture.log_density(_blended(part, within), x)
            for label, part in own.mixtures.items()
        ]
        told[k] = np.logaddexp.reduce(about, axis=0)
    powers = np.exp(told - told.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def together(
    clients: Sequence[Densities], said: Iterable[Matrix], x: NDArray[np.floating], temper: float = 1.0
) -> Matrix:
    """What clients say of rows x (n, d) together, each heard about a class where its rows of that class lie.

        p(c | x)  ∝  (Σ_k s_kc · p_kc(x)^(temper / d) · p_k(c | x))^SHARP,        s_kc = n_kc / Σ_k n_kc

    said  of each client in turn its probabilities (n, c), 0 for classes that it does not hold, or its values (n, 1)

    Returns probabilities (n, c), or values (n, 1), which are averaged by the same weights. Features depend on one
    another, which densities with diagonal covariances do not know, so all together are trusted like one. Each variance
    is averaged with the mean of all, which has the share SMOOTH: a Gaussian of few rows is too narrow, and what lies
    within a class is alike at all clients. A sum over clients that all say something is less sure than it is right.
    """
    count = np.stack([own.count for own in clients])
    share = count / np.maximum(count.sum(axis=0), 1.0)
    within = _within(clients)
    top = np.full((len(x), 1), -np.inf)
    total, heard = np.zeros((2, len(x), count.shape[1]))
    for own, mine, words in zip(clients, share, said, strict=True):
        about = np.full(total.shape, -np.inf)
        for label, part in own.mixtures.items():
            likely = mixture.log_density(_blended(part, within), x)
            about[:, label] = np.log(mine[label]) + temper / x.shape[1] * likely
        # The largest so far is divided out, so that far from all rows something is left of the nearest.
        before, top = top, np.maximum(top, about.max(axis=1, keepdims=True))
        scale, voice = np.exp(before - top), np.exp(about - top)
        total, heard = total * scale + voice * words, heard * scale + voice
    if count.shape[1] == 1:
        return np.asarray(total / np.maximum(heard, LEAST_VARIANCE))
    sharp = (total / np.maximum(total.max(axis=1, keepdims=True), 1e-300)) ** SHARP
    return np.asarray(sharp / np.maximum(sharp.sum(axis=1, keepdims=True), 1e-300))


def _within(clients: Sequence[Densities]) -> Matrix:
    """The mean variance (d,) of all components."""
    parts = [(own.count[label], part) for own in clients for label, part in own.mixtures.items()]
    rows = sum(count for count, _ in parts)
    return np.asarray(sum(count / rows * (part.weights @ part.variances) for count, part in parts))


def _blended(part: Mixture, within: Matrix) -> Mixture:
    return dataclasses.replace(part, variances=(1 - SMOOTH) * part.variances + SMOOTH * within)


def moments(own: Densities) -> tuple[Matrix, Matrix]:
    """Mean (d,) and mean square (d,) of a client's rows, as its densities tell them."""
    rows = own.count.sum()
    parts = [(own.count[label] / rows, part) for label, part in own.mixtures.items()]
    mean = sum(share * (part.weights @ part.means) for share, part in parts)
    square = sum(share * (part.weights @ (part.means**2 + part.variances)) for share, part in parts)
    return np.asarray(mean), np.asarray(square)
