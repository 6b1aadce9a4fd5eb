"""The demonstration with networks: every stage has its accuracy and bytes, and the drawn figures are figures."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from fusionlearn import cli, demo_networks

pytest.importorskip("torch")
pytest.importorskip("sklearn")

STAGES = ["pre-train", "train", "distil", "average", "broadcast"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_networks, "PUBLIC_ROWS", 300)
    monkeypatch.setattr(demo_networks, "CLIENTS", 3)
    monkeypatch.setattr(demo_networks, "TEACHER", "mlp:hidden=64,epochs=2")


def test_the_figures_that_are_drawn_can_be_read() -> None:
    pixels, digits = demo_networks.draw(400, 0)
    assert pixels.shape == (400, 64) and pixels.min() == 0 and pixels.max() == 16
    assert sorted(set(digits.tolist())) == list(range(10))
    from sklearn.linear_model import LogisticRegression

    half = LogisticRegression(max_iter=300).fit(pixels[:200] / 16, digits[:200])
    assert half.score(pixels[200:] / 16, digits[200:]) > 0.5
    again, other = demo_networks.draw(400, 0)[0], demo_networks.draw(400, 1)[0]
    assert (again == pixels).all() and (other != pixels).any()


@pytest.mark.usefixtures("small")
def test_every_stage_has_its_accuracy_and_bytes() -> None:
    done = CliRunner().invoke(cli.main, ["demo", "--networks", "--json", "--seed", "3"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [stage["name"] for stage in told["stages"]] == STAGES
    for stage in told["stages"]:
        assert 0.05 < stage["accuracy"] <= 1 and stage["bytes"] > 0
    by_name = {stage["name"]: stage for stage in told["stages"]}
    assert by_name["average"]["accuracy"] == by_name["broadcast"]["accuracy"]
    assert by_name["broadcast"]["bytes"] == 3 * by_name["average"]["bytes"]
    assert by_name["average"]["accuracy"] > by_name["distil"]["accuracy"]
    assert len(told["partition"]["sha256"]) == 64
    from rich.console import Console

    page = io.StringIO()
    demo_networks.render(told, Console(file=page, width=100))
    assert all(f" {name} " in page.getvalue() for name in STAGES)
    assert "without a teacher" in page.getvalue()


def test_a_pixel_of_noise_is_all_that_two_seeds_need() -> None:
    one, _ = demo_networks.draw(10, 5)
    assert np.unique(one, axis=0).shape == one.shape
