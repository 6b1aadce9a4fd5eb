"""The comparison as one self-contained page, for people who have never seen the tool."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionlearn import __version__
from fusionlearn.errors import MissingExtra

INK, SOFT, OURS, POOLED = "#1b2430", "#8a95a3", "#0b6e6e", "#7b5ea7"
THEIRS = ("#d98032", "#a3420f")  # on the same head, on a network


def html(result: Mapping[str, Any]) -> str:
    """The page of a finished comparison.

    Errors: MissingExtra without matplotlib
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
        result=result, table=table, best=best, strongest=strongest, plots=_plots(result), version=__version__,
        percent=result["metric"] == "accuracy", share=share,
    )  # fmt: skip


def share(result: Mapping[str, Any], value: float | None) -> str:
    """A metric as people read it."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if result["metric"] == "accuracy" else f"{value:.3f}"


def size(count: float | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return ""


def seconds(value: float) -> str:
    """Seconds as people read them."""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _plots(result: Mapping[str, Any]) -> dict[str, str]:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("the page's plots", "matplotlib", "compare") from error
    matplotlib.use("Agg")
    plots = {"bytes": _against_bytes(result), "rounds": _against_rounds(result)}
    gains = _gains(result)
    return plots | ({"gains": gains} if gains else {})


def _axes(result: Mapping[str, Any], height: float = 4.8) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.2, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    axes.grid(alpha=0.25)
    if result["metric"] == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    target = io.BytesIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(target.getvalue()).decode()


def _lines(result: Mapping[str, Any], axes: Any) -> None:
    """What everything is held against: pooled above, isolated below."""
    table = result["table"]
    for name, colour in (("pooled", POOLED), ("isolated", SOFT)):
        if table[name]:
            axes.axhline(table[name][0], color=colour, linewidth=1.2, linestyle=(0, (5, 3)))
            text = "pooled in one place" if name == "pooled" else "mean isolated client"
            axes.annotate(
                text, (1, table[name][0]), xycoords=("axes fraction", "data"), xytext=(-4, 4), ha="right",
                textcoords="offset points", color=colour, fontsize=9,
            )  # fmt: skip


def _curves(result: Mapping[str, Any]) -> dict[str, Any]:
    """Each rival's mean over the seeds, round by round."""
    seeds = list(result["seeds"].values())
    return {name: np.mean([seed["rivals"][name]["curve"] for seed in seeds], axis=0) for name in seeds[0]["rivals"]}


STYLES = ("-", "--", ":")  # one for each algorithm


def _against_bytes(result: Mapping[str, Any]) -> str:
    figure, axes = _axes(result)
    rows = {row["name"]: row for row in result["table"]["rows"]}
    for place, (name, curve) in enumerate(_curves(result).items()):
        each = rows[name]["up"] / rows[name]["rounds"]
        sent = each * np.arange(1, len(curve) + 1)
        colour, style = THEIRS[place // len(STYLES) % 2], STYLES[place % len(STYLES)]
        axes.plot(sent, curve, color=colour, linestyle=style, linewidth=1.4, label=name)
    ours = [row for row in result["table"]["rows"] if row["kind"] == "one_shot"]
    for place, row in enumerate(sorted(ours, key=lambda row: row["value"])):
        axes.errorbar(row["up"], row["value"], yerr=row["spread"], fmt="o", color=OURS, markersize=8, capsize=3)
        axes.annotate(
            row["name"], (row["up"], row["value"]), xytext=(-26, -34 + 20 * place), textcoords="offset points",
            color=OURS, fontsize=9, ha="right", arrowprops={"arrowstyle": "-", "color": OURS, "linewidth": 0.6},
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: size(value))
    _lines(result, axes)
    axes.set_xlabel("bytes a client sends, all rounds together")
    axes.set_ylabel(result["metric"])
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return _svg(figure)


def _against_rounds(result: Mapping[str, Any]) -> str:
    figure, axes = _axes(result)
    for place, (name, curve) in enumerate(_curves(result).items()):
        colour, style = THEIRS[place // len(STYLES) % 2], STYLES[place % len(STYLES)]
        axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, linestyle=style, linewidth=1.4, label=name)
    best = max((row for row in result["table"]["rows"] if row["kind"] == "one_shot"), key=lambda row: row["value"])
    axes.plot([1], [best["value"]], "o", color=OURS, markersize=8)
    axes.axhline(best["value"], color=OURS, linewidth=1.2)
    axes.annotate(
        f"{best['name']}, one contact", (1, best["value"]), xytext=(7, 5), textcoords="offset points", color=OURS,
        fontsize=9,
    )  # fmt: skip
    _lines(result, axes)
    axes.set_xlabel("communication rounds")
    axes.set_ylabel(result["metric"])
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return _svg(figure)


def _gains(result: Mapping[str, Any]) -> str:
    """How much better the fused model is than each client's own, first seed, by the client's rows."""
    table, first = result["table"], next(iter(result["seeds"].values()))
    own = first["one_shot"][table["own"]]
    rows = [entry for entry in own["alone"] if entry["value"] is not None]
    if not rows:
        return ""
    figure, axes = _axes(result)
    counts = [entry["rows"] for entry in rows]
    gains = [own["value"] - entry["value"] for entry in rows]
    axes.scatter(counts, gains, color=OURS, s=34, alpha=0.8)
    if len(rows) <= 12:
        for count, gain, entry in zip(counts, gains, rows, strict=True):
            axes.annotate(
                entry["client"], (count, gain), xytext=(6, 4), textcoords="offset points", fontsize=9, color=INK
            )
    axes.axhline(0, color=SOFT, linewidth=1)
    if max(counts) > 10 * min(counts):
        axes.set_xscale("log")
    axes.set_xlabel("rows the client has")
    axes.set_ylabel(f"gain in {result['metric']}: fused − its own")
    return _svg(figure)
