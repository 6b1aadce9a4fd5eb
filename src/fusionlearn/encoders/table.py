"""Tables: numbers centred and scaled by public values, categories one-hot against their first value.

A number becomes (value - center) / scale. A category with values v0, v1, … becomes one column for each value but
the first. Under the missing rule "indicator" a missing number takes its centre (0 after centring) and a column of
its own says so; under "center" it takes the centre silently; a missing category always has a column of its own.

Emits    x (n, d) float64; names as in "age", "pixels[3]", "cp=2", "chol missing"
Bounds   the declared range, centred and scaled; 1 for one-hot columns
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Category, Schema, Text, Vector


@dataclass(frozen=True)
class Table(Encoder):
    name: ClassVar[str] = "table"

    def features(self, schema: Schema, before: Features | None) -> Features:
        if before is not None:
            raise SettingsError("encoder 'table' reads the columns themselves: it can only come first.")
        names: list[str] = []
        bounds: list[float] = []
        for name, column in schema.columns.items():
            if isinstance(column, Text):
                raise SettingsError(f"encoder 'table' cannot hold column '{name}', which is text: use 'ngrams' for it.")
            if isinstance(column, Vector):
                names += [f"{name}[{i}]" for i in range(column.length)]
                bounds += [column.bound] * column.length
                continue
            if isinstance(column, Category):
                levels = [f"{name}={value}" for value in column.values[1:]]
                names += levels
                bounds += [1.0] * len(levels)
            else:
                names.append(name)
                bounds.append(column.bound)
            if _marks_missing(schema, name):
                names.append(f"{name} missing")
                bounds.append(1.0)
        return Features(tuple(names), tuple(bounds))

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        parts = []
        for name, column in schema.columns.items():
            values = data[name]
            assert not isinstance(column, Text)  # `features` refused it
            if isinstance(column, Category):
                missing = values == -1
                parts.append((values[:, None] == np.arange(1, len(column.values))).astype(np.float64))
            else:
                missing = np.isnan(values)
                scaled = (values - column.center) / column.scale
                if missing.any():
                    scaled = np.where(missing, 0.0, scaled)
                parts.append(scaled if scaled.ndim == 2 else scaled[:, None])
            if not isinstance(column, Vector) and _marks_missing(schema, name):
                parts.append(missing[:, None].astype(np.float64))
        encoded = {X: np.concatenate(parts, axis=1)}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})


def _marks_missing(schema: Schema, name: str) -> bool:
    rule = schema.missing_rule(name)
    return rule == "indicator" or (rule == "center" and isinstance(schema.columns[name], Category))
