"""Weights of networks that were pre-trained on public data: which are here, and how to get those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fusionlearn.cli.base import json_option, main, show_result, sized, watched_by_a_person
from fusionlearn.errors import SettingsError

if TYPE_CHECKING:
    from fusionlearn.weights import Published


@main.command("weights")
@click.argument("name", required=False)
@json_option
def weights_of(name: str | None, as_json: bool) -> None:
    """List pre-trained weights and where they are, or download those called NAME.

    Each file is compared with its published SHA-256, and kept whole or not at all.
    """
    from fusionlearn import weights  # 5 ms that no other command spends

    if name is not None:
        _fetch(name)
    rows = [
        {"name": one.name, "file": one.file, "bytes": one.num_bytes, "sha256": one.sha256, "path": _path(one)}
        for one in weights.PUBLISHED
        if name in (None, one.name)
    ]
    lines = [
        f"{one.name:<20} {one.file:<24} {sized(one.num_bytes):>8}  {_path(one) or _how(one)}"
        for one in weights.PUBLISHED
        if name in (None, one.name)
    ]
    show_result(as_json, {"weights": rows}, lines)


def _fetch(name: str) -> None:
    from fusionlearn import weights

    wanted = [one for one in weights.PUBLISHED if one.name == name]
    if not wanted:
        known = ", ".join(sorted({one.name for one in weights.PUBLISHED}))
        raise SettingsError(f"no weights are called '{name}'; there are {known}.")
    for one in wanted:
        if weights.place_of(one) is not None:
            continue
        if not one.url:
            raise SettingsError(f"'{name}' cannot be downloaded: {_how(one)}")
        weights.fetch(one, progress=watched_by_a_person())


def _path(one: Published) -> str | None:
    from fusionlearn import weights

    place = weights.place_of(one)
    return None if place is None else str(place)


def _how(one: Published) -> str:
    if one.extra:
        return f'pip install "fusionlearn[{one.extra}]"'
    return f"not here: fusionlearn weights {one.name}"
