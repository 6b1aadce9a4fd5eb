"""The coordinator's report: losses from statistics equal losses from rows, and mix-ups are named."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import file, keys, method, units
from fusionlearn.report import diagnose


def task(name: str = "ridge", **settings):
    return fl.new_task(
        "report",
        {
            "age": fl.Number(0, 120, 50, 10, "years"),
            "chol": fl.Number(0, 700, 240, 50, "mg/dL"),
            "sex": fl.Category(("f", "m")),
        },
        fl.ClassLabel("sick", (("no", ("0",)), ("yes", ("1",)))),
        method=method.make(name, settings),
        privacy="none",
        max_records=100_000,
    )


def client(n: int, seed: int, **fixed):
    rng = np.random.default_rng(seed)
    data = {
        "age": rng.uniform(30, 80, n),
        "chol": np.clip(rng.normal(240, 45, n), 100, 600),
        "sex": rng.choice(["f", "m"], n),
    }
    data["sick"] = (data["age"] / 80 + rng.normal(0, 0.3, n) > 0.7).astype(int)
    return data | fixed


def reported(a_task, tables, answers=None):
    answers = answers or [file.sign(fl.summarize(a_task, table), keys.generate()) for table in tables]
    model, report = fl.fuse(a_task, answers)
    names = {fl.digest(answer): f"site {i + 1}" for i, answer in enumerate(answers)}
    return model, diagnose(a_task, model, report, answers, names), answers


def test_losses_from_statistics_equal_losses_from_the_rows():
    a_task = task()
    tables = [client(n, n) for n in (60, 90, 120)]
    model, report, answers = reported(a_task, tables)
    for k, (row, table) in enumerate(zip(report.findings["clients"], tables, strict=True)):
        encoded = a_task.encoder.encode(a_task.schema.read(table).data, a_task.schema, {})
        hits = (encoded["y"][:, None] == np.arange(2)).astype(float)

        def loss(weights, bias, x=encoded["x"], y=hits):
            return float(((x @ weights + bias - y) ** 2).sum(axis=1).mean())

        assert row["loss"] == pytest.approx(loss(model.arrays["weights"], model.arrays["bias"]), rel=1e-8)
        others, _ = fl.fuse(a_task, [answer for i, answer in enumerate(answers) if i != k])
        assert row["loss_without"] == pytest.approx(loss(others.arrays["weights"], others.arrays["bias"]), rel=1e-8)
        assert row["share"] == pytest.approx(len(table["age"]) / 270)
        assert row["classes"] == {"no": int((table["sick"] == 0).sum()), "yes": int((table["sick"] == 1).sum())}


def test_a_column_in_another_unit_is_named_with_the_likely_unit():
    tables = [client(80, 1), client(80, 2), client(80, 3)]
    tables[2]["chol"] = tables[2]["chol"] / 38.67
    _, report, _ = reported(task(), tables)
    assert any(
        note.startswith("chol at site 3 is ") and "times lower" in note and note.endswith("mmol/L?")
        for note in report.findings["notices"]
    )
    assert not any("age" in note for note in report.findings["notices"])


def test_honest_clients_get_no_notice():
    _, report, _ = reported(task(), [client(80, seed) for seed in range(5)])
    assert report.findings["notices"] == []


def test_a_column_that_is_constant_at_one_client_is_named():
    _, report, _ = reported(task(), [client(80, 1), client(80, 2), client(80, 3, chol=np.zeros(80))])
    assert any("chol at site 3 is the same in every record" in note for note in report.findings["notices"])


def test_one_client_or_one_class_that_dominates_is_named():
    _, report, _ = reported(task(), [client(900, 1, sick=np.r_[np.zeros(880, int), np.ones(20, int)]), client(30, 2)])
    notes = " ".join(report.findings["notices"])
    assert "site 1 holds 97% of all records" in notes and "class 'no' makes up" in notes


def test_clients_with_one_class_and_classes_nobody_has_are_named():
    three = fl.new_task(
        "three",
        {"age": fl.Number(0, 120)},
        fl.ClassLabel("sick", (("no", ("0",)), ("yes", ("1",)), ("maybe", ("2",)))),
        privacy="none",
    )
    tables = [{"age": [20, 30, 40], "sick": [0, 0, 0]}, {"age": [50, 60, 61], "sick": [1, 1, 0]}]
    _, report, _ = reported(three, tables)
    notes = " ".join(report.findings["notices"])
    assert "site 1 holds records of class 'no' only" in notes and "no client holds class 'maybe'" in notes


def test_what_a_total_hides_is_not_available():
    a_task = task()
    updates = [file.sign(fl.summarize(a_task, client(50, seed)), keys.generate()) for seed in range(3)]
    _, report, _ = reported(a_task, [], [fl.add(a_task, *updates[:2]), updates[2]])
    total, single = report.findings["clients"]
    assert total["total_of"] == 2 and total["loss_without"] is None and total["loss"] is not None
    assert single["loss_without"] is not None


@pytest.mark.parametrize("name", ["ensemble", "forest", "gaussian"])
def test_every_method_gets_a_report(name):
    settings = {"trees": 3} if name == "forest" else {}
    _, report, _ = reported(task(name, **settings), [client(50, seed) for seed in range(3)])
    assert len(report.findings["clients"]) == 3
    assert all(row["loss"] is None and row["loss_without"] is None for row in report.findings["clients"])


def test_likely_units():
    assert units.likely("chol", "mg/dL", 38.7) == "mmol/L"
    assert units.likely("chol", "mmol/L", 1 / 38.7) == "mg/dL"
    assert units.likely("height", "cm", 100) == "m"
    assert units.likely("chol", "mg/dL", 3.0) is None
