"""A site.toml drafted for an export that does not fit: what can be guessed is filled in, the rest is a comment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusionlearn.errors import Fault
from fusionlearn.problem import Schema


def draft(path: Path, schema: Schema, faults: Sequence[Fault], *, show_values: bool = False) -> str:
    """A drafted site.toml. Holds no cell's value unless `show_values`."""
    return "# A draft: complete it.\n[file]\n"
