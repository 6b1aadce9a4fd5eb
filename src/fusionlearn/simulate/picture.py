"""A picture of who has what: a bar for each client, as long as it has rows, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import MissingExtra, SettingsError
from fusionlearn.file import replacing
from fusionlearn.partition import tenths

MOST_BARS = 120  # clients drawn; of more, as many spread evenly
MOST_NAMES = 40  # clients named
MOST_CLASSES = 20  # classes named
LONGEST = 28  # characters of a name
ENDINGS = ("png", "svg", "pdf")


def draw(
    path: Path,
    labels: NDArray[Any],
    parts: Sequence[NDArray[np.int64]],
    names: Sequence[str],
    classes: Sequence[str] = (),
) -> None:
    """Write the picture: PNG, SVG or PDF by the file's name.

    labels   (n,) class of each row, counted from 0, -1 where there is none; or numbers, which are drawn by tenths
    names    of the clients
    classes  names of the classes
    Errors   MissingExtra without matplotlib, SettingsError for another ending
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in ENDINGS:
        raise SettingsError(f"{path.name} is no name for a picture: it ends in {', '.join(ENDINGS)}.")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("a picture", "matplotlib", "compare") from error
    codes, called = _named(np.asarray(labels), classes)
    shown = np.unique(np.linspace(0, len(parts) - 1, min(MOST_BARS, len(parts))).astype(int))
    counts = np.array([np.bincount(codes[parts[client]], minlength=len(called)) for client in shown])
    figure = Figure(figsize=(9, max(2.4, 0.16 * len(shown) + 1.2)), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["viridis" if labels.dtype.kind == "f" else "tab20" if len(called) > 10 else "tab10"]
    left = np.zeros(len(shown))
    for place, name in enumerate(called):
        colour = colours(place / max(1, len(called) - 1)) if labels.dtype.kind == "f" else colours(place % 20)
        axes.barh(np.arange(len(shown)), counts[:, place], left=left, color=colour, height=0.82, label=name)
        left += counts[:, place]
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    labelled = len(shown) <= MOST_NAMES
    axes.set_yticks(np.arange(len(shown)) if labelled else [])
    if labelled:
        axes.set_yticklabels([_short(names[client]) for client in shown], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(_caption(parts, len(shown)))
    if len(called) <= MOST_CLASSES:
        axes.legend(title="class", frameon=False, fontsize=8, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=140, facecolor="white")


def _named(labels: NDArray[Any], classes: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Codes from 0, and what each is called; numbers by tenths of their order."""
    if labels.dtype.kind == "f":
        codes = tenths(labels)
        return codes, [f"{tenth + 1}. tenth" for tenth in range(int(codes.max(initial=0)) + 1)]
    lost = labels < 0
    count = max(len(classes), int(labels.max(initial=-1)) + 1)
    called = [classes[code] if code < len(classes) else str(code) for code in range(count)]
    return np.where(lost, count, labels).astype(np.int64), [*map(_short, called), *["(none)"] * bool(lost.any())]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _caption(parts: Sequence[NDArray[np.int64]], shown: int) -> str:
    empty = sum(not len(part) for part in parts)
    told = f"rows; {len(parts)} clients"
    told += f", {empty} of them without a row" if empty else ""
    return told + (f"; {shown} shown" if shown < len(parts) else "")
