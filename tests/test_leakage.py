"""The leakage page says what the update gives away: checked against brute force on small tables."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import method, run
from fusionlearn.privacy.leakage import SAMPLE, Attack, Witness, leverage_attack


def task(features: int, name: str = "ridge", **settings):
    return fl.new_task(
        "leak",
        {"v": fl.Vector(features, -8, 8, 0, 1), "ward": fl.Category(("a", "b", "c"))},
        fl.ClassLabel("sick", (("no", ("0",)), ("yes", ("1",)))),
        method=method.make(name, settings),
        privacy="none",
        max_records=100_000,
    )


def rows(n: int, features: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        "v": np.clip(rng.normal(size=(n, features)), -8, 8),
        "ward": rng.choice(["a", "b", "c"], n, p=[0.5, 0.49, 0.01] if n > 500 else [0.4, 0.4, 0.2]),
        "sick": rng.integers(0, 2, n),
    }


def page_of(a_task, data):
    witness = Witness(a_task)
    passed = run.client_pass(a_task, data, seen=witness)
    return witness.page(passed.update)


def brute_force(gram, z, weight):
    """Leverage with each row in the sum, and recomputed with it taken out."""
    inside = [row @ np.linalg.pinv(gram) @ row for row in z]
    outside = [row @ np.linalg.pinv(gram - w * np.outer(row, row)) @ row for row, w in zip(z, weight, strict=True)]
    return np.mean([[(o > i) + (o == i) / 2 for i in inside] for o in outside])


@pytest.mark.parametrize("weights", ["none", (1.0, 3.0)])
def test_the_attack_is_the_one_of_its_derivation(weights):
    a_task = task(5, class_weights=weights)
    data = rows(80, 5)
    witness = Witness(a_task)
    update = run.client_pass(a_task, data, seen=witness).update
    z = np.hstack([np.ones((80, 1)), witness.rows])
    weight = np.ones(80) if weights == "none" else np.array(weights)[data["sick"]]
    gram = (z * weight[:, None]).T @ z
    found = witness.page(update).attack
    assert found is not None
    assert found.auc == pytest.approx(brute_force(gram, z, weight), abs=2e-3)


def test_the_diagonal_alone_is_attacked_too():
    a_task = task(4, "gaussian", covariance="diagonal")
    attack = page_of(a_task, rows(30, 4)).attack
    assert attack is not None and 0.5 < attack.auc < 1.0


def test_no_more_rows_than_features_gives_every_member_away():
    attack = page_of(task(40), rows(30, 40)).attack
    assert attack is not None and attack.auc == 1.0 and attack.found == 1.0


@pytest.mark.parametrize(("ratio", "known"), [(1, 1.0), (2, 0.997), (4, 0.978), (16, 0.875), (64, 0.723)])
def test_the_attack_is_as_strong_as_measured_elsewhere_on_raw_gram_matrices(ratio, known):
    # d = 128, rows of unit length; the other measurement drew its outsiders afresh.
    x = np.random.default_rng(ratio).normal(size=(128 * ratio, 128))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = np.hstack([np.ones((len(x), 1)), x])
    found = leverage_attack(method.Moments(len(x), None, None, z.T @ z), x[:2000], np.zeros(len(x))[:2000])
    assert known - 0.02 <= found.auc <= known + 0.08
    assert found.low <= found.auc <= found.high


def test_small_cells_are_named_with_their_counts_and_large_ones_are_not():
    data = rows(100, 3)
    data["ward"][:] = "a"
    data["ward"][:3] = "b"
    data["sick"][:] = 0
    data["sick"][7] = 1
    page = page_of(task(3), data)
    cells = {(cell.column, cell.value, cell.count) for cell in page.small_cells}
    assert cells == {("ward", "b", 3), ("sick", "yes", 1)}
    text = " ".join(page.lines())
    assert "ward = b (3)" in text and "sick = yes (1)" in text and "exactly" in text


def test_a_class_nobody_has_is_no_small_cell_but_few_people_are():
    data = rows(10, 3)
    data["ward"][:] = "a"
    data["sick"][:] = 0
    page = page_of(task(3), data)
    assert [cell.count for cell in page.small_cells] == [10, 10] and page.has_small_cells


def test_methods_without_moments_say_that_the_attack_does_not_apply():
    page = page_of(task(3, "forest", trees=2), rows(100, 3))
    assert page.attack is None and "no second moments" in " ".join(page.lines())


def test_the_sample_is_bounded_and_fair():
    a_task = task(2)
    witness = Witness(a_task)
    n = 5 * SAMPLE
    data = rows(n, 2)
    data["v"][:, 0] = np.linspace(-1, 1, n)  # position in the table
    pieces = ({name: cells[i : i + 700] for name, cells in data.items()} for i in range(0, n, 700))
    run.client_pass(a_task, pieces, seen=witness)
    assert len(witness.rows) == len(witness.labels) == SAMPLE and witness.records == n
    assert abs(witness.rows[:, 0].mean()) < 4 / np.sqrt(3 * SAMPLE)


def test_an_attack_reports_its_interval():
    x = np.random.default_rng(1).normal(size=(500, 3))
    z = np.hstack([np.ones((500, 1)), x])
    found = leverage_attack(method.Moments(500, None, None, z.T @ z), x, np.zeros(500))
    assert isinstance(found, Attack) and found.low < found.auc < found.high and found.scored == 500


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sick": np.zeros(30, int)}, "every record is of class 'no'"),
        ({"v": np.ones((30, 2))}, "the same value in every record: v[0], v[1]"),
    ],
)
def test_what_is_lean_about_a_table_is_noticed(change, told):
    assert any(told in notice for notice in page_of(task(2), rows(30, 2) | change).notices)
    assert not any(told in notice for notice in page_of(task(2), rows(30, 2)).notices)


def test_one_record_and_fewer_records_than_features_are_noticed():
    assert "one record only" in page_of(task(3), rows(1, 3)).notices[0]
    assert "fewer records (4) than features (11)" in page_of(task(9), rows(4, 9)).notices[0]
