"""A picture of who has what: a bar for each client, as long as it has rows, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import MissingExtra
from fusionlearn.file import replacing

MOST_BARS = 120  # clients drawn; of more, as many spread evenly


def draw(path: Path, labels: NDArray[Any], parts: Sequence[NDArray[np.int64]], names: Sequence[str]) -> None:
    """Write the picture, PNG or SVG by the file's name.

    labels  (n,) class of each row
    Errors  MissingExtra without matplotlib
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("a picture", "matplotlib", "compare") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = np.unique(np.linspace(0, len(parts) - 1, min(MOST_BARS, len(parts))).astype(int))
    classes = np.unique(labels)
    counts = np.array([[np.count_nonzero(labels[parts[client]] == label) for label in classes] for client in shown])
    figure, axes = pyplot.subplots(figsize=(9, max(2.4, 0.16 * len(shown) + 1.2)), layout="constrained")
    colours = pyplot.get_cmap("tab20" if len(classes) > 10 else "tab10")
    left = np.zeros(len(shown))
    for place, label in enumerate(classes):
        axes.barh(
            np.arange(len(shown)), counts[:, place], left=left, color=colours(place % 20), height=0.82,
            label=str(label) if len(classes) <= 20 else None,
        )  # fmt: skip
        left += counts[:, place]
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks(np.arange(len(shown)) if len(shown) <= 40 else [])
    if len(shown) <= 40:
        axes.set_yticklabels([names[client] for client in shown], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"rows; {len(parts)} clients" + (f", {len(shown)} shown" if len(shown) < len(parts) else ""))
    if len(classes) <= 20:
        axes.legend(title="class", frameon=False, fontsize=8, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    kind = path.suffix.lstrip(".").lower() or "png"
    with replacing(path) as file:
        figure.savefig(file, format=kind if kind in ("png", "svg", "pdf") else "png", dpi=140)
    pyplot.close(figure)
