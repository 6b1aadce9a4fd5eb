"""Texts answered with texts: phrases and their translations counted, and the counts added up.

A client finds which pieces of its texts became which pieces of the answers, beginning with what public texts have
taught (`fusionlearn pretrain`), and sends how often which phrase is translated by which, how often single pieces are
linked, and which runs of pieces its answers have. Counts of many clients are added up, so what is fused is what one
client with all their texts would have counted, but for links found where more texts would have found others. The
model translates phrase by phrase; how good a translation is, is a weighted sum of logs (`language` to `jump` below).

The weights that are given by default were chosen for German captions in English, on texts held apart; with other
texts, try others on pairs of your own. Before the texts the encoder 'subwords' makes numbers of pieces of them; a piece
that nobody has translated is copied.

Update
    count            ()            int64   rows
    pairs.…          ≤ most rows           how often a phrase (up to `longest` pieces) is translated by another: rows of
                                           the one's pieces, a 0 and the other's, sorted and coded as in `counted`
    links.…          ≤ most rows           how often a piece is linked to another
    runs.…           ≤ most rows           how often a run of up to `order` pieces occurs in the answers
Model
    pairs, links, runs  the sums, coded in the same way; the public counts stay in the prior
Cost     upload about 12 bytes a different row, for captions 700 bytes each, more than the texts themselves; client
         1 ms a caption; server a sort of all rows; predict 1 s to begin, then about 10 ms a caption. Needs no torch
Privacy  what is sent is fragments of texts: a phrase that occurs once is read in it, and fragments that overlap can be
         put together to whole sentences. `least` above 1 keeps rare ones back, which costs part of what is learned;
         no bound on what one record changes
Source   Koehn, Och, Marcu, Statistical Phrase-Based Translation, 2003; links: Dyer, Chahuneau, Smith, A Simple, Fast,
         and Effective Reparameterization of IBM Model 2, 2013; more in `alignment` and `decoding`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn import alignment, arrays, counted, decoding
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.counted import Table
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.method import Method, Moments
from fusionlearn.problem import BEGIN, END, FIRST_PIECE, NOTHING, Problem

PREFIX = "phrases."  # of prior arrays
TABLES = ("pairs", "links", "runs")
WEIGHTS = tuple(item.name for item in fields(decoding.Weights))
BITS = 63  # places of a text that a search looks at together

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Phrases(Method):
    name: ClassVar[str] = "phrases"
    TEXTS: ClassVar[bool] = True

    longest: int = 6  # the most pieces of a phrase
    order: int = 4  # the most pieces of a run of the language model, to 4
    rounds: int = 5  # passes over a client's texts to find links; 0: by what public texts have taught alone
    least: int = 1  # how often something must occur at a client to be sent
    most: int = 500_000  # rows of each table that a client sends, those that occur most often
    public: float = 0.05  # what a count of public texts weighs beside a client's
    beam: int = 16  # beginnings kept side by side while answering
    reach: int = 4  # pieces that a phrase may be taken ahead of its turn
    language: float = 0.37  # weight of how likely the answer's pieces follow one another
    whole: float = 0.31  # weight of how likely phrases are translated so
    whole_back: float = 0.13  # the other way
    links: float = 0.075  # weight of how likely pieces are translated so
    links_back: float = 0.036  # the other way
    phrase: float = -0.03  # added for each phrase
    piece: float = 0.61  # added for each piece of the answer
    jump: float = 0.42  # taken for each piece that a phrase is away from where the one before it ended

    def __post_init__(self) -> None:
        if not (1 <= self.longest <= 8 and 2 <= self.order <= 4):
            raise SettingsError("phrases: longest may be 1 to 8, order 2 to 4.")
        if not (0 <= self.rounds <= 100 and 1 <= self.least <= 2**31 and 1 <= self.most <= 2**24):
            raise SettingsError("phrases: rounds may be 0 to 100, least 1 or more, most 1 to 16777216.")
        if not (1 <= self.beam <= 1000 and 0 <= self.reach <= BITS - 2 * self.longest):
            raise SettingsError(f"phrases: beam may be 1 to 1000, reach 0 to {BITS - 2 * self.longest}.")
        if not 0 <= self.public <= 1:
            raise SettingsError(f"phrases: public is {self.public}; it may be 0 to 1.")
        if not all(-100 <= getattr(self, name) <= 100 for name in WEIGHTS):
            raise SettingsError("phrases: every weight may be -100 to 100.")

    @property
    def additive(self) -> bool:
        """Counts are, the arrays that hold them are not: every client has other rows."""
        return False

    @property
    def exact(self) -> bool:
        """Not where clients look for links in their own texts, and rows beyond `most` are left out."""
        return False

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        if problem.kind != "text" or problem.num_classes <= FIRST_PIECE:
            raise SettingsError("phrases: the label must be text, and the encoder 'subwords' must make pieces of it.")
        specs = {"count": ArraySpec("int64", (), 1, problem.max_records)}
        for name, width in self._widths().items():
            specs |= counted.declare(name, width, problem.num_classes, self.most)
        return specs

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        tables = self._counted(data, self._known(prior))
        return {"count": np.asarray(len(data["x"]), np.int64)} | _coded(tables)

    def fuse(
        self,
        summaries: Sequence[Arrays],
        problem: Problem,
        prior: Arrays,
        *,
        public: Data | None = None,
        noise_std: float = 0.0,
        rng: np.random.Generator,
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        tables = {
            name: counted.merged([counted.decode(name, summary, width, "an update") for summary in summaries])
            for name, width in self._widths().items()
        }
        records = sum(int(summary["count"]) for summary in summaries)
        return _coded(tables), {"records": records} | {name: len(table.count) for name, table in tables.items()}

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        try:
            own, known = self._tables(model, "", "the model"), self._known(prior)
        except UpdateError as error:
            raise ValueError(str(error)) from error  # which `run` tells as a model whose arrays do not fit
        source = _texts(data["x"])
        weights = decoding.Weights(**{name: getattr(self, name) for name in WEIGHTS})
        language = decoding.Language(own["runs"], known["runs"], self.public, problem.num_classes)
        table = decoding.pairs(
            (own["pairs"], own["links"]), (known["pairs"], known["links"]), self.public, weights,
            decoding.wanted(source, self.longest),
        )  # fmt: skip
        longest = problem.num_features
        found = decoding.translate(source, table, language, weights, longest, beam=self.beam, reach=self.reach)
        return {"piece": found}

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: sorted rows of the form they should have, no more of them than texts can hold."""
        arrays.check(summary, self.declare(problem, prior), place)
        told = ""
        for name, table in self._tables(summary, "", place).items():
            if not _FORMS[name](table.rows.astype(np.int64)):
                told = f"'{name}' holds rows that are none of its kind"
            elif table.count.max(initial=0) > int(summary["count"]) * problem.num_features**2:
                told = f"'{name}' counts more than {int(summary['count'])} texts can hold"
            elif table.count.min(initial=self.least) < self.least:
                told = f"'{name}' holds what occurs less than {self.least} times, the least the task allows"
        if told:
            raise UpdateError(f"{place}: {told}, so no texts can have given it; ask the client to redo it.")

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """The counts of public pairs of texts."""
        return _coded(self._counted(data, self._empty()), PREFIX)

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        return Moments(float(summary["count"]), None, None, None)

    def _widths(self) -> dict[str, int]:
        """Numbers in a row of each table."""
        return {"pairs": 2 * self.longest + 1, "links": 2, "runs": self.order}

    def _counted(self, data: Data, known: dict[str, Table]) -> dict[str, Table]:
        """What texts and their answers hold."""
        source, target = _texts(data["x"]), _texts(data["y"])
        linker = alignment.Linker(source, target, known["links"], self.rounds)
        pairs, links = [counted.empty(2 * self.longest + 1)], [counted.empty(2)]
        for rows in alignment.blocks(source, target):
            found = linker.links(source[rows], target[rows])
            pairs.append(alignment.phrases(source[rows], target[rows], found, self.longest))
            links.append(alignment.linked(source[rows], target[rows], found))
        runs = decoding.runs(target, self.order)
        tables = {"pairs": counted.merged(pairs), "links": counted.merged(links), "runs": runs}
        return {name: table.kept(table.count >= self.least).capped(self.most) for name, table in tables.items()}

    def _tables(self, held: Arrays, prefix: str, place: str) -> dict[str, Table]:
        return {name: counted.decode(prefix + name, held, width, place) for name, width in self._widths().items()}

    def _empty(self) -> dict[str, Table]:
        return {name: counted.empty(width) for name, width in self._widths().items()}

    def _known(self, prior: Arrays) -> dict[str, Table]:
        """The public counts. Errors: SettingsError."""
        if not any(name.startswith(PREFIX) for name in prior):
            return self._empty()
        try:
            return self._tables(prior, PREFIX, "the prior")
        except (KeyError, UpdateError) as error:
            raise SettingsError(
                "phrases: the prior's counts do not fit the task's settings: pre-train the task again."
            ) from error


