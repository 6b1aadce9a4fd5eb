"""The comparison as one self-contained page, for people who have never seen the tool."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusionlearn import __version__, plugin
from fusionlearn.errors import MissingExtra
from fusionlearn.method import METHODS
from fusionlearn.simulate import plots
from fusionlearn.simulate.plots import seconds, share, size


def html(result: Mapping[str, Any]) -> str:
    """The page of a finished comparison.

    Errors: MissingExtra without jinja2 or matplotlib
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra("the page", "jinja2", "compare") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["size"] = size
    environment.filters["seconds"] = seconds
    table = result["table"]
    best = next(row for row in table["rows"] if row["name"] == table["best_one_shot"] and row["kind"] == "one_shot")
    rivals = [row for row in table["rows"] if row["kind"] == "rivals"]
    strongest = max(rivals, key=lambda row: row["value"]) if rivals else None
    return environment.get_template("page.html").render(
        result=result, table=table, best=best, strongest=strongest, plots=_drawn(result), version=__version__,
        share=share, methods=dict(_explained(table["rows"])),
        tries=result["settings"].get("tuning_rounds", 15),
    )  # fmt: skip


def _drawn(result: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Each plot for light and dark pages, as text that an img element takes."""
    makers = {"bytes": plots.against_bytes, "rounds": plots.against_rounds, "gains": plots.gains}
    found: dict[str, dict[str, str]] = {}
    for name, maker in makers.items():
        both = {shade: maker(result, ink) for shade, ink in (("light", plots.LIGHT), ("dark", plots.DARK))}
        if all(both.values()):
            found[name] = {
                shade: "data:image/svg+xml;base64," + base64.b64encode(drawn or b"").decode()
                for shade, drawn in both.items()
            }
    return found


def _explained(rows: Any) -> Iterator[tuple[str, str]]:
    """What each one-shot method is, in its own first sentence."""
    for row in rows:
        place = METHODS.get(row["name"].partition(":")[0]) if row["kind"] == "one_shot" else None
        if place is not None:
            yield row["name"], plugin.describe(place)["summary"]
