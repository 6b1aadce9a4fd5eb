"""Comparing: every row of the table measured on the same rows, the same on every runner, kept and gone on with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests import rounds, test_simulate

from fusionlearn import cli, partition
from fusionlearn.cli import simulate as simulate_cli
from fusionlearn.encoder import Chain
from fusionlearn.errors import SettingsError
from fusionlearn.simulate import compare, open_runner, page, plots

pytest.importorskip("sklearn")
pytest.importorskip("torch")

QUESTION = compare.Question(
    rounds.task(), partition.parse("dirichlet:0.5"), 6, 2, rounds=3, methods=("gaussian",), networks=("linear",)
)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with open_runner("serial") as runner:
        return compare.compare(QUESTION, test_simulate.table(), runner)


def test_the_table_holds_every_row(found: dict[str, Any]):
    table = found["table"]
    names = [row["name"] for row in table["rows"]]
    assert names == [
        "ridge", "gaussian", "FedAvg, same head", "FedProx, same head", "FedAdam, same head", "FedAvg, linear",
        "FedProx, linear", "FedAdam, linear",
    ]  # fmt: skip
    for row in table["rows"]:
        assert 0 <= row["value"] <= 1 and row["up"] > 0 and row["client_seconds"] > 0
        assert row["rounds"] == (1 if row["kind"] == "one_shot" else 3)
    fedavg = table["rows"][2]
    assert fedavg["up"] == 3 * 4 * (4 * 2 + 2)  # rounds · bytes · weights of the head
    assert len(table["partitions"]) == 2 and table["pooled"][0] > 0.5
    json.dumps(found, allow_nan=False)


def test_another_runner_gives_the_same_figures(found: dict[str, Any]):
    with open_runner("processes", 2) as runner:
        again = compare.compare(QUESTION, test_simulate.table(), runner)
    for here, there in zip(found["table"]["rows"], again["table"]["rows"], strict=True):
        assert (here["name"], here["value"], here["up"]) == (there["name"], there["value"], there["up"])
    assert found["table"]["isolated"] == again["table"]["isolated"]
    assert found["table"]["pooled"] == again["table"]["pooled"]


def test_finished_seeds_are_not_run_again(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    known = json.loads(json.dumps({name: found[name] for name in ("settings", "seeds", "tuning")}))
    for part in ("one_shot", "_tune", "run_cell", "attack_cell", "pooled", "simulate"):
        monkeypatch.setattr(compare, part, lambda *_, **__: pytest.fail("it was run again"))
    with open_runner("serial") as runner:
        again = compare.compare(QUESTION, test_simulate.table(), runner, known=known)
    assert again["table"]["rows"][0]["value"] == found["table"]["rows"][0]["value"]


def test_a_further_method_leaves_the_rivals_as_they_are(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    known = json.loads(json.dumps({name: found[name] for name in ("settings", "seeds", "tuning")}))
    for part in ("_tune", "run_cell", "attack_cell", "pooled"):
        monkeypatch.setattr(compare, part, lambda *_, **__: pytest.fail("it was run again"))
    question = dataclasses.replace(QUESTION, methods=("ensemble",))
    with open_runner("serial") as runner:
        again = compare.compare(question, test_simulate.table(), runner, known=known)
    assert [row["name"] for row in again["table"]["rows"]][:3] == ["ridge", "ensemble", "FedAvg, same head"]


def test_test_rows_choose_nothing():
    """Learning rates are the same whatever the labels of the test rows are."""
    data = test_simulate.table()
    rows = compare.split(QUESTION, data, 0)
    order = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(7,))).permutation(240)[:60]
    other = {name: np.array(cells) for name, cells in data.items()}
    other["ill"][order] = np.where(other["ill"][order] == "0", "1", "0")
    assert len(rows.test["ill"]) == 60
    with open_runner("serial") as runner:
        metric = compare.Metric("accuracy", "")
        one, two = (compare._tuning(QUESTION, some, metric, runner, {}, lambda: None) for some in (data, other))
    assert one == two


def test_the_page_is_whole_and_self_contained(found: dict[str, Any]):
    pytest.importorskip("matplotlib")
    text = page.html(found)
    assert 'src="http' not in text and "<script" not in text and "href=" not in text
    assert text.count("data:image/svg+xml;base64,") >= 2
    for row in found["table"]["rows"]:
        assert row["name"] in text


def test_a_rare_class_is_judged_by_average_precision():
    schema = rounds.task().schema
    truth = np.r_[np.ones(3, int), np.zeros(97, int)]
    assert compare.metric_for(schema, truth).name == "average precision"
    assert compare.metric_for(schema, np.r_[np.ones(30, int), np.zeros(70, int)]).name == "accuracy"
    assert compare.metric_for(rounds.task(regression=True).schema, truth).name == "R²"


def test_the_network_s_time_is_the_stated_formula():
    network = compare.parse_network("20Mbit,50ms,10%")
    # one of ten clients is ten times slower: 5 rounds · 10 · (0.1 + 8 · 3 MB / 20 Mbit/s + 2 s)
    assert network.elapsed(5, 1e6, 2e6, 2.0, 10) == pytest.approx(5 * 10 * (0.1 + 1.2 + 2.0))
    assert network.elapsed(1, 0, 0, 1.0, 3) == pytest.approx(1.1)
    for text in ("fast", "20,50,10", "0Mbit,1ms,0%"):
        with pytest.raises(SettingsError, match="is no network"):
            compare.parse_network(text)


def test_rounds_to_reach():
    assert compare._reached([0.5, 0.7, 0.9], 0.7) == 2 and compare._reached([0.5], 0.7) is None
    assert compare.rounds_text([2, 4], 50) == "3" and compare.rounds_text([None], 50) == "never in 50"
    assert compare.rounds_text([2, None], 50) == "2 (1 of 2 seeds)"


def test_an_update_larger_than_its_data_is_flagged():
    question = dataclasses.replace(QUESTION, partition=partition.parse("iid"), clients=60, seeds=1)
    with open_runner("serial") as runner:
        rows = compare.split(question, test_simulate.table(), 0)
        told = compare.one_shot(
            question.task, rows, compare.Metric("accuracy", ""), seed=0, runner=runner, network=question.network,
            alone=False, step=lambda: None,
        )  # fmt: skip
    assert told["larger_than_data"] == 60


def test_the_command(tmp_path: Path):
    task, rows = test_simulate.on_disk(tmp_path)
    given = [
        "compare", task, rows, "--partition", "column:ward", "--seeds", "1", "--rounds", "2", "--rival-network",
        "linear", "--method", "gaussian", "--html", str(tmp_path / "page.html"), "--out", str(tmp_path / "out.json"),
    ]  # fmt: skip
    done = CliRunner().invoke(cli.main, given)
    assert done.exit_code == 0, done.output
    assert "FedAdam, linear" in done.output and max(map(len, done.stdout.splitlines())) <= 100
    assert (tmp_path / "page.html").stat().st_size > 10_000
    refused = CliRunner().invoke(cli.main, [*given[:3], "--clients", "500", "--partition", "iid"])
    assert refused.exit_code == 1 and "cannot share" in refused.output


def test_a_narrow_terminal_leaves_columns_out_rather_than_cutting_them(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(simulate_cli, "WIDE", 72)
    simulate_cli._print_table(found, plots.share)
    told = capsys.readouterr().out
    assert "…" not in told and max(map(len, told.splitlines())) <= 72
    assert "A wider terminal shows besides: clients" in told
    for row in found["table"]["rows"]:
        assert f"{100 * row['value']:.1f} %" in told


class Cut(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("parts", [3, 9])
def test_an_interrupted_comparison_goes_on_where_it_was(found: dict[str, Any], parts: int):
    """After any part; the figures are those of a comparison that nobody interrupted."""
    kept: list[str] = []

    def keep(so_far: dict[str, Any]) -> None:
        kept.append(json.dumps(so_far))
        if len(kept) == parts:
            raise Cut

    with open_runner("serial") as runner:
        with pytest.raises(Cut):
            compare.compare(QUESTION, test_simulate.table(), runner, done=keep)
        again = compare.compare(QUESTION, test_simulate.table(), runner, known=json.loads(kept[-1]))
    assert "unfinished" not in again and again["tuning"] == found["tuning"]
    for one, two in zip(json.loads(json.dumps(found["table"]["rows"])), again["table"]["rows"], strict=True):
        for what in ("name", "value", "up", "privacy", "reached"):
            assert one[what] == two[what]


def test_networks_may_read_the_columns_in_another_way():
    """The head and the one-shot methods keep the task's features; the network gets as many as the columns are wide."""
    from fusionlearn.encoders.random_features import RandomFeatures
    from fusionlearn.encoders.table import Table

    task = rounds.task()
    wide = dataclasses.replace(
        task,
        encoder=Chain((Table(), RandomFeatures(num_features=16, bandwidth=2.0))),
        max_bytes=0,
        signer="",
        signature="",
    )
    question = dataclasses.replace(QUESTION, task=wide, seeds=1, rounds=1, network_encoder=(Table(),), tuning_rounds=1)
    assert [part["name"] for part in question.settings()["network_encoder"]] == ["table"]
    with open_runner("serial") as runner:
        told = compare.compare(question, test_simulate.table(), runner)
    rows = {row["name"]: row for row in told["table"]["rows"]}
    assert rows["FedAvg, same head"]["up"] == 4 * (16 * 2 + 2)
    assert rows["FedAvg, linear"]["up"] == 4 * (4 * 2 + 2)


def test_pixels_are_standardised_all_alike():
    """A pixel that is lit once in a thousand images is not blown up."""
    import fusionlearn as fl

    images = np.zeros((1000, 4))
    images[:, 0], images[7, 3] = np.arange(1000) % 2 * 255, 255
    data = {"pixels": images, "y": np.arange(1000).astype(str)}
    data["y"][:] = np.where(np.arange(1000) % 2, "a", "b")
    task = fl.new_task(
        "images", {"pixels": fl.Vector(4, 0, 255)}, fl.ClassLabel("y", {"a": ["a"], "b": ["b"]}), privacy="none"
    )
    question = dataclasses.replace(QUESTION, task=task, partition=partition.parse("iid"))
    scaled = compare.encoded(task, compare.split(question, data, 0))
    assert max(abs(x).max() for x, _ in scaled.clients) < 5
