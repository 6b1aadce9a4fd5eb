"""`auto`: several candidates in one upload, each as if alone; the choice, its reason, and what speaks against one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import arrays, method, partition, report, run, teacher, testing
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.methods import auto as subject
from fusionlearn.methods.auto import Auto
from fusionlearn.problem import Problem


@pytest.fixture(scope="module", autouse=True)
def _quick_teachers():
    """What is sent does not hang on how good a teacher is: three trees will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "DEFAULT", "forest:trees=3")
        yield


def problem_of(classes: int, width: int, bound: float = 60.0) -> Problem:
    return Problem(
        "binary" if classes == 2 else "multiclass", tuple(map(str, range(classes))),
        tuple(f"f{j}" for j in range(width)), (bound,) * width, 100_000,
    )  # fmt: skip


def rows_of(
    rows: int, classes: int = 3, width: int = 8, seed: int = 0, apart: float = 1.2
) -> tuple[np.ndarray, np.ndarray]:
    """Normal rows around class means that do not depend on the seed."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    means = apart * np.random.default_rng(99).standard_normal((classes, width))
    return rng.standard_normal((rows, width)) + means[y], y


def squares(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that no line divides: trees see them."""
    x = np.random.default_rng(seed).uniform(-1, 1, (rows, 4))
    return x, ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(np.int64)


def summaries(made: method.Method, parts: list[tuple[Any, Any]], problem: Problem) -> list[dict[str, Any]]:
    return [
        made.summarize({"x": x, "y": y}, problem, {}, rng=np.random.default_rng(number))
        for number, (x, y) in enumerate(parts)
    ]


def fused(made: method.Method, parts: list[tuple[Any, Any]], problem: Problem) -> tuple[dict[str, Any], dict[str, Any]]:
    return made.fuse(summaries(made, parts, problem), problem, {}, rng=np.random.default_rng(0))


MIXES = [
    ("ridge", "gaussian"),
    ("gaussian", "ridge"),
    ("naive_bayes", "ridge"),
    ("ridge", "ensemble"),
    ("gaussian:covariance=diagonal", "gaussian", "ridge:penalty=0.1", "ridge"),
]


@pytest.mark.parametrize("candidates", MIXES, ids=["+".join(mix) for mix in MIXES])
@pytest.mark.parametrize("judge", ["rows", "clients"])
def test_bundles_keep_the_laws(candidates, judge):
    testing.check_method(Auto(candidates, judge), tries=2)


@pytest.mark.parametrize("word", [64, 32])
def test_each_candidate_is_what_it_would_be_alone(word):
    problem = problem_of(3, 8)
    parts = [rows_of(80, seed=seed) for seed in range(4)]
    for place, text in enumerate((f"ridge:word={word}", f"gaussian:word={word}", f"distill_head:word={word},folds=2")):
        others = (f"ridge:word={word}", f"gaussian:word={word}", f"distill_head:word={word},folds=2")
        bundle = Auto(others)
        sent = summaries(bundle, parts, problem)
        taken = bundle._taken(problem, {})
        own = [bundle._view(place, one, taken, problem) for one in sent]
        model, _ = bundle._made[place].fuse(own, problem, {}, rng=np.random.default_rng(0))
        seeds = [int(np.random.default_rng(number).integers(2**31, size=7)[2 * place]) for number in range(4)]
        alone = [
            bundle._made[place].summarize({"x": x, "y": y}, problem, {}, rng=np.random.default_rng(seed))
            for (x, y), seed in zip(parts, seeds, strict=True)
        ]
        wanted, _ = bundle._made[place].fuse(alone, problem, {}, rng=np.random.default_rng(0))
        for name in wanted:
            np.testing.assert_allclose(model[name], wanted[name], rtol=1e-6, atol=1e-8, err_msg=text)


def test_what_several_need_is_sent_once():
    problem = problem_of(3, 30)
    ridge = sum(spec.max_bytes for spec in method.make("ridge").declare(problem, {}).values())
    both = Auto(("ridge", "gaussian")).declare(problem, {})
    assert sum(spec.max_bytes for spec in both.values()) == ridge
    three = Auto(("ridge", "gaussian", "distill_head")).declare(problem, {})
    assert [name for name in three if name.endswith(".gram")] == ["ridge.gram"]
    assert "distill_head.moment" in three


