"""Subwords: texts as rows of numbers of pieces, for networks that read and write text.

A text is cut into words and marks; a word that a blank precedes begins with "▁", so that pieces joined make the text
again. Words are made of pieces: single letters, and runs of letters that are common in public texts, found by pairing
what stands side by side most often (byte-pair encoding). The pieces are learned once, by `pretrain`, from the columns
and the label of public rows, and travel in the prior: a client's texts add none. A letter that no public text holds
is "unknown".

    0 nothing (after the end)   1 beginning   2 end   3 unknown   4… the pieces, in the order in which they were found

    subwords.pieces  (bytes,) uint8  the pieces in UTF-8, a line each

Texts of more than `length` pieces, the end included, are cut. The label is encoded in the same way.

Needs    one column of text and a label of text; comes first; `pretrain`
Emits    x (n, length) float32, numbers of pieces; y (n, length) int64
Bounds   size − 1
Cost     about 2 s for 10,000 sentences; learning 8,000 pieces from 50,000 about 20 s
Source   Sennrich, Haddow, Birch, Neural Machine Translation of Rare Words with Subword Units, 2016
"""

from __future__ import annotations

import functools
import heapq
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import BEGIN, END, FIRST_PIECE, LABEL, NOTHING, UNKNOWN, Schema, Text, TextLabel

PIECES = "subwords.pieces"
BLANK = "\u2581"  # stands for the blank before a word
WORD = re.compile(r"\s*[^\W_]+|\s*[^\w\s]|\s*_")
MOST_LETTERS = 1000  # letters that are pieces of their own, the most common ones


@dataclass(frozen=True)
class Subwords(Encoder):
    name: ClassVar[str] = "subwords"

    size: int = 8000  # pieces, the four special ones included
    length: int = 40  # the most pieces of a text, the end included
    lower: bool = True  # whether texts are brought to lower case first

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 65_536:
            raise SettingsError(f"subwords: size is {self.size}; it may be 16 to 65536.")
        if not 2 <= self.length <= 512:
            raise SettingsError(f"subwords: length is {self.length}; it may be 2 to 512.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        if before is not None:
            raise SettingsError("encoder 'subwords' reads the texts themselves: it can only come first.")
        if len(schema.columns) != 1 or not isinstance(next(iter(schema.columns.values())), Text):
            raise SettingsError("encoder 'subwords' reads one column of text: declare that one alone.")
        if not isinstance(schema.label, TextLabel):
            raise SettingsError("encoder 'subwords' is for a label of text; for other labels take 'ngrams'.")
        return Features(tuple(f"piece[{i}]" for i in range(self.length)), (self.size - 1.0,) * self.length)

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        ranks = self._ranks(prior)
        column = next(iter(schema.columns))
        encoded: dict[str, Any] = {X: self._numbers(data[column], ranks).astype(np.float32)}
        if LABEL in data:
            encoded[LABEL] = self._numbers(data[LABEL], ranks)
        return encoded

    def pretrain(self, data: Data, schema: Schema, *, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """The pieces of public texts, for a task's prior.

        data  clean columns and, best, the label, as `encode` gets them
        """
        texts = itertools.chain.from_iterable(data.values())
        counts = Counter(word for text in texts for word in words_of(str(text), lower=self.lower))
        pieces = learn(counts, self.size - FIRST_PIECE)
        return {PIECES: np.frombuffer("\n".join(pieces).encode(), np.uint8).copy()}

    def texts(self, numbers: NDArray[Any], prior: Arrays) -> NDArray[np.object_]:
        """(n, length) numbers of pieces → (n,) texts, each up to its end."""
        pieces = self._pieces(prior)
        return np.array([_text(row, pieces) for row in numbers.tolist()], dtype=object)

    def _numbers(self, texts: Iterable[Any], ranks: Mapping[str, int]) -> NDArray[np.int64]:
        rows = list(texts)
        numbers = np.full((len(rows), self.length), NOTHING, np.int64)
        known: dict[str, list[int]] = {}
        for row, text in zip(numbers, rows, strict=True):
            found: list[int] = []
            for word in words_of(str(text), lower=self.lower):
                if word not in known:
                    known[word] = cut(word, ranks)
                found += known[word]
            found = [*found[: self.length - 1], END]
            row[: len(found)] = found
        return numbers

    def _pieces(self, prior: Arrays) -> tuple[str, ...]:
        if PIECES not in prior:
            raise SettingsError(f"subwords: the prior lacks '{PIECES}': pre-train the task with public texts.")
        held = np.asarray(prior[PIECES])
        try:
            pieces = _split(held.tobytes()) if held.dtype == np.uint8 and held.ndim == 1 else ()
        except UnicodeDecodeError:
            pieces = ()
        if not 1 <= len(pieces) <= self.size - FIRST_PIECE or len(set(pieces)) != len(pieces):
            raise SettingsError(
                f"the prior's '{PIECES}' must hold 1 to {self.size - FIRST_PIECE} different pieces: pre-train the task "
                f"again with the encoder's present settings."
            )
        return pieces

    def _ranks(self, prior: Arrays) -> dict[str, int]:
        return {piece: rank + FIRST_PIECE for rank, piece in enumerate(self._pieces(prior))}


@functools.lru_cache(maxsize=8)
def _split(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode().split("\n"))


def words_of(text: str, *, lower: bool) -> list[str]:
    """The words and marks of a text; those that a blank precedes, and the first one, begin with BLANK."""
    found = WORD.findall(" " + " ".join((text.lower() if lower else text).split()))
    return [BLANK + word.strip() if word[0] == " " else word for word in found]


def cut(word: str, ranks: Mapping[str, int]) -> list[int]:
    """Numbers of the pieces of a word: what stands side by side is joined, the piece found first first."""
    parts = list(word)
    while len(parts) > 1:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks) + FIRST_PIECE))
        joined = parts[best] + parts[best + 1]
        if joined not in ranks:
            break
        parts[best : best + 2] = [joined]
    return [ranks.get(part, UNKNOWN) for part in parts]


