"""Translating by phrases: a table of pairs of phrases, a language model, and the search for the best translation.

A translation is judged by a weighted sum of logs: how likely its phrases translate those of the text, both ways, as
wholes and piece by piece; how likely its pieces follow one another (language model); how far phrases are out of order;
and the numbers of phrases and of pieces. The search goes from nothing to the whole text, phrase by phrase, and
keeps the best `beam` beginnings that cover equally many pieces; what the rest of a text will cost is estimated. Many
texts are translated side by side.

Public counts weigh less than private ones, and what only they hold is discounted as much less.

Source   Koehn, Och, Marcu, Statistical Phrase-Based Translation, 2003; Koehn, Pharaoh, 2004; smoothing: Kneser, Ney,
         Improved Backing-off for M-gram Language Modeling, 1995; Foster, Kuhn, Johnson, Phrasetable Smoothing for
         Statistical Machine Translation, 2006
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionlearn import counted
from fusionlearn.counted import Table
from fusionlearn.problem import BEGIN, END, FIRST_PIECE, NOTHING, UNKNOWN

DISCOUNT = 0.75  # taken from every count of the language model
LESS = 0.5  # taken from every count of a pair of phrases
LEAST = 1e-7  # no link of pieces is less likely
OPTIONS = 20  # translations kept of one phrase
TEXTS = 64  # texts translated side by side
WIDTH = 16  # bits of a piece
FAR = 1e9  # of a log: never chosen
COPIED = -10.0  # the log-likelihood of a piece nobody has translated, which is copied

Numbers = NDArray[np.int64]
Logs = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """What counts how much in a translation; sums of logs."""

    language: float  # of the language model
    whole: float  # phrases written given those read
    whole_back: float  # the other way
    links: float  # pieces written given those read
    links_back: float  # the other way
    phrase: float  # for each phrase
    piece: float  # for each piece written
    jump: float  # less for each place that a phrase is away from where the one before it ended


# --- counts of runs of pieces ---------------------------------------------------------------------------------------


def runs(target: Numbers, order: int) -> Table:
    """How often each run of up to `order` pieces occurs in texts (n, length), BEGIN before and END after each."""
    texts = np.full((len(target), target.shape[1] + 2), NOTHING, np.int64)
    texts[:, 0], texts[:, 1:-1] = BEGIN, target
    texts[np.arange(len(target)), (target != NOTHING).sum(axis=1) + 1] = END
    parts = []
    for long in range(1, order + 1):
        if long <= texts.shape[1]:
            found = np.lib.stride_tricks.sliding_window_view(texts, long, axis=1).reshape(-1, long)
            found = found[(found[:, -1] != NOTHING) & ~(found == UNKNOWN).any(axis=1) & (found[:, -1] != BEGIN)]
            parts.append(np.pad(found, ((0, 0), (0, order - long))).astype(np.uint16))
    return counted.tally(np.concatenate(parts))


# --- the language model ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """Runs of one length: keys in ascending order."""

    keys: NDArray[np.uint64]
    log: Logs  # of the last piece after the others
    heads: NDArray[np.uint64]  # keys of runs one shorter, without the last piece
    back: Logs  # log of what is left for pieces never seen after them


class Language:
    """How likely a piece is after others: counts with an absolute discount, and shorter runs for what it took away.

    For shorter runs it counts after how many different pieces they occur, not how often (Kneser, Ney).
    """

    def __init__(self, private: Table, public: Table, weight: float, size: int) -> None:
        """public is counted `weight` times; size is the number of pieces."""
        self.order = private.rows.shape[1]
        grams = _weighed(private, public, weight)
        self.orders: list[_Order] = []
        length = (grams.rows != NOTHING).sum(axis=1)
        self.single = np.full(size, -np.log(size))
        for long in range(1, self.order + 1):
            here = length == long
            keys = _keys(grams.rows[here, :long])
            count, share = grams.count[here], grams.share[here]
            if long < self.order:
                count = self._continued(grams, length, long, keys, count)
            self._add(keys, count, share, long)

    def _continued(self, grams: _Grams, length: Numbers, long: int, keys: NDArray[np.uint64], count: Logs) -> Logs:
        """Counts of how many pieces there are before a run; those at the beginning of texts stay as they are."""
        longer = length == long + 1
        tails = _keys(grams.rows[longer, 1 : long + 1])
        at = np.searchsorted(keys, tails)
        fits = (at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == tails) if len(keys) else np.zeros(0, bool)
        before = np.bincount(at[fits], weights=grams.share[longer][fits], minlength=len(keys))
        begins = keys >> np.uint64(WIDTH * (long - 1)) == BEGIN
        kept = begins | (before == 0)
        return np.where(kept, count, before)

    def _add(self, keys: NDArray[np.uint64], count: Logs, share: Logs, long: int) -> None:
        """Take up the runs of one length; the shorter ones are there already."""
        taken = DISCOUNT * np.minimum(share, count)
        if long == 1:
            total = max(count.sum(), 1e-9)
            left = max(taken.sum() / total, 1e-3) if len(keys) else 1.0
            self.single = np.full(len(self.single), left / len(self.single))
            self.single[keys.astype(np.int64)] += (count - taken) / total
            self.single = np.log(self.single)
            return
        heads = keys >> np.uint64(WIDTH)
        groups, group = np.unique(heads, return_inverse=True)
        total = np.bincount(group, weights=count, minlength=len(groups))
        left = np.bincount(group, weights=taken, minlength=len(groups)) / np.maximum(total, 1e-300)
        left = np.clip(left, 1e-6, 1.0)
        mask = np.uint64((1 << (WIDTH * (long - 2))) - 1)
        piece = (keys & np.uint64((1 << WIDTH) - 1)).astype(np.int64)
        lower = np.exp(self.log(heads & mask, piece, long - 1))
        log = np.log((count - taken) / total[group] + left[group] * lower)
        self.orders.append(_Order(keys, log, groups, np.log(left)))

    def log(self, before: NDArray[np.uint64], piece: Numbers, order: int | None = None) -> Logs:
        """Log-probabilities of pieces after those before them, packed; of runs of up to `order` pieces."""
        result = np.zeros(len(piece))
        open_ = np.arange(len(piece))
        last = piece.astype(np.uint64)
        for long in range(min(order or self.order, len(self.orders) + 1), 1, -1):
            held = self.orders[long - 2]
            head = before[open_] & np.uint64((1 << (WIDTH * (long - 1))) - 1)
            hit, at = _found(held.keys, (head << np.uint64(WIDTH)) | last[open_])
            result[open_[hit]] += held.log[at[hit]]
            open_, head = open_[~hit], head[~hit]
            hit, at = _found(held.heads, head)
            result[open_[hit]] += held.back[at[hit]]
        result[open_] += self.single[piece[open_]]
        return result


def _found(keys: NDArray[np.uint64], asked: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], Numbers]:
    """Which of the asked keys are held, and where."""
    if not len(keys):
        return np.zeros(len(asked), bool), np.zeros(len(asked), np.int64)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return keys[at] == asked, at


def _keys(rows: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Rows of up to four pieces, each row one number."""
    keys = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        keys = (keys << np.uint64(WIDTH)) | column.astype(np.uint64)
    return keys