def test_additive_only_if_all_candidates_are_judged_from_sums():
    assert Auto(("ridge", "gaussian", "naive_bayes", "distill_head")).additive
    assert not Auto(("ridge", "ensemble")).additive
    assert not Auto(("ridge", "gaussian"), "clients").additive
    assert not Auto(("naive_bayes",) * 1 + ("gaussian:covariance=diagonal",)).additive


def test_linear_heads_are_judged_as_new_rows_judge_them():
    """With few rows a feature, the share right in the sums is far from that on new rows; left out, it is near."""
    for classes, width, rows in ((4, 60, 150), (2, 20, 60), (10, 80, 240)):
        problem = problem_of(classes, width)
        gaps: dict[str, list[float]] = {"ridge": [], "gaussian": []}
        for seed in range(3):
            x, y = rows_of(rows, classes, width, seed, apart=0.35)
            new_x, new_y = rows_of(4000, classes, width, 100 + seed, apart=0.35)
            bundle = Auto(("ridge", "gaussian"))
            _, found = fused(bundle, [(x, y)], problem)
            for one in found["candidates"]:
                alone = method.make(one["name"])
                model, _ = fused(alone, [(x, y)], problem)
                told = alone.predict(model, {"x": new_x}, problem, {})["probability"]
                gaps[one["name"]].append(one["from_sums"] - float((told.argmax(axis=1) == new_y).mean()))
        for name, gap in gaps.items():
            assert abs(float(np.mean(gap))) < 0.07, (name, classes, gap)


@pytest.mark.parametrize("name", ["ridge:penalty=0.03", "gaussian"])
def test_scores_are_those_of_rows_left_out(name):
    """By how much a row's class leads, in the mean over its rows: against models refitted without each row."""
    problem = problem_of(3, 12)
    x, y = rows_of(120, 3, 12, 5, apart=0.6)
    bundle = Auto((name,))
    alone = bundle._made[0]
    leads, seen = np.zeros((3, 3)), np.zeros((3, 3))

    def scores(model: Any, row: Any) -> Any:
        return row @ model["weights"] + model["bias"]

    whole, _ = fused(alone, [(x, y)], problem)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        model, _ = fused(alone, [(x[rest], y[rest])], problem)
        for table, found in ((leads, scores(model, x[i])), (seen, scores(whole, x[i]))):
            table[y[i]] += (found[y[i]] - found) / (y == y[i]).sum()
    sent = summaries(bundle, [(x, y)], problem)
    taken = bundle._taken(problem, {})
    bench = subject._Bench(bundle, taken, sent, problem, {0: fused(alone, [(x, y)], problem)})
    told, _ = bench._rows_left_out(0)
    mean = told.mean(axis=1)
    if name != "gaussian":  # (s - h y) / (1 - h): only s - h y is kept
        own = seen - (np.diag(mean)[:, None] - mean)
        pull = own.max(axis=1)  # h of each class
        mean = mean / (1 - pull[:, None])
    lead = np.diag(mean)[:, None] - mean
    others = ~np.eye(3, dtype=bool)
    drop = (seen - leads)[others]
    assert drop.min() > 0.01
    assert np.mean((seen - lead)[others] / drop) == pytest.approx(1.0, abs=0.15)


def test_the_sums_pick_the_candidate_that_new_rows_prefer():
    """A penalty that shrinks all to nothing under classes of unlike size is the worse, wherever it is listed."""
    problem = problem_of(3, 8)
    x, y = rows_of(600, seed=1)
    keep = (y != 2) | (np.arange(len(y)) % 8 == 0)
    parts = [(x[keep][part], y[keep][part]) for part in (slice(0, 150), slice(150, None))]
    for candidates in (("ridge:penalty=1000", "gaussian"), ("gaussian", "ridge:penalty=1000")):
        model, found = fused(Auto(candidates), parts, problem)
        assert found["chosen"] == "gaussian"
        assert "each row left out" in found["reason"]
        assert int(model["chosen"]) == candidates.index("gaussian")