def _coded(tables: Mapping[str, Table], prefix: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of all tables."""
    parts = [counted.encode(prefix + name, table) for name, table in tables.items()]
    return {name: array for part in parts for name, array in part.items()}


def _texts(cells: Any) -> Numbers:
    """Numbers of pieces without END, as few columns as hold them all."""
    numbers = np.asarray(as_numpy(cells), np.int64)
    numbers = np.where(numbers == END, NOTHING, numbers)
    return numbers[:, : max(1, int((numbers != NOTHING).sum(axis=1).max(initial=1)))]


def _are_pairs(rows: Numbers) -> bool:
    """Whether every row is pieces, a 0 and pieces."""
    there = rows != NOTHING
    ends = there[:, :-1] & ~there[:, 1:]
    parts = there[:, 0] & (ends.sum(axis=1) + there[:, -1] == 2)
    longest = rows.shape[1] // 2
    first, second = (~there).argmax(axis=1), there.sum(axis=1)
    return bool((parts & (first <= longest) & (second - first <= longest)).all()) and _are_pieces(rows[there])


def _are_runs(rows: Numbers) -> bool:
    """Whether every row is pieces, possibly after BEGIN and before END."""
    there = rows != NOTHING
    unbroken = there[:, 0].all() and not (there[:, 1:] & ~there[:, :-1]).any()
    long = there.sum(axis=1)
    begins, ends = rows[:, 1:] == BEGIN, (rows == END) & (np.arange(rows.shape[1]) != long[:, None] - 1)
    inner = there & (rows != BEGIN) & (rows != END)
    return bool(unbroken and not begins.any() and not ends.any()) and _are_pieces(rows[inner])


def _are_pieces(numbers: Numbers) -> bool:
    return bool((numbers >= FIRST_PIECE).all())


_FORMS = {"pairs": _are_pairs, "links": _are_pieces, "runs": _are_runs}
