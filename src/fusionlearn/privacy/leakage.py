"""The leakage page: what an update gives away, measured on the very arrays that are about to leave.

"Only statistics leave the device" is not privacy. The page says, before anything is written: how many records and
features, which classes and categories are held by few people, and how well somebody who reads the update could tell
whether a known record is in it.

The membership attack needs no training. An observer holds G = Σ z zᵀ over the client's rows and scores a known
record by its leverage zᵀG⁻¹z: a record that is in G has pulled G towards itself. Each row of a sample is scored
twice, with itself in the sum (h) and taken out of it (h / (1 - h), Sherman and Morrison), and the AUC is the chance
that the second score is above the first for a random pair: 0.5 is guessing, 1 is certainty. With no more rows than
features every record is its own direction and the AUC is exactly 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Data, as_numpy
from fusionlearn.encoder import X
from fusionlearn.fixed import one_blas_thread
from fusionlearn.method import Moments
from fusionlearn.problem import LABEL, Category, ClassLabel
from fusionlearn.types import SMALL_CELL, Task, Update

SAMPLE = 2_000  # rows scored by the attack


@dataclass(frozen=True)
class Cell:
    """A class or category and how many of the client's records are in it."""

    column: str
    value: str
    count: int


@dataclass(frozen=True)
class Attack:
    """How well the leverage attack tells members from others."""

    auc: float  # 0.5 guessing, 1 certain
    low: float  # 95 % interval
    high: float
    found: float  # share of members found at 1 % false alarms
    scored: int  # rows


@dataclass(frozen=True)
class Page:
    """What one update gives away; `lines` is the text people read."""

    records: int
    features: int
    small_cells: tuple[Cell, ...]  # held by 1 to 24 records
    attack: Attack | None  # None: the update holds no second moments for this attack to use
    notices: tuple[str, ...] = ()  # what is lean about this table, which is accepted all the same

    @property
    def has_small_cells(self) -> bool:
        return bool(self.small_cells) or self.records < SMALL_CELL

    def lines(self) -> list[str]:
        """The page, a sentence a line."""
        ratio = self.records / max(self.features, 1)
        told = [
            "Privacy mode 'none': the coordinator sees this update exactly as it is.",
            f"{self.records} records, {self.features} features: {ratio:.1f} records for each feature.",
        ]
        if self.small_cells:
            cells = ", ".join(f"{cell.column} = {cell.value} ({cell.count})" for cell in self.small_cells[:12])
            more = f" and {len(self.small_cells) - 12} more" if len(self.small_cells) > 12 else ""
            told.append(f"Held by fewer than {SMALL_CELL} people: {cells}{more}.")
        elif self.records < SMALL_CELL:
            told.append(f"Fewer than {SMALL_CELL} people in all.")
        else:
            told.append(f"Every class and category is held by at least {SMALL_CELL} people, or by nobody.")
        if any(cell.count == 1 for cell in self.small_cells):
            told.append("A class or category with one record can give that record's values away exactly.")
        if self.attack is None:
            told.append("The leverage attack finds no second moments in this update; other attacks were not tried.")
        else:
            attack = self.attack
            told.append(
                f"Whoever reads it and knows a record can tell whether it is in here: membership AUC {attack.auc:.3f} "
                f"(95 % interval {attack.low:.3f} to {attack.high:.3f}; 0.5 is guessing, 1 is certain), "
                f"{attack.found:.0%} of members found at 1 % false alarms."
            )
        return [*told, *(f"Notice: {notice}" for notice in self.notices)]

    def to_json(self) -> dict[str, Any]:
        """The page for machines."""
        return asdict(self) | {"small_cell": SMALL_CELL, "has_small_cells": self.has_small_cells, "lines": self.lines()}


