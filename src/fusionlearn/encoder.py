"""Encoders: the public function that turns clean columns into features, the same on every client.

An encoder is one file in `encoders/` and one line in `ENCODERS` (or an entry point `fusionlearn.encoders` in
another package). It declares the name and the bound of every feature before any data is seen: the bounds size the
integers of fixed-point sums and limit what one record can change.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fusionlearn import cache, plugin
from fusionlearn.arrays import Arrays, Data
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Schema

ENCODERS: Mapping[str, str] = {
    "backbone": "fusionlearn.encoders.backbone:Backbone",
    "identity": "fusionlearn.encoders.identity:Identity",
    "ngrams": "fusionlearn.encoders.ngrams:Ngrams",
    "onnx": "fusionlearn.encoders.onnx:Onnx",
    "patches": "fusionlearn.encoders.patches:Patches",
    "project": "fusionlearn.encoders.project:Project",
    "random_features": "fusionlearn.encoders.random_features:RandomFeatures",
    "sentences": "fusionlearn.encoders.sentences:Sentences",
    "subwords": "fusionlearn.encoders.subwords:Subwords",
    "table": "fusionlearn.encoders.table:Table",
}
GROUP = "fusionlearn.encoders"
X = "x"  # the key of the features among encoded data


@dataclass(frozen=True)
class Features:
    """What an encoder emits: one name and one bound for each feature, public."""

    names: tuple[str, ...]
    bounds: tuple[float, ...]  # |x_j| <= bound


class Encoder(plugin.Plugin, abc.ABC):
    """Raw columns → features. Final subclasses are frozen dataclasses; their fields are the settings."""

    SLOW: ClassVar[bool] = False  # whether reading features back from this client's disk beats computing them again

    @abc.abstractmethod
    def features(self, schema: Schema, before: Features | None) -> Features:
        """What `encode` will emit, from public knowledge alone.

        before  what the encoder ahead of this one emits; None when this one reads the table
        Errors: SettingsError when the two do not fit.
        """

    @abc.abstractmethod
    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        """Features under "x", shape (n, d); the label, if there is one, is passed on under "y".

        data   clean columns (`Schema.read`) or what the encoder ahead emitted
        prior  the task's prior arrays
        """


@dataclass(frozen=True)
class Chain:
    """Encoders one after another; the first reads the table."""

    encoders: tuple[Encoder, ...]

    def __post_init__(self) -> None:
        if not self.encoders:
            raise SettingsError("a task needs at least one encoder, such as 'table'.")

    def features(self, schema: Schema) -> Features:
        """What the last encoder emits."""
        before: Features | None = None
        for encoder in self.encoders:
            before = encoder.features(schema, before)
        assert before is not None
        return before

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        """All encoders in turn."""
        for encoder in self.encoders:
            data = _remembered(encoder, data, schema, prior)
        return data


def _remembered(encoder: Encoder, data: Data, schema: Schema, prior: Arrays) -> Data:
    """What the encoder emits; a slow one's features are read from this client's disk where they were kept."""
    if not encoder.SLOW or not cache.limit():
        return encoder.encode(data, schema, prior)
    settings = json.dumps(plugin.to_json(encoder), sort_keys=True) + repr(schema.columns)
    own = {name: array for name, array in prior.items() if name.startswith(f"{encoder.name}.")}
    name = cache.key(settings, own, {column: cells for column, cells in data.items() if column != LABEL})
    features = cache.load(name)
    if features is None:
        encoded = encoder.encode(data, schema, prior)
        cache.store(name, encoded[X])
        return encoded
    return {X: features} | ({LABEL: data[LABEL]} if LABEL in data else {})


def available() -> dict[str, str]:
    """Name → "module:Class" of every encoder that can be made here."""
    return plugin.available(ENCODERS, GROUP)


def make(name: str, settings: Mapping[str, Any] | None = None) -> Encoder:
    """The encoder of that name with these settings. Errors: SettingsError."""
    return plugin.make(plugin.find(Encoder, name, ENCODERS, GROUP), settings or {})  # type: ignore[type-abstract]


def chain_from_json(value: Any) -> Chain:
    """A chain from what a file says of it. Errors: SettingsError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise SettingsError("encoders are written as a list.")
    return Chain(tuple(plugin.from_json(Encoder, item, ENCODERS, GROUP) for item in value))  # type: ignore[type-abstract]


def chain_to_json(chain: Chain) -> list[dict[str, Any]]:
    """What a file says of a chain."""
    return [plugin.to_json(encoder) for encoder in chain.encoders]
