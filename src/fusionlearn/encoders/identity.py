"""Identity: numeric columns as they are, neither centred nor scaled.

For features computed elsewhere, such as those of a backbone, which already share a scale.

Emits    x (n, d) in the columns' own dtype; names as in "x[3]"
Bounds   the largest absolute value of the declared range
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import array_api_compat

from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.problem import LABEL, Category, Schema, Text, Vector


@dataclass(frozen=True)
class Identity(Encoder):
    name: ClassVar[str] = "identity"

    def features(self, schema: Schema, before: Features | None) -> Features:
        if before is not None:
            return before
        names: list[str] = []
        bounds: list[float] = []
        for name, column in schema.columns.items():
            if isinstance(column, Text):
                raise SettingsError(
                    f"encoder 'identity' cannot hold column '{name}', which is text: use 'ngrams' for it."
                )
            if isinstance(column, Category) or schema.missing_rule(name) in ("center", "indicator"):
                raise SettingsError(f"encoder 'identity' cannot hold column '{name}': use 'table' for it.")
            length = column.length if isinstance(column, Vector) else 1
            names += [f"{name}[{i}]" for i in range(length)] if isinstance(column, Vector) else [name]
            bounds += [max(abs(column.low), abs(column.high))] * length
        return Features(tuple(names), tuple(bounds))

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        if X in data and X not in schema.columns:
            return data
        parts = [data[name] for name in schema.columns]
        xp = array_api_compat.array_namespace(*parts)
        parts = [part if part.ndim == 2 else part[:, None] for part in parts]
        encoded = {X: parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})