class Witness:
    """Watches a client's rows go by (`run.client_pass(seen=...)`) and keeps what the page needs, in bounded memory."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.records = 0
        self.counts: dict[str, NDArray[np.int64]] = {}
        self.rows = np.empty((0, 0))  # the sample's encoded rows, its labels, and the numbers it was drawn by
        self.labels, self.draws = np.empty(0), np.empty(0)
        self.low = self.high = np.empty(0)  # range of every feature, to find constant ones
        self.rng = np.random.default_rng(0)  # which rows the attack is tried on; no secret depends on it

    def __call__(self, clean: Mapping[str, NDArray[Any]], encoded: Data) -> None:
        """Count one piece and keep a fair sample of its rows."""
        schema = self.task.schema
        for name, column in schema.columns.items():
            if isinstance(column, Category):
                self._count(name, clean[name], len(column.values))
        if isinstance(schema.label, ClassLabel):
            self._count(schema.label.column, clean[LABEL], len(schema.labels))
        x = as_numpy(encoded[X])
        y = as_numpy(encoded[LABEL])
        self._keep(x, y if y.ndim == 1 else y[:, 0])  # of a text its first piece: no attack here looks further
        if len(x):
            low, high = x.min(axis=0), x.max(axis=0)
            self.low = np.minimum(self.low, low) if self.records else low
            self.high = np.maximum(self.high, high) if self.records else high
        self.records += len(x)

    def _count(self, name: str, codes: NDArray[np.int64], size: int) -> None:
        counted = np.bincount(codes[codes >= 0], minlength=size)
        self.counts[name] = self.counts.get(name, np.zeros(size, np.int64)) + counted

    def _keep(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """A uniform sample of all rows so far: every row draws a number, the SAMPLE smallest stay."""
        draws = np.concatenate([self.draws, self.rng.random(len(x))])
        stay = np.sort(np.argsort(draws, kind="stable")[:SAMPLE])
        old, new = stay[stay < len(self.draws)], stay[stay >= len(self.draws)] - len(self.draws)
        parts = [self.rows[old]] if len(old) else []
        self.rows = np.concatenate([*parts, x[new].astype(np.float64)])
        self.labels = np.concatenate([self.labels[old], y[new].astype(np.float64)])
        self.draws = draws[stay]

    def page(self, update: Update) -> Page:
        """The page for the update that came out of these rows."""
        schema = self.task.schema
        cells = []
        for name, counts in self.counts.items():
            column = schema.columns.get(name)
            values = column.values if isinstance(column, Category) else schema.labels
            cells += [Cell(name, value, int(n)) for value, n in zip(values, counts, strict=True) if 0 < n < SMALL_CELL]
        moments = self.task.method.moments(update.arrays, self.task.problem)
        attack = None
        if moments is not None and moments.second is not None and len(self.rows):
            attack = leverage_attack(moments, self.rows, self.labels)
        return Page(self.records, self.task.problem.num_features, tuple(cells), attack, tuple(self._notices()))

    def _notices(self) -> Iterator[str]:
        schema, names = self.task.schema, self.task.problem.feature_names
        if self.records == 1:
            yield "one record only: its values can be read off the update."
        elif self.records < len(names):
            yield f"fewer records ({self.records}) than features ({len(names)})."
        classes = self.counts.get(schema.label.column)
        if classes is not None and (classes > 0).sum() == 1:
            yield f"every record is of class '{schema.labels[int(classes.argmax())]}'."
        constant = [names[j] for j in np.flatnonzero(self.low == self.high)] if self.records > 1 else []
        if constant:
            shown = ", ".join(constant[:8]) + (", …" if len(constant) > 8 else "")
            yield f"the same value in every record: {shown}."


def leverage_attack(moments: Moments, x: NDArray[np.float64], y: NDArray[Any]) -> Attack:
    """How well leverage in the published second moments tells these member rows from the same rows left out.

    moments  what the update tells; `second` is (d+1, d+1), or (d+1,) when only the diagonal travels
    x        (m, d) member rows, encoded;  y (m,) their classes, for row weights
    """
    assert moments.second is not None
    z = np.hstack([np.ones((len(x), 1)), x])
    weight = np.ones(len(x)) if moments.class_weight is None else moments.class_weight[y.astype(int)]
    with np.errstate(divide="ignore", invalid="ignore"), one_blas_thread():
        if moments.second.ndim == 1:
            inside = np.where(moments.second > 0, z**2 / moments.second, 0.0).sum(axis=1)
            left = moments.second - weight[:, None] * z**2
            outside = np.where(left > 1e-9 * moments.second, z**2 / left, np.where(z == 0, 0.0, np.inf)).sum(axis=1)
        else:
            inside = _leverage(moments.second, z)
            share = np.minimum(weight * inside, 1.0)
            outside = np.where(share >= 1 - 1e-6, np.inf, inside / (1 - share))
    return attack(inside, outside)


def _leverage(gram: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """zᵀG⁺z for each row, on the directions that G has."""
    scale = np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1.0))
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    # The sums are rounded, so a direction nobody has shows a tiny eigenvalue instead of 0.
    used = values > max(values.max(), 0.0) * 1e-9
    return np.asarray((((z / scale) @ vectors[:, used]) ** 2 / values[used]).sum(axis=1))


def attack(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> Attack:
    """AUC with its 95 % interval, and members found at 1 % false alarms. Low scores say "member"."""
    n = len(inside)
    ordered = np.sort(inside)
    wins = np.searchsorted(ordered, outside, "left") + np.searchsorted(ordered, outside, "right")
    auc = float(wins.mean() / (2 * n))
    # Hanley, McNeil, The Meaning and Use of the Area under a ROC Curve, 1982
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = np.sqrt(max(0.0, (auc * (1 - auc) + (n - 1) * (q1 + q2 - 2 * auc**2)) / n**2))
    threshold = np.sort(outside)[int(0.01 * n)]
    found = float((inside < threshold).mean())
    return Attack(auc, max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error), found, n)
