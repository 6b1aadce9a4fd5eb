"""Which pieces of a text became which pieces of its translation, and the pairs of phrases that follow from it.

Each piece written is taken to come from one piece read, or from none. How likely the one comes from the other is
learned from pairs of texts alone, by expectation and maximisation (EM): at first from the links counted in public
texts, then from what the texts themselves make likely. A link is the likelier the less it leaves the diagonal. This is
done in both directions; what both agree on is kept and grown by neighbours that one of them has.

A pair of phrases is a run of pieces read and a run of pieces written with links between them and none out of them.

Arrays are texts (n, length) of numbers of pieces, NOTHING after the end, END not among them.

Source   Dyer, Chahuneau, Smith, A Simple, Fast, and Effective Reparameterization of IBM Model 2, 2013; Och, Ney, A
         Systematic Comparison of Various Statistical Alignment Models, 2003; Koehn, Och, Marcu, Statistical
         Phrase-Based Translation, 2003
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionlearn import counted
from fusionlearn.counted import Table
from fusionlearn.problem import FIRST_PIECE, NOTHING

BLOCK = 2**22  # pairs of places that are looked at together
KEPT = 2**25  # pairs of places whose numbers are kept from pass to pass; more are computed anew, to spare memory
TENSION = 4.0  # how quickly a link gets unlikely away from the diagonal
NOWHERE = 0.08  # how likely a piece written comes from none
SEEN = 0.01  # what counts for a pair of pieces that stand in one pair of texts, before anything else is known
EVEN = 1e-9  # a difference that may be rounding: those so near to the best are links as well
OTHERS = 1.0  # what counts for all pairs that one piece might be in, before anything else is known
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))

Texts = NDArray[np.int64]
Links = NDArray[np.bool_]  # (n, source length, target length)


def blocks(source: Texts, target: Texts) -> Iterator[slice]:
    """Rows that are looked at together."""
    rows = max(1, BLOCK // (source.shape[1] * target.shape[1]))
    for start in range(0, len(source), rows):
        yield slice(start, start + rows)


class Linker:
    """Finds the links of texts, after having learned from them."""

    def __init__(self, source: Texts, target: Texts, known: Table, rounds: int) -> None:
        """known   links of single pieces (source, target) counted before, from public texts: what it begins with
        rounds  passes of EM over the texts; 0: what is known alone decides
        """
        self.forth = _Chances(source, target, known, rounds)
        self.back = _Chances(target, source, counted.tally(known.rows[:, ::-1], known.count), rounds)

    def links(self, source: Texts, target: Texts) -> Links:
        """The links of pairs of texts, some of those it has learned from."""
        return grown(self.forth.best(source, target), self.back.best(target, source).transpose(0, 2, 1))


@dataclass(frozen=True)
class _Cells:
    """Every piece read beside every piece written of one pair of texts, in flat arrays."""

    row: NDArray[np.int64]
    read: NDArray[np.int64]  # places
    written: NDArray[np.int64]
    group: NDArray[np.int64]  # which piece written, of all
    pair: NDArray[np.int64]  # which pair of pieces, of all
    near: NDArray[np.float64]  # how likely by place


class _Chances:
    """How likely a piece written comes from a piece read, for the pairs of pieces that occur in some texts."""

    def __init__(self, source: Texts, target: Texts, known: Table, rounds: int) -> None:
        self.size = int(max(source.max(initial=0), target.max(initial=0), known.rows.max(initial=0))) + 1
        parts = [self._keys(source[rows], target[rows]) for rows in blocks(source, target)]
        self.keys = np.unique(np.concatenate([np.unique(part) for part in parts]))
        self.heads = self.keys // self.size
        start = np.asarray(SEEN + _looked_up(self.keys, known, self.size), np.float64)
        weights = known.count.astype(np.float64)
        totals = np.asarray(np.bincount(known.rows[:, 0], weights=weights, minlength=self.size), np.float64)
        common = np.bincount(known.rows[:, 1], weights=weights, minlength=self.size) + 1e-9
        if rounds:
            common += np.bincount(target[target != NOTHING], minlength=self.size)
        self.alone = np.asarray(NOWHERE * common / common.sum(), np.float64)  # how likely each piece comes from none
        self.likely = self._shares(start, start, totals)
        fits = sum(map(len, parts)) <= KEPT
        kept = [self._cells(source[rows], target[rows]) for rows in blocks(source, target)] if fits and rounds else None
        for _ in range(rounds):
            count = start.copy()
            for number, rows in enumerate(blocks(source, target)):
                cells = kept[number] if kept is not None else self._cells(source[rows], target[rows])
                likely, norm = self._judged(cells, target[rows])
                count += np.bincount(cells.pair, weights=likely / norm[cells.group], minlength=len(self.keys))
            self.likely = self._shares(count, start, totals)

    def best(self, source: Texts, target: Texts) -> Links:
        """The likeliest piece read for each piece written, where one is likelier than none."""
        found = np.zeros((len(source), source.shape[1], target.shape[1]), bool)
        cells = self._cells(source, target)
        likely = self.likely[cells.pair] * cells.near
        best = self.alone[target].reshape(-1)
        np.maximum.at(best, cells.group, likely)
        chosen = likely >= best[cells.group] * (1 - EVEN)
        found[cells.row[chosen], cells.read[chosen], cells.written[chosen]] = True
        return found

    def _keys(self, source: Texts, target: Texts) -> NDArray[np.int64]:
        there = (source != NOTHING)[:, :, None] & (target != NOTHING)[:, None, :]
        return np.asarray((source[:, :, None] * self.size + target[:, None, :])[there], np.int64)

    def _cells(self, source: Texts, target: Texts) -> _Cells:
        here, there = source != NOTHING, target != NOTHING
        row, read, written = np.nonzero(here[:, :, None] & there[:, None, :])
        group = row * target.shape[1] + written
        pair = np.searchsorted(self.keys, source[row, read] * self.size + target[row, written])
        near = _near(row, read, written, group, here.sum(axis=1), there.sum(axis=1))
        return _Cells(row, read, written, group, pair, near)

    def _judged(self, cells: _Cells, target: Texts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How likely each cell is a link, and what that sums to for each piece written, none included."""
        likely = self.likely[cells.pair] * cells.near
        return likely, np.bincount(cells.group, weights=likely, minlength=target.size) + self.alone[target].reshape(-1)

    def _shares(
        self, count: NDArray[np.float64], start: NDArray[np.float64], totals: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The share of each pair of pieces among those of its piece read, also known ones that do not occur here."""
        whole = totals + OTHERS + np.bincount(self.heads, weights=count - start, minlength=len(totals))
        return np.asarray(count / whole[self.heads], np.float64)


def _near(row: Texts, read: Texts, written: Texts, group: Texts, long: Texts, wide: Texts) -> NDArray[np.float64]:
    """How likely each place read is for a place written, places alone considered; sums to 1 − NOWHERE for each."""
    away = np.abs((read + 0.5) / long[row] - (written + 0.5) / wide[row])
    near = np.exp(-TENSION * away)
    norm = np.bincount(group, weights=near)
    return np.asarray((1.0 - NOWHERE) * near / norm[group])


def _looked_up(keys: NDArray[np.int64], known: Table, size: int) -> NDArray[np.float64]:
    """The counts of pairs of pieces in a table, 0 where it lacks them."""
    if not len(known.count):
        return np.zeros(len(keys))
    held = known.rows[:, 0].astype(np.int64) * size + known.rows[:, 1]
    at = np.minimum(np.searchsorted(held, keys), len(held) - 1)
    return np.where(held[at] == keys, known.count[at], 0).astype(np.float64)


def grown(forth: Links, back: Links) -> Links:
    """What both directions say, and its neighbours that one says, at pieces without link (grow-diag-final-and)."""
    either: Links = forth | back
    found: Links = forth & back
    while True:
        before = int(found.sum())
        for down, right in NEIGHBOURS:
            read, written = _bare(found)
            found = np.asarray(found | (_moved(found, down, right) & either & (read | written)))
        if int(found.sum()) == before:
            break
    for one in (forth, back):
        read, written = _bare(found)
        found = np.asarray(found | (one & read & written))
    return found


def _bare(found: Links) -> tuple[Links, Links]:
    """Which pieces read, and which ones written, have no link yet."""
    return np.asarray(~found.any(axis=2, keepdims=True)), np.asarray(~found.any(axis=1, keepdims=True))


def _moved(array: Links, down: int, right: int) -> Links:
    """The array one place further in a direction, False where nothing comes from."""
    result = np.zeros_like(array)
    height, width = array.shape[1:]
    result[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = array[
        :, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return result


def linked(source: Texts, target: Texts, found: Links) -> Table:
    """How often which piece is linked to which: rows (source, target)."""
    row, read, written = np.nonzero(found)
    return counted.tally(_plain(np.stack([source[row, read], target[row, written]], axis=1)))


def phrases(source: Texts, target: Texts, found: Links, longest: int) -> Table:
    """How often which pair of phrases of up to `longest` pieces a side occurs: rows of source, a NOTHING, target."""
    return counted.tally(_phrases(source, target, found, longest))


def _phrases(source: Texts, target: Texts, found: Links, longest: int) -> NDArray[np.uint16]:
    """All pairs of phrases of some texts, as rows."""
    height, width = found.shape[1:]
    first = np.where(found.any(axis=2), found.argmax(axis=2), width)  # of the pieces written a piece read is linked to
    last = np.where(found.any(axis=2), width - 1 - found[:, :, ::-1].argmax(axis=2), -1)
    top = np.where(found.any(axis=1), found.argmax(axis=1), height)
    bottom = np.where(found.any(axis=1), height - 1 - found[:, ::-1].argmax(axis=1), -1)
    tops, bottoms = _runs(top, longest, np.minimum, height), _runs(bottom, longest, np.maximum, -1)
    free = ~found.any(axis=1) & (target != NOTHING)
    rows: list[NDArray[np.uint16]] = []
    low, high = first, last
    for long in range(1, longest + 1):
        if long > height:
            break
        if long > 1:
            low, high = np.minimum(low[:, :-1], first[:, long - 1 :]), np.maximum(high[:, :-1], last[:, long - 1 :])
        text, begin = np.nonzero((high >= 0) & (high - low < longest) & (source[:, long - 1 :] != NOTHING))
        left, right = low[text, begin], high[text, begin]
        inside = (tops[right - left, text, left] >= begin) & (bottoms[right - left, text, left] < begin + long)
        text, begin, left, right = (part[inside] for part in (text, begin, left, right))
        for one, start, start_target, end_target in _widened(free, text, begin, left, right, longest):
            rows.append(_rows(source[one], target[one], start, long, start_target, end_target, longest))
    return np.concatenate(rows) if rows else np.zeros((0, 2 * longest + 1), np.uint16)


def _runs(values: Texts, longest: int, best: np.ufunc, empty: int) -> NDArray[np.int64]:
    """(longest, n, length): the least or greatest of the values from a place on, 1, 2, … of them."""
    found = [values]
    for more in range(1, longest):
        later = np.full_like(values, empty)
        later[:, : max(values.shape[1] - more, 0)] = values[:, more:]
        found.append(best(found[-1], later))
    return np.stack(found)


def _widened(
    free: Links, text: Texts, begin: Texts, left: Texts, right: Texts, longest: int
) -> Iterator[tuple[Texts, Texts, Texts, Texts]]:
    """Each pair of phrases, and those with pieces without link before and after it."""
    one, start, first, last = text, begin, left, right
    while len(one):
        grow = (one, start, first, last)
        while len(grow[0]):
            yield grow
            grow = _stepped(free, grow, longest, after=True)
        one, start, first, last = _stepped(free, (one, start, first, last), longest, after=False)


def _stepped(
    free: Links, spans: tuple[Texts, Texts, Texts, Texts], longest: int, *, after: bool
) -> tuple[Texts, Texts, Texts, Texts]:
    """Spans one piece wider on one side, those that can be."""
    one, start, first, last = spans
    first, last = (first, last + 1) if after else (first - 1, last)
    edge = last if after else first
    fits = (edge >= 0) & (edge < free.shape[1]) & (last - first < longest)
    fits &= free[one, np.clip(edge, 0, free.shape[1] - 1)]
    return one[fits], start[fits], first[fits], last[fits]


def _rows(
    source: Texts, target: Texts, start: Texts, long: int, first: Texts, last: Texts, longest: int
) -> NDArray[np.uint16]:
    """Rows of source, NOTHING, target; those with a piece that is none of the vocabulary are left out."""
    rows = np.zeros((len(source), 2 * longest + 1), np.int64)
    here = np.arange(len(source))[:, None]
    rows[:, :long] = source[here, start[:, None] + np.arange(long)]
    at = first[:, None] + np.arange(longest)
    taken = target[here, np.minimum(at, target.shape[1] - 1)]
    rows[:, long + 1 : long + 1 + longest] = np.where(at <= last[:, None], taken, NOTHING)
    return _plain(rows)


def _plain(rows: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Rows without BEGIN, END and UNKNOWN."""
    special = (rows > NOTHING) & (rows < FIRST_PIECE)
    return rows[~special.any(axis=1)].astype(np.uint16)
