"""Every quick method still does what the kept comparisons say: it may not fall by more than its spread over the seeds.

The first seed is run again on the kept partition, by the code of today; test rows are the same, so a fall is a change.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from benchmarks import compare as bench
from fusionlearn import datasets
from fusionlearn.errors import DatasetError
from fusionlearn.simulate import compare, open_runner

pytest.importorskip("sklearn")

SLOW = ("distill_head", "average")  # seconds rather than milliseconds
TASKS = ("digits", "heart")


def asked(name: str) -> tuple[dict[str, Any], compare.Question, dict[str, Any]]:
    """A kept comparison, its question and its rows."""
    kept = json.loads((bench.RESULTS / f"compare-{name}.json").read_text())
    try:
        if name == "heart":
            datasets.find("heart_disease")
        return kept, *bench.question(tomllib.loads((bench.TASKS / f"{name}.toml").read_text()))
    except DatasetError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", TASKS)
def test_no_one_shot_method_falls_by_more_than_its_spread(name: str):
    kept, question, data = asked(name)
    seed = question.first_seed
    rows = compare.split(question, data, seed)
    before, spreads = kept["seeds"][str(seed)], {row["name"]: row["spread"] for row in kept["table"]["rows"]}
    assert rows.digest == before["partition"]
    metric = compare.Metric(kept["metric"], kept["metric_why"])
    fell = {}
    with open_runner("serial") as runner:
        for method, task in compare.one_shot_tasks(question).items():
            if isinstance(task, str) or method.startswith(SLOW):
                continue
            told = compare.one_shot(
                task, rows, metric, seed=seed, runner=runner, network=question.network, alone=False, step=lambda: None
            )
            if told["value"] < before["one_shot"][method]["value"] - spreads[method]:
                fell[method] = (before["one_shot"][method]["value"], told["value"])
            assert told["up"] <= before["one_shot"][method]["up"] * 1.02, f"{method} sends more than it did"
    assert fell == {}


@pytest.mark.parametrize("name", TASKS)
def test_no_rival_on_the_same_head_falls_by_more_than_its_spread(name: str):
    """A comparison with a rival that fell would be no comparison."""
    kept, question, data = asked(name)
    rows = compare.encoded(question.task, compare.split(question, data, question.first_seed))
    metric = compare.Metric(kept["metric"], kept["metric_why"])
    spreads = {row["name"]: row["spread"] for row in kept["table"]["rows"]}
    for rival, entry in kept["tuning"].items():
        if entry["learner"] != "head":
            continue
        curve = compare.federate(
            compare.Head(rows.problem), rows.clients, compare._rival(entry["rival"], question.rounds),
            lambda found: metric.of(rows.truth, found, question.task.schema), rows.test, seed=question.first_seed,
        )  # fmt: skip
        before = kept["seeds"][str(question.first_seed)]["rivals"][rival]["value"]
        assert curve.value[-1] >= before - max(spreads[rival], 1e-3), rival


def test_the_pages_are_what_the_results_say():
    told = "run `python benchmarks/compare.py --page` and `python benchmarks/run.py --page`"
    assert bench.PAGE.read_text(encoding="utf-8") == bench.page(), told
    for name in bench.kept():
        assert (bench.PLOTS / f"{name}.svg").exists(), told


def test_no_task_is_dropped():
    """Every task of benchmarks/tasks stands in one of the two tables, or is said not to be measured."""
    text = "\n".join(bench.section())
    found = bench.kept()
    for path in bench.TASKS.glob("*.toml"):
        title = tomllib.loads(path.read_text())["title"]
        assert f"| {title}" in text if path.stem in found else path.stem in text.partition("Not measured yet: ")[2]


def test_a_rival_is_ahead_only_where_it_is_more_accurate_and_smaller():
    """The page's count is of this and nothing else: a rival as good in as many bytes does not count."""
    row = {"kind": "rivals", "name": "FedAvg", "rounds": 4, "up": 400.0}
    seeds = {"0": {"rivals": {"FedAvg": {"curve": [0.5, 0.7, 0.8, 0.9]}}}}
    for value, up, ahead in ((0.7, 200, []), (0.7, 400, [3]), (0.8, 400, []), (0.79, 301, [3]), (0.79, 300, [])):
        told = compare._dominated([row], {"value": value, "up": up}, seeds)
        assert [entry["round"] for entry in told] == ahead