@dataclass(frozen=True)
class _Grams:
    """Rows with counts that need not be whole, and how much of a row each is: 1, or less where only public texts
    hold it.
    """

    rows: NDArray[np.uint16]
    count: Logs
    share: Logs


def _weighed(private: Table, public: Table, weight: float) -> _Grams:
    """Private counts, and public ones that weigh so much."""
    both = counted.merged([Table(private.rows, private.count << 32), public])  # 32 bits for each
    own, other = both.count >> 32, both.count & (2**32 - 1)
    kept = (own > 0) | (weight > 0)
    count = own + weight * other
    return _Grams(both.rows[kept], count[kept], np.where(own > 0, 1.0, weight)[kept])


# --- the table of phrases -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrases:
    """Pairs of phrases with what they are worth, sorted by phrase read."""

    source: NDArray[np.uint64]  # (n, words) phrases read, as `counted.words` writes them
    target: Numbers  # (n, longest) pieces written, NOTHING after them
    long: Numbers  # pieces written
    worth: Logs  # (n,) all but the language model


def pairs(
    private: Sequence[Table], public: Sequence[Table], weight: float, weights: Weights, wanted: NDArray[np.uint64]
) -> Phrases:
    """What the pairs of phrases that the texts need are worth.

    private, public  pairs of phrases, and links of pieces
    wanted           (m, words) phrases that occur in the texts, in ascending order
    """
    grams = _weighed(private[0], public[0], weight)
    longest = grams.rows.shape[1] // 2
    split = (grams.rows == NOTHING).argmax(axis=1)
    at = np.arange(longest)
    source = np.where(at < split[:, None], grams.rows[:, :longest], 0).astype(np.int64)
    target = np.take_along_axis(np.pad(grams.rows, ((0, 0), (0, longest))), split[:, None] + 1 + at, axis=1).astype(
        np.int64
    )
    heads, goals = counted.words(source.astype(np.uint16)), counted.words(target.astype(np.uint16))
    forth = _whole(grams, heads)
    back = _whole(grams, goals)
    needed = _among(heads, wanted)
    source, target, heads = source[needed], target[needed], heads[needed]
    links = _weighed(private[1], public[1], weight)
    worth = weights.whole * forth[needed] + weights.whole_back * back[needed]
    worth += weights.links * _pieces(links, source, target, False)
    worth += weights.links_back * _pieces(links, target, source, True)
    long = (target != NOTHING).sum(axis=1)
    worth += weights.phrase + weights.piece * long
    return Phrases(heads, target, long, worth)