def test_trees_are_taken_where_clients_are_alike_and_lines_fail():
    problem = problem_of(2, 4, 1.0)
    parts = [squares(300, seed) for seed in range(3)]
    _, found = fused(Auto(("ridge", "gaussian", "forest:trees=10")), parts, problem)
    assert found["chosen"] == "forest:trees=10" and "kept out themselves" in found["reason"]
    assert found["class_overlap"] == pytest.approx(1.0, abs=0.02) and found["shift"] < 0.1


def test_trees_are_refused_where_clients_share_no_class():
    problem = problem_of(4, 4, 4.0)
    parts = []
    for number in range(2):  # each client knows two classes, which no line divides
        x, y = squares(300, number)
        parts.append((x + np.array([0, 0, 0, 3 * number]), y + 2 * number))
    _, found = fused(Auto(("ridge", "forest:trees=10")), parts, problem)
    assert found["chosen"] == "ridge" and "share few classes (overlap 0.00 of 1)" in found["reason"]
    own = {one["name"]: one["own_rows"] for one in found["candidates"]}
    assert own["forest:trees=10"] > own["ridge"] + 0.2


def test_trees_are_refused_where_records_lie_apart():
    problem = problem_of(2, 4, 30.0)
    parts = [(x + 9.0 * number, y) for number, (x, y) in enumerate(squares(300, seed) for seed in range(3))]
    _, found = fused(Auto(("ridge", "forest:trees=10")), parts, problem)
    assert found["chosen"] == "ridge" and "standard deviations" in found["reason"] and found["shift"] > 1


def test_left_out_clients_judge_for_new_clients():
    """Two clients whose classes stand the other way round: either's model is wrong nearly always at the other."""
    problem = problem_of(2, 5)
    (x, y), (other_x, other_y) = rows_of(200, 2, 5, 0), rows_of(200, 2, 5, 1)
    _, alike = fused(Auto(judge="clients"), [(x, y), (other_x, other_y)], problem)
    _, found = fused(Auto(judge="clients"), [(x, y), (other_x, 1 - other_y)], problem)
    assert "each client left out" in found["reason"]
    assert alike["candidates"][0]["from_sums"] > 0.85 and found["candidates"][0]["from_sums"] < 0.15


def test_ranking_is_judged_where_a_class_dominates():
    problem = problem_of(2, 6)
    x, y = rows_of(4000, 2, 6, 3, apart=0.4)
    keep = (y == 0) | (np.arange(len(y)) % 12 == 0)
    _, found = fused(Auto(), [(x[keep], y[keep])], problem)
    assert "AUC" in found["reason"]
    model, _ = fused(method.make("gaussian"), [(x[keep], y[keep])], problem)
    new_x, new_y = rows_of(4000, 2, 6, 4, apart=0.4)
    from sklearn.metrics import roc_auc_score

    told = method.make("gaussian").predict(model, {"x": new_x}, problem, {})["probability"][:, 1]
    assert found["candidates"][1]["from_sums"] == pytest.approx(roc_auc_score(new_y, told), abs=0.03)


def test_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 200), np.round(rng.random((200, 2)), 1)
    wanted = roc_auc_score(y, scores[:, 1] - scores[:, 0])
    assert subject._ordered(scores, y, np.ones(200)) == pytest.approx(wanted)


def test_numbers_are_judged_by_squared_error():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 3))
    y = np.clip(x @ [1.0, -2.0, 0.5] + 0.1 * rng.standard_normal(300), -10, 10)
    problem = Problem("regression", (), ("a", "b", "c"), (1.0,) * 3, 1000, 10.0)
    _, found = fused(Auto(("ridge:penalty=10", "ridge", "gaussian")), [(x, y)], problem)
    assert found["chosen"] == "ridge" and "squared error" in found["reason"]
    assert found["candidates"][2]["judged"].startswith("passed over")
    assert -found["candidates"][1]["from_sums"] == pytest.approx(0.01, rel=0.4)
    bent = np.clip(10 * np.abs(x[:, 0]), -10, 10)
    _, found = fused(Auto(("ridge", "forest:trees=10")), [(x[:150], bent[:150]), (x[150:], bent[150:])], problem)
    assert found["chosen"] == "forest:trees=10"


