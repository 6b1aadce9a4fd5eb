"""Presets of other people's settings: their rules of partition, a tiny run on the CPU, and going on with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import preset
from fusionlearn import partition

NAMES = sorted(path.stem for path in preset.PRESETS.glob("*.toml"))


def told(name: str) -> dict[str, Any]:
    return tomllib.loads((preset.PRESETS / f"{name}.toml").read_text())


def images(count: int, seed: int) -> preset.Rows:
    """Images with a bright bar where their class says."""
    labels = np.arange(count) % 10
    pixels = np.random.default_rng(seed).integers(0, 60, size=(count, 28, 28))
    pixels[np.arange(count), 2 * labels + 3] += 150
    return {"image": pixels.reshape(count, -1).astype(np.uint8), "label": labels.astype(str)}


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_divides_all_rows_by_its_rule(name: str):
    settings = told(name)
    labels = np.arange(50_000 if name == "afl" else 5_000) % 10
    parts = preset.divided(settings, labels, seed=0)
    partition.check(parts, len(labels))
    sizes = np.array([len(part) for part in parts])
    assert len(parts) == settings["clients"]
    if settings["rule"] == "capped":
        # only the class that brought a client to its equal share may lift it above it
        assert (
            sizes.min() >= settings["at_least"] and sizes.max() < len(labels) / settings["clients"] + len(labels) / 10
        )
    else:
        assert sizes.max() - sizes.min() <= 1
    largest = [np.bincount(labels[part], minlength=10).max() / len(part) for part in parts]
    assert np.mean(largest) > 0.35  # at 0.1 a client is far from the tenth of each class that all rows hold


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_poses_its_tasks(name: str):
    pytest.importorskip("torch")
    for entry in told(name)["run"]:
        if entry["encoder"] != "table" or name == "co_boosting":  # ResNet-18 takes seconds to lay out
            assert preset.posed(told(name), entry, "0" * 64).method.name == entry["method"]["name"]


def test_a_tiny_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    settings = {
        "title": "tiny", "data": "mnist", "clients": 3, "rule": "capped", "alpha": 1.0, "at_least": 10, "seeds": [0],
        "published": "nothing", "run": [
            {"name": "networks", "encoder": "table", "ensemble": True,
             "method": {"name": "average", "network": "mlp:hidden=8", "epochs": 3}},
            {"name": "a head, ridge", "encoder": "table", "method": {"name": "ridge"}},
        ],
    }  # fmt: skip
    monkeypatch.setattr(preset, "rows_of", lambda _told: (images(240, 0), images(60, 1)))
    found = preset.run("tiny", settings, tmp_path)
    seed = found["seeds"]["0"]
    assert seed["a head, ridge"]["fused"] > 0.8 > seed["a head, ridge"]["alone"]
    assert 0 < seed["networks"]["ensemble"] <= 1 and seed["networks"]["upload_bytes"] > 8 * 784 * 8
    (tmp_path / "tiny" / "0" / "a-head-ridge" / "1.update").unlink()  # as if it had been interrupted there
    made: list[int] = []
    summarize = preset.fl.summarize
    monkeypatch.setattr(preset.fl, "summarize", lambda *given, **named: (made.append(1), summarize(*given, **named))[1])
    again = preset.run("tiny", settings, tmp_path)
    assert len(made) == 1
    for name in ("networks", "a head, ridge"):
        assert again["seeds"]["0"][name]["fused"] == seed[name]["fused"]


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no GPU here"):
        preset.choose("cuda")