def _whole(grams: _Grams, by: NDArray[np.uint64]) -> Logs:
    """Log of the share each pair has among those with one side in common, a discount taken."""
    group = _groups(by)
    total = np.bincount(group, weights=grams.count)
    return np.asarray(np.log(grams.count - LESS * np.minimum(grams.share, grams.count)) - np.log(total[group]))


def _groups(keys: NDArray[np.uint64]) -> Numbers:
    """A number for each row, the same for equal rows."""
    order = np.lexsort(keys.T[::-1])
    new = np.ones(len(keys), bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    group = np.empty(len(keys), np.int64)
    group[order] = np.cumsum(new) - 1
    return group


def _among(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys are among the wanted ones."""
    group = _groups(np.concatenate([wanted, keys]))
    held = np.zeros(int(group.max(initial=-1)) + 1, bool)
    held[group[: len(wanted)]] = True
    return held[group[len(wanted) :]]


def _pieces(links: _Grams, given: Numbers, found: Numbers, turned: bool) -> Logs:
    """Log-likelihood of the pieces found given the others, by links of single pieces (IBM model 1)."""
    first, second = (links.rows[:, k].astype(np.int64) for k in ((1, 0) if turned else (0, 1)))
    size = int(max(links.rows.max(initial=0), given.max(initial=0), found.max(initial=0))) + 1
    total = np.bincount(first, weights=links.count, minlength=size)
    share = links.count / total[first]
    keys = first * size + second
    order = np.argsort(keys)
    keys, share = keys[order], share[order]
    result = np.zeros(len(given))
    long = np.maximum((given != NOTHING).sum(axis=1), 1)
    for column in found.T:
        there = column != NOTHING
        likely = np.zeros(int(there.sum()))
        for other in given.T:
            asked = other[there] * size + column[there]
            at = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
            if len(keys):
                likely += np.where((keys[at] == asked) & (other[there] != NOTHING), share[at], 0.0)
        result[there] += np.log(np.maximum(likely / long[there], LEAST))
    return result


# --- the search -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """All translations of all phrases of some texts, sorted by text and place."""

    text: Numbers
    begin: Numbers  # the first place read
    span: Numbers  # places read
    target: Numbers  # (m, longest)
    long: Numbers
    worth: Logs  # all but what the language model says of the first pieces after what comes before them
    guess: Logs  # that, guessed without what comes before


@dataclass
class _Beginnings:
    """Beginnings of translations; `gap` is the first place not yet read, `read` which ones after it are, as bits."""

    text: Numbers
    gap: Numbers
    read: NDArray[np.uint64]
    end: Numbers  # the place after the last phrase read
    state: NDArray[np.uint64]  # the last pieces written
    score: Logs
    judged: Logs  # the score and what the rest is thought to cost
    origin: Numbers  # the number of the beginning it goes on from
    option: Numbers  # with this one
    number: Numbers


def translate(
    source: Numbers, table: Phrases, language: Language, weights: Weights, longest: int, *, beam: int, reach: int
) -> Numbers:
    """The best translations found of texts (n, length): (n, longest) pieces, END and NOTHING after them.

    beam   beginnings kept that cover equally many pieces
    reach  how far beyond the first place not yet read a phrase may begin
    """
    answers = np.full((len(source), longest), NOTHING, np.int64)
    order = np.argsort((source != NOTHING).sum(axis=1), kind="stable")
    for start in range(0, len(order), TEXTS):
        rows = order[start : start + TEXTS]
        found = _Search(source[rows], table, language, weights, beam, reach).best()
        for row, pieces in zip(rows, found, strict=True):
            pieces = [*pieces[: longest - 1], END]
            answers[row, : len(pieces)] = pieces
    return answers


def wanted(source: Numbers, longest: int) -> NDArray[np.uint64]:
    """Keys of all runs of up to `longest` pieces that occur in texts, in ascending order, as `counted.words` does."""
    return np.unique(spans(source, longest)[3], axis=0)


def spans(source: Numbers, longest: int) -> tuple[Numbers, Numbers, Numbers, NDArray[np.uint64]]:
    """Text, place, length and key of every run of up to `longest` pieces."""
    parts = []
    for long in range(1, min(longest, source.shape[1]) + 1):
        text, begin = np.nonzero(source[:, long - 1 :] != NOTHING)
        rows = np.zeros((len(text), longest), np.uint16)
        rows[:, :long] = source[text[:, None], begin[:, None] + np.arange(long)]
        parts.append((text, begin, np.full(len(text), long), counted.words(rows)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


class _Search:
    """One search, for some texts."""

    def __init__(
        self, source: Numbers, table: Phrases, language: Language, weights: Weights, beam: int, reach: int
    ) -> None:
        self.source, self.language, self.weights, self.beam, self.reach = source, language, weights, beam, reach
        self.size = (source != NOTHING).sum(axis=1)
        self.width = source.shape[1]
        self.options = self._all(table)
        self.first = np.searchsorted(
            self.options.text * self.width + self.options.begin, np.arange(len(source) * self.width + 1)
        )
        self.rest = self._rest()

    def _all(self, table: Phrases) -> _Options:
        """The options of every run of pieces, and a copy of each piece that has none."""
        longest = table.target.shape[1]
        text, begin, span, keys = spans(self.source, longest)
        both = _groups(np.concatenate([table.source, keys]))
        mine, asked = both[: len(table.source)], both[len(table.source) :]
        at, count = np.searchsorted(mine, asked), np.searchsorted(mine, asked, "right")
        count = count - at
        alone = (span == 1) & (count == 0)
        which = np.repeat(np.arange(len(text)), count)
        row = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(at, count)
        copied = self.source[text[alone], begin[alone]]
        copies = np.zeros((len(copied), longest), np.int64)
        copies[:, 0] = np.where(copied >= FIRST_PIECE, copied, NOTHING)
        place = np.concatenate([which, np.flatnonzero(alone)])
        target = np.concatenate([table.target[row], copies])
        worth = np.concatenate([table.worth[row], np.full(len(copied), COPIED)])
        long = (target != NOTHING).sum(axis=1)
        inner, guess = self._language(target, long)
        worth = worth + inner
        ranked = np.lexsort((-(worth + guess), place))
        rank = np.arange(len(ranked)) - np.searchsorted(place[ranked], place[ranked])
        kept = ranked[rank < OPTIONS]
        kept = kept[np.lexsort((span[place[kept]], begin[place[kept]], text[place[kept]]))]
        at = place[kept]
        return _Options(text[at], begin[at], span[at], target[kept], long[kept], worth[kept], guess[kept])

    def _language(self, target: Numbers, long: Numbers) -> tuple[Logs, Logs]:
        """What the language model says of each option: of pieces it knows enough before, and of the first ones."""
        keep = self.language.order - 1
        inner, guess = np.zeros(len(target)), np.zeros(len(target))
        state = np.zeros(len(target), np.uint64)
        for column in range(target.shape[1]):
            here = np.flatnonzero(long > column)
            piece = target[here, column]
            logs = self.weights.language * self.language.log(state[here], piece, min(column, keep) + 1)
            (guess if column < keep else inner)[here] += logs
            state[here] = self._after(state[here], piece)
        return inner, guess

    def _after(self, state: NDArray[np.uint64], piece: Numbers) -> NDArray[np.uint64]:
        mask = np.uint64((1 << (WIDTH * (self.language.order - 1))) - 1)
        return np.asarray(((state << np.uint64(WIDTH)) | piece.astype(np.uint64)) & mask)

    def _rest(self) -> Logs:
        """(n, width + 1, width + 1) what the best translation of the places from … to is thought to be worth."""
        options, width = self.options, self.width
        best = np.full((len(self.source), width + 1, width + 1), -FAR)
        np.maximum.at(best, (options.text, options.begin, options.begin + options.span), options.worth + options.guess)
        for at in range(width + 1):
            best[:, at, at] = 0.0
        for span in range(2, width + 1):
            for begin in range(width - span + 1):
                parts = best[:, begin, begin + 1 : begin + span] + best[:, begin + 1 : begin + span, begin + span]
                best[:, begin, begin + span] = np.maximum(best[:, begin, begin + span], parts.max(axis=1))
        return best

    def best(self) -> list[list[int]]:
        """The pieces of the best translation of each text."""
        texts = len(self.source)
        none = np.zeros(texts, np.int64)
        start = _Beginnings(none + np.arange(texts), none, none.astype(np.uint64), none, none.astype(np.uint64) + BEGIN,
                            np.zeros(texts), np.zeros(texts), none - 1, none - 1, np.arange(texts))  # fmt: skip
        pending: dict[int, list[_Beginnings]] = {0: [start]}
        origins, chosen = [start.origin], [start.option]
        done: list[_Beginnings] = []
        self.number = texts
        for covered in range(self.width + 1):
            stack = self._pruned(pending.pop(covered, []))
            if stack is None:
                continue
            if covered:
                stack.number = self.number + np.arange(len(stack.text))
                self.number += len(stack.text)
                origins.append(stack.origin)
                chosen.append(stack.option)
            over = self.size[stack.text] == covered
            done.append(_taken(stack, over))
            for count, more in self._further(_taken(stack, ~over), covered):
                pending.setdefault(count, []).append(more)
        return self._read_back(done, np.concatenate(origins), np.concatenate(chosen))

    def _pruned(self, parts: list[_Beginnings]) -> _Beginnings | None:
        """The best of those that can go on alike, and of these the best `beam` of each text."""
        if not parts:
            return None
        stack = _joined(parts)
        ranked = np.lexsort((-stack.score, stack.end, stack.state, stack.read, stack.gap, stack.text))
        stack = _taken(stack, ranked)
        new = np.ones(len(ranked), bool)
        new[1:] = False
        for part in (stack.text, stack.gap, stack.read, stack.state, stack.end):
            new[1:] |= part[1:] != part[:-1]
        return self._top(_taken(stack, new), self.beam)

    def _top(self, stack: _Beginnings, most: int) -> _Beginnings:
        ranked = np.lexsort((-stack.judged, stack.text))
        text = stack.text[ranked]
        rank = np.arange(len(ranked)) - np.searchsorted(text, text)
        return _taken(stack, ranked[rank < most])

    def _further(self, stack: _Beginnings, covered: int) -> list[tuple[int, _Beginnings]]:
        """All beginnings that are one phrase longer, by how many pieces they cover."""
        options = self.options
        found: list[tuple[Numbers, Numbers]] = []
        for ahead in range(self.reach + 1):
            place = stack.gap + ahead
            ok = (place < self.size[stack.text]) & ((stack.read >> np.uint64(ahead)) & np.uint64(1) == 0)
            which = np.flatnonzero(ok)
            slot = stack.text[which] * self.width + place[which]
            at, count = self.first[slot], self.first[slot + 1] - self.first[slot]
            row = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count) + np.repeat(at, count)
            which = np.repeat(which, count)
            span = ((np.uint64(1) << options.span[row].astype(np.uint64)) - np.uint64(1)) << np.uint64(ahead)
            free = (stack.read[which] & span) == 0
            found.append((which[free], row[free]))
        which = np.concatenate([part for part, _ in found])
        row = np.concatenate([part for _, part in found])
        score = stack.score[which] + options.worth[row]
        score -= self.weights.jump * np.abs(options.begin[row] - stack.end[which])
        gap, read = stack.gap[which], stack.read[which]
        shift = (options.begin[row] - gap).astype(np.uint64)
        read = read | (((np.uint64(1) << options.span[row].astype(np.uint64)) - np.uint64(1)) << shift)
        gap, read = _closed(gap, read)
        text = stack.text[which]
        rest = self._left(text, gap, read)
        count = covered + options.span[row]
        # A first choice by what the language model guesses: a few times as many as are kept.
        likely = score + options.guess[row] + rest
        ranked = np.lexsort((-likely, text, count))
        group = count[ranked] * len(self.source) + text[ranked]
        rank = np.arange(len(ranked)) - np.searchsorted(group, group)
        kept = ranked[rank < 3 * self.beam]
        which, row, text, gap, read, rest, count = (part[kept] for part in (which, row, text, gap, read, rest, count))
        state, said = self._said(stack.state[which], options.target[row], options.long[row])
        score = score[kept] + said
        ends = gap == self.size[text]
        score[ends] += self.weights.language * self.language.log(state[ends], np.full(int(ends.sum()), END))
        made = _Beginnings(text, gap, read, options.begin[row] + options.span[row], state, score, score + rest,
                           stack.number[which], row, row)  # fmt: skip
        return [(int(more), _taken(made, count == more)) for more in np.unique(count)]

    def _said(self, state: NDArray[np.uint64], target: Numbers, long: Numbers) -> tuple[NDArray[np.uint64], Logs]:
        """The last pieces written after a phrase, and what the language model says of its first pieces."""
        said, state = np.zeros(len(state)), state.copy()
        for column in range(target.shape[1]):
            here = np.flatnonzero(long > column)
            piece = target[here, column]
            if column < self.language.order - 1:
                said[here] += self.weights.language * self.language.log(state[here], piece)
            state[here] = self._after(state[here], piece)
        return state, said

    def _left(self, text: Numbers, gap: Numbers, read: NDArray[np.uint64]) -> Logs:
        """What the places not yet read are thought to be worth."""
        result = np.zeros(len(text))
        size, at, bits = self.size[text], gap.copy(), read.copy()
        begin = gap.copy()
        for _ in range(64):
            busy = np.flatnonzero(bits != 0)
            if not len(busy):
                break
            # where the run of unread places ends, and where the read ones after it do
            here = bits[busy]
            free = _trailing(here)
            end = at[busy] + free
            result[busy] += self.rest[text[busy], begin[busy], end]
            here = here >> free.astype(np.uint64)
            taken = _trailing(~here)
            bits[busy] = here >> taken.astype(np.uint64)
            at[busy] = end + taken
            begin[busy] = at[busy]
        return np.asarray(result + self.rest[text, begin, size])

    def _read_back(self, done: list[_Beginnings], origins: Numbers, chosen: Numbers) -> list[list[int]]:
        """The pieces of the best whole translations."""
        ends = self._top(_joined(done), 1)
        found: list[list[int]] = [[] for _ in range(len(self.source))]
        for text, number in zip(ends.text.tolist(), ends.number.tolist(), strict=True):
            parts: list[list[int]] = []
            while number >= 0 and chosen[number] >= 0:
                row = int(chosen[number])
                parts.append(self.options.target[row, : self.options.long[row]].tolist())
                number = int(origins[number])
            found[text] = [piece for part in reversed(parts) for piece in part]
        return found


def _trailing(bits: NDArray[np.uint64]) -> Numbers:
    """How many of the lowest bits are 0; of numbers that are not 0."""
    lowest = bits & (~bits + np.uint64(1))
    return np.asarray(np.log2(lowest.astype(np.float64)).astype(np.int64))


def _closed(gap: Numbers, read: NDArray[np.uint64]) -> tuple[Numbers, NDArray[np.uint64]]:
    """The gap moved on over what is read."""
    steps = np.where(read & np.uint64(1), _trailing(~read), 0)
    return gap + steps, read >> steps.astype(np.uint64)


def _taken(stack: _Beginnings, where: NDArray[np.bool_] | Numbers) -> _Beginnings:
    return _Beginnings(*(part[where] for part in vars(stack).values()))


def _joined(parts: list[_Beginnings]) -> _Beginnings:
    return _Beginnings(*(np.concatenate(same) for same in zip(*(vars(part).values() for part in parts), strict=True)))
