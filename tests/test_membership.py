"""Membership attacks: what is known of them holds, and where there is nothing to find they find nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests import rounds, test_simulate

from fusionlearn import partition, run
from fusionlearn.privacy import membership
from fusionlearn.problem import ClassLabel, Vector
from fusionlearn.simulate import compare
from fusionlearn.simulate.rounds import Head, Local, Rival, federate


def leverage_auc(rows: int, width: int, clients: int = 4) -> membership.Measured:
    seen = membership.Seen()
    for number in range(clients):
        rng = np.random.default_rng(number)
        x = rng.standard_normal((2 * rows, width))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        z = np.hstack([np.ones((rows, 1)), x[:rows]])
        gram = z.T @ z
        seen.add("leverage", membership.leverage(gram, x[:rows]), membership.leverage(gram, x[rows:]))
    found = seen.best()
    assert found is not None
    return found


def test_no_more_rows_than_features_is_certainty():
    assert leverage_auc(40, 60).auc == 1.0
    assert leverage_auc(40, 39).auc == 1.0


@pytest.mark.parametrize(("times", "auc"), [(2, 0.997), (4, 0.978), (16, 0.875)])
def test_more_rows_hide_better(times: int, auc: float):
    assert leverage_auc(times * 64, 64, clients=2).auc == pytest.approx(auc, abs=0.03)


def test_scores_that_say_nothing_give_a_half():
    rng = np.random.default_rng(0)
    seen = membership.Seen()
    for _ in range(6):
        seen.add("noise", rng.standard_normal(200), rng.standard_normal(200))
    found = seen.best()
    assert found is not None and found.low < 0.5 < found.high and found.clients == 6


def test_the_best_attack_counts_and_all_are_named():
    seen = membership.Seen()
    seen.add("useless", np.arange(20.0), np.arange(20.0))
    seen.add("sharp", np.zeros(20), np.ones(20))
    seen.add("broken", np.full(20, np.nan), np.full(20, np.nan))
    found = seen.best()
    assert found is not None and found.attack == "sharp" and found.auc == 1.0
    assert found.tried == ("useless", "sharp", "broken")
    assert membership.Seen().best() is None


def test_clients_are_ranked_apart():
    """One client's losses are all larger than another's: that says nothing about membership."""
    rng = np.random.default_rng(1)
    scores = [(level + rng.standard_normal(300), level + rng.standard_normal(300)) for level in (0.0, 100.0, -50.0)]
    assert membership.together(scores).auc == pytest.approx(0.5, abs=0.04)


def test_halves_share_no_row():
    inside, outside = membership.halves(np.arange(100, 131), np.random.default_rng(0)) or ((), ())
    assert len(inside) == len(outside) == 15 and not set(inside) & set(outside)
    assert membership.halves(np.arange(19), np.random.default_rng(0)) is None


def overfitted(members_learn: bool) -> membership.Measured:
    """Twenty-four rows of noise with labels of noise: only a row that was learned from is known."""
    columns = {"pixels": Vector(40, -30.0, 30.0)}
    task = run.new_task("noise", columns, ClassLabel("y", (("a", ("0",)), ("b", ("1",)))), privacy="none")
    rng = np.random.default_rng(3)
    learner = Head(task.problem)
    seen = membership.Seen()
    for _ in range(6):
        x, y = rng.standard_normal((48, 40)).astype(np.float32), rng.integers(0, 2, 48)
        view = membership.Rounds(learner.answer, (x[:24], y[:24]), (x[24:], y[24:]))
        own = (x[:24], y[:24]) if members_learn else (rng.standard_normal((24, 40)).astype(np.float32), y[:24])
        federate(
            learner, [own], Rival("fedavg", 20, Local(5, 8, 0.5)), lambda _found: 0.0, x[:1],
            seen=lambda _number, before, sent, view=view: view.see(before, sent[0]),
        )  # fmt: skip
        view.tell(seen)
    found = seen.best()
    assert found is not None
    return found


def test_many_rounds_give_members_away_and_strangers_not():
    assert overfitted(True).low > 0.7
    assert overfitted(False).low < 0.55


def test_one_shot_methods_are_measured():
    data = test_simulate.table()
    question = compare.Question(rounds.task(), partition.parse("iid"), 4, 1)
    rows = compare.split(question, data, 0)
    for method in ("ridge", "gaussian", "ensemble"):
        found = compare.attacked(rounds.task(method), rows, 0)
        assert found is not None and 0.3 < found.auc <= 1 and found.clients == 4
    crowded = compare.attacked(rounds.task(), compare.split(question, data, 0), 0)
    lonely = compare.attacked(
        rounds.task(), compare.split(compare.Question(rounds.task(), partition.parse("iid"), 8, 1), data, 0), 0
    )
    assert crowded is not None and lonely is not None and lonely.auc > crowded.auc - 0.1