def test_a_budget_takes_candidates_in_order_as_they_fit():
    problem = problem_of(3, 30)
    ridge = sum(spec.max_bytes for spec in method.make("ridge").declare(problem, {}).values())
    bundle = Auto(("ridge", "gaussian", "distill_head", "naive_bayes"), budget=ridge + 100)
    assert {name.split(".")[0] for name in bundle.declare(problem, {})} == {"ridge"}
    _, found = fused(bundle, [rows_of(100, 3, 30)], problem)
    passed = [one["name"] for one in found["candidates"] if one["judged"].startswith("passed over")]
    assert passed == ["distill_head", "naive_bayes"]
    with pytest.raises(SettingsError, match="the budget leaves 10"):
        Auto(("ridge",), budget=10).declare(problem, {})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"candidates": []}, "must name one method or more"),
        ({"candidates": ["ridge", "ridge"]}, "each once"),
        ({"candidates": ["auto"]}, "cannot be a candidate"),
        ({"candidates": ["translate"]}, "cannot be a candidate"),
        ({"candidates": ["nothing"]}, "no method is called 'nothing'"),
        ({"candidates": ["ridge:penalty"]}, "key=value"),
        ({"budget": -1}, "budget is -1"),
    ],
)
def test_wrong_settings_get_a_sentence(settings, told):
    with pytest.raises(SettingsError, match=told):
        method.make("auto", settings)


def test_no_evidence_beyond_what_its_rows_allow():
    problem = problem_of(2, 4, 1.0)
    bundle = Auto(("ridge", "ensemble"))
    sent = summaries(bundle, [squares(60, 0)], problem)[0]
    bundle.check(sent, problem, {}, "a")
    for name in ("own.wrong", "own.disorder"):
        with pytest.raises(UpdateError, match="more answers are wrong"):
            bundle.check({**sent, name: sent[name] + 61.0}, problem, {}, "a")
    broken = {**sent, "ridge.count": sent["ridge.count"] + 5}
    with pytest.raises(UpdateError, match="number of rows"):
        bundle.check(broken, problem, {}, "a")


def test_a_model_that_names_no_candidate_is_refused():
    problem = problem_of(3, 8)
    model, _ = fused(Auto(), [rows_of(60)], problem)
    with pytest.raises(SettingsError, match="candidate 7 was chosen"):
        Auto().predict({**model, "chosen": np.asarray(7)}, {"x": rows_of(3)[0]}, problem, {})


def test_totals_of_totals_choose_alike_and_the_report_says_why():
    x, y = rows_of(400)
    label = fl.ClassLabel("kind", tuple((str(k), (str(k),)) for k in range(3)))
    task = fl.new_task("t", {"x": fl.Vector(8, -60, 60)}, label, encoder="table", method=Auto(), privacy="none")
    parts = partition.dirichlet(y, 5, 0.3, rng=np.random.default_rng(0))
    updates = [run.summarize(task, {"x": x[part], "kind": y[part].astype(str)}) for part in parts]
    model, told = run.fuse(task, updates)
    again, _ = run.fuse(task, [run.add(task, *updates[:3]), *updates[3:]])
    assert fl.digest(model) == fl.digest(again)
    page = report.diagnose(task, model, told, updates)
    assert any(notice.startswith(f"{told.findings['chosen']} was chosen: ") for notice in page.findings["notices"])


def test_a_total_is_what_its_parts_are():
    problem = problem_of(3, 8)
    sent = summaries(Auto(), [rows_of(50, seed=seed) for seed in range(3)], problem)
    total = arrays.total(sent)
    Auto().check(total, problem, {}, "a total")
    assert set(arrays.subtract(total, sent[0])) == set(total)
    assert replace(Auto(), judge="rows") == Auto()
