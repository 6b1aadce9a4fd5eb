"""A comparison drawn: the metric against bytes, against rounds, and what each client gains. SVG, light and dark."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusionlearn.errors import MissingExtra

STYLES = ("-", "--", ":")  # one for each algorithm
MARKS = "osD^vPX*<>"  # one for each one-shot method
FEW = 12  # clients that are still named


@dataclass(frozen=True)
class Ink:
    """Colours on a page."""

    text: str
    soft: str
    ours: str
    theirs: tuple[str, str]  # on the same head, on a network
    pooled: str
    paper: str  # "none": whatever is behind


LIGHT = Ink("#1b2430", "#8a95a3", "#0b6e6e", ("#d98032", "#8f3a0d"), "#7b5ea7", "none")
DARK = Ink("#e6ebf0", "#8a97a5", "#4cc2bd", ("#f0b071", "#d9743f"), "#b79be6", "none")
PAPER = Ink(**{**LIGHT.__dict__, "paper": "white"})  # for pages of unknown colour


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


def against_bytes(result: Mapping[str, Any], ink: Ink) -> bytes:
    """One-shot methods as points, rivals as lines over their rounds."""
    figure, axes = _axes(result, ink)
    rows = {row["name"]: row for row in result["table"]["rows"] if row["kind"] == "rivals"}
    for place, (name, curve) in enumerate(_curves(result).items()):
        each = rows[name]["up"] / rows[name]["rounds"]
        _line(axes, ink, place, name, each * np.arange(1, len(curve) + 1), curve)
    for place, row in enumerate(_ours(result)):
        axes.errorbar(
            row["up"], row["value"], yerr=row["spread"], fmt=MARKS[place % len(MARKS)], color=ink.ours, markersize=8,
            capsize=3, elinewidth=0.8, label=row["name"], markerfacecolor=ink.ours if row["mine"] else "none",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: size(value))
    _held_against(result, axes, ink)
    axes.set_xlabel("bytes a client sends, all rounds together")
    return _svg(figure, axes, result, ink)


def against_rounds(result: Mapping[str, Any], ink: Ink) -> bytes:
    """The best one-shot method after its one contact, rivals round after round."""
    figure, axes = _axes(result, ink)
    for place, (name, curve) in enumerate(_curves(result).items()):
        _line(axes, ink, place, name, np.arange(1, len(curve) + 1), curve)
    best = max(_ours(result), key=lambda row: row["value"])
    axes.axhline(best["value"], color=ink.ours, linewidth=1.2)
    axes.plot([1], [best["value"]], "o", color=ink.ours, markersize=8, label=f"{best['name']}, one contact")
    _held_against(result, axes, ink)
    axes.set_xlabel("communication rounds")
    return _svg(figure, axes, result, ink)


def gains(result: Mapping[str, Any], ink: Ink) -> bytes | None:
    """How much better the fused model is than each client's own, first seed, by the client's rows."""
    table, first = result["table"], next(iter(result["seeds"].values()))
    own = first["one_shot"][table["own"]]
    rows = [entry for entry in own["alone"] if entry["value"] is not None]
    if not rows:
        return None
    figure, axes = _axes(result, ink)
    counts = [entry["rows"] for entry in rows]
    gained = [own["value"] - entry["value"] for entry in rows]
    if result["metric"] == "accuracy":
        gained = [100 * gain for gain in gained]
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}")
    axes.scatter(counts, gained, color=ink.ours, s=34, alpha=0.8)
    if len(rows) <= FEW:
        for count, gain, entry in zip(counts, gained, rows, strict=True):
            right = count > (min(counts) + max(counts)) / 2
            axes.annotate(
                entry["client"], (count, gain), xytext=(-6 if right else 6, 4), textcoords="offset points", fontsize=9,
                color=ink.text, ha="right" if right else "left",
            )  # fmt: skip
    axes.axhline(0, color=ink.soft, linewidth=1)
    if max(counts) > 10 * min(counts):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("rows the client has")
    unit = "points of accuracy" if result["metric"] == "accuracy" else result["metric"]
    return _svg(figure, axes, result, ink, label=f"gain over its own model, {unit}")


def _ours(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in result["table"]["rows"] if row["kind"] == "one_shot"]


def _curves(result: Mapping[str, Any]) -> dict[str, Any]:
    """Each rival's mean over the seeds, round by round."""
    seeds = list(result["seeds"].values())
    return {name: np.mean([seed["rivals"][name]["curve"] for seed in seeds], axis=0) for name in seeds[0]["rivals"]}


def _line(axes: Any, ink: Ink, place: int, name: str, across: Any, curve: Any) -> None:
    colour, style = ink.theirs[place // len(STYLES) % 2], STYLES[place % len(STYLES)]
    axes.plot(across, curve, color=colour, linestyle=style, linewidth=1.4, label=name)


def _held_against(result: Mapping[str, Any], axes: Any, ink: Ink) -> None:
    """What everything is held against: all rows in one place, and a client alone."""
    table = result["table"]
    for name, text, colour in (
        ("pooled", "all rows in one place", ink.pooled), ("isolated", "a client alone, mean", ink.soft),
    ):  # fmt: skip
        if table[name]:
            axes.axhline(table[name][0], color=colour, linewidth=1.2, linestyle=(0, (5, 3)), label=text, zorder=1)


def _axes(result: Mapping[str, Any], ink: Ink) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("the page's plots", "matplotlib", "compare") from error
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fusionlearn"  # the same plot is the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.2, 5.2), layout="constrained")
    figure.set_facecolor(ink.paper)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(ink.soft)
    axes.tick_params(which="both", colors=ink.soft, labelcolor=ink.text)
    axes.grid(alpha=0.25, color=ink.soft)
    if result["metric"] == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    return figure, axes


def _svg(figure: Any, axes: Any, result: Mapping[str, Any], ink: Ink, label: str = "") -> bytes:
    from matplotlib import pyplot

    axes.xaxis.label.set_color(ink.text)
    axes.set_ylabel(label or result["metric"], color=ink.text)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=ink.text)
    target = io.BytesIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return target.getvalue()
