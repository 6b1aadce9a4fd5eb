"""Hashed n-grams: words, and words in a row, of text columns as counts under public numbers.

Text is brought to lower case and cut into words (letters, digits and apostrophes; "!" and "?" are words of their own).
Each word, and each run of up to `words` words, is an n-gram; CRC-32 of its UTF-8 bytes, modulo `num_features`, is its
feature. No vocabulary is agreed on, so none can leak, and what nobody foresaw has a place all the same. N-grams that
share a feature are told apart no more; with 65,536 features and reviews of a hundred words that costs little.

    presence  1 where the record has the n-gram
    unit      the same, each record brought to length 1, so that long texts speak no louder than short ones
    count     how often it has it, at most 255 times
    tfidf     (1 + log count)·idf, each record brought to length 1

The idf says how rare an n-gram is: log((1 + rows) / (1 + rows that have it)) + 1 over public texts of the coordinator
(`pretrain`), in the prior; without it every n-gram weighs the same.

With `common` above 0 longer n-grams are made only of that many words most common in public texts of the coordinator,
again by `pretrain`: the names and numbers that would crowd the features with runs nobody sees twice stay single words.

    ngrams.idf     (num_features,) float32
    ngrams.common  (most common,) uint32  CRC-32 of words, rising

Needs    a table of text columns alone; comes first
Emits    x (n, num_features) float32
Bounds   1; 255 for count
Cost     about 1 s for 5,000 reviews of a hundred words
Source   Weinberger, Dasgupta, Langford, Smola, Attenberg, Feature Hashing for Large Scale Multitask Learning, 2009;
         Spärck Jones, A Statistical Interpretation of Term Specificity, 1972
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Schema, Text

IDF, COMMON = "ngrams.idf", "ngrams.common"
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]")
MOST_COUNT = 255
ROWS = 256  # of public texts made dense at a time


@dataclass(frozen=True)
class Ngrams(Encoder):
    name: ClassVar[str] = "ngrams"

    num_features: int = 65_536  # places n-grams are hashed to; 0: as many as the task's max_bytes allows
    words: int = 2  # the most words in a row that make an n-gram
    weight: Literal["presence", "unit", "count", "tfidf"] = "presence"  # what a feature says of its n-grams
    common: int = 0  # public words, the most common ones, that may make longer n-grams; 0: all words may

    def __post_init__(self) -> None:
        if not 0 <= self.num_features <= 65_536:
            raise SettingsError(f"ngrams: num_features is {self.num_features}; it may be 0 to 65536.")
        if not 1 <= self.words <= 5:
            raise SettingsError(f"ngrams: words is {self.words}; it may be 1 to 5.")
        if not 0 <= self.common <= 2**20:
            raise SettingsError(f"ngrams: common is {self.common}; it may be 0 to 1048576.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        if before is not None:
            raise SettingsError("encoder 'ngrams' reads the texts themselves: it can only come first.")
        other = [name for name, column in schema.columns.items() if not isinstance(column, Text)]
        if other:
            raise SettingsError(f"encoder 'ngrams' reads text columns alone, and '{other[0]}' is none: leave it out.")
        if self.num_features == 0:
            raise SettingsError("ngrams: num_features = 0 means as many as max_bytes allows: give the task max_bytes.")
        bound = float(MOST_COUNT) if self.weight == "count" else 1.0
        return Features(tuple(f"gram[{i}]" for i in range(self.num_features)), (bound,) * self.num_features)

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        x = self._counts(data, schema, self._common(prior))
        if self.weight == "count":
            np.minimum(x, MOST_COUNT, out=x)
        elif self.weight == "tfidf":
            there = x > 0
            x[there] = 1.0 + np.log(x[there])
            if IDF in prior:
                x *= self._idf(prior)
        else:
            np.minimum(x, 1.0, out=x)
        if self.weight in ("unit", "tfidf"):
            norm = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
            x /= np.maximum(norm, 1e-12)[:, None]  # a record without a word stays 0
            np.clip(x, -1.0, 1.0, out=x)  # rounding may pass 1 by a hair
        return {X: x} | ({LABEL: data[LABEL]} if LABEL in data else {})

    def pretrain(self, data: Data, schema: Schema, *, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """How rare each n-gram is in public texts, and which words are common, for a task's prior; what is not used
        is not learned.

        data  clean columns, as `encode` gets them
        """
        texts = {name: cells for name, cells in data.items() if name != LABEL}
        prior: dict[str, NDArray[Any]] = {}
        if self.common:
            rows_with = Counter(word for cells in texts.values() for text in cells for word in set(words_of(text)))
            ranked = sorted(rows_with, key=lambda word: (-rows_with[word], word))[: self.common]
            prior[COMMON] = np.unique(np.array([_hash(word) for word in ranked], dtype=np.uint32))
        if self.weight == "tfidf":
            known = self._common(prior)
            rows = len(next(iter(texts.values())))
            having = np.zeros(self.num_features)
            for start in range(0, rows, ROWS):
                part = {name: cells[start : start + ROWS] for name, cells in texts.items()}
                having += (self._counts(part, schema, known) > 0).sum(axis=0)
            prior[IDF] = (np.log((1 + rows) / (1 + having)) + 1).astype(np.float32)
        return prior

    def _counts(self, data: Data, schema: Schema, common: frozenset[int] | None) -> NDArray[np.float32]:
        """How often each row has n-grams of each feature; an n-gram never spans two columns."""
        columns = [data[name] for name in schema.columns]
        x = np.zeros((len(columns[0]), self.num_features), np.float32)
        for cells in columns:
            for row, text in zip(x, cells, strict=True):
                for gram, count in Counter(grams(text, self.words, common)).items():
                    row[_hash(gram) % self.num_features] += count
        return x

    def _common(self, prior: Arrays) -> frozenset[int] | None:
        """Hashes of the words that may make longer n-grams; None: all may."""
        if not self.common:
            return None
        if COMMON not in prior:
            raise SettingsError(
                f"ngrams: common = {self.common} needs '{COMMON}' in the prior: pre-train the task with public texts."
            )
        hashes = np.asarray(prior[COMMON])
        if hashes.dtype != np.uint32 or hashes.ndim != 1 or len(hashes) > self.common:
            raise SettingsError(f"the prior's '{COMMON}' must hold at most {self.common} uint32: pre-train again.")
        return frozenset(hashes.tolist())

    def _idf(self, prior: Arrays) -> NDArray[np.float32]:
        idf = np.asarray(prior[IDF])
        if idf.shape != (self.num_features,) or idf.dtype != np.float32 or not (np.isfinite(idf) & (idf >= 0)).all():
            raise SettingsError(
                f"the prior's '{IDF}' must hold {self.num_features} finite float32, none below 0: pre-train the task "
                f"again with the encoder's present settings."
            )
        return idf


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return WORD.findall(text.lower())


def grams(text: str, most_words: int, common: frozenset[int] | None = None) -> Iterator[str]:
    """The words of a text, and all runs of up to so many words (each a common one, if such are named)."""
    words = words_of(text)
    yield from words
    joins = [common is None or _hash(word) in common for word in words]
    for length in range(2, most_words + 1):
        for start in range(len(words) - length + 1):
            if all(joins[start : start + length]):
                yield " ".join(words[start : start + length])


def _hash(gram: str) -> int:
    return zlib.crc32(gram.encode("utf-8", "replace"))
