"""What the sections of docs/benchmarks.md are made of: a kept result, and a table in Markdown.

A benchmark shows its result on the page by a function `section() -> Iterator[str]` in its module: Markdown, a
paragraph or a table at a time, each ending with a newline, from its kept JSON alone; nothing where there is none. Its
module's name stands in `SECTIONS` of benchmarks/run.py, in the page's order. What is heavy to import is imported where
it is used, so that the page is written without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MIB = 2**20


def result_of(name: str) -> dict[str, Any] | None:
    """A benchmark's result as results/NAME.json holds it, None where it was never run."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, and the empty line after it."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def mib(num_bytes: float) -> str:
    """Bytes as MiB."""
    return f"{num_bytes / MIB:.0f} MiB"