def learn(counts: Mapping[str, int], size: int) -> list[str]:
    """At most `size` pieces of words that occur so often: letters first, then joined pairs, the commonest first."""
    letters: Counter[str] = Counter()
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    ordered = sorted(letters, key=lambda letter: (-letters[letter], letter))
    pieces = ordered[: min(MOST_LETTERS, size)]
    kept, pairs = set(pieces), _Pairs(counts)
    while len(pieces) < size:
        pair = pairs.best()
        if pair is None:
            break
        joined = "".join(pair)
        pairs.join(pair)
        if joined not in kept:  # two pairs may join to one piece
            kept.add(joined)
            pieces.append(joined)
    return pieces


class _Pairs:
    """How often each two pieces stand side by side, kept up to date while pairs are joined."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.words = [(list(word), count) for word, count in sorted(counts.items())]
        self.count: Counter[tuple[str, str]] = Counter()
        self.places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for index in range(len(self.words)):
            self._note(index, 1)
        self.heap = [(-count, pair) for pair, count in self.count.items()]
        heapq.heapify(self.heap)

    def best(self) -> tuple[str, str] | None:
        """The commonest pair that occurs at least twice, the first by letters among equals."""
        while self.heap:
            count, pair = heapq.heappop(self.heap)
            if self.count[pair] == -count and count < -1:
                return pair
        return None

    def join(self, pair: tuple[str, str]) -> None:
        """Make one piece of the pair wherever it stands."""
        touched: set[tuple[str, str]] = set()
        for index in sorted(self.places[pair]):
            parts, _ = self.words[index]
            touched |= self._note(index, -1)
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == pair:
                    parts[i : i + 2] = ["".join(pair)]
                i += 1
            touched |= self._note(index, 1)
        for changed in touched:
            if self.count[changed] > 1:
                heapq.heappush(self.heap, (-self.count[changed], changed))

    def _note(self, index: int, sign: int) -> set[tuple[str, str]]:
        """Count a word's pairs in or out; which they are."""
        parts, count = self.words[index]
        found = set(itertools.pairwise(parts))
        for pair in itertools.pairwise(parts):
            self.count[pair] += sign * count
        for pair in found:
            (self.places[pair].add if sign > 0 else self.places[pair].discard)(index)
        return found


def _text(row: list[int], pieces: tuple[str, ...]) -> str:
    """The text of one row of numbers."""
    found = []
    for number in row:
        if number == END:
            break
        if number >= FIRST_PIECE and number - FIRST_PIECE < len(pieces):
            found.append(pieces[number - FIRST_PIECE])
        elif number not in (NOTHING, BEGIN):
            found.append("\ufffd")
    return "".join(found).replace(BLANK, " ").strip()
