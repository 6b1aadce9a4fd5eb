"""Our FedAvg is Flower's: from the same weights on the same batches, the same weights after every round."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.peers import agree, agreed, page
from benchmarks.sections import result_of

pytest.importorskip("torch")


def test_fedavg_gives_the_weights_that_flower_gave() -> None:
    """Flower's are kept in the result, so that this needs no Flower."""
    kept = result_of("peers")
    assert kept is not None
    theirs = [
        {name: np.array(value, np.float32) for name, value in weights.items()}
        for weights in kept["agreement"]["flower"]
    ]
    mine = agree.ours()
    assert len(theirs) == len(mine) == agreed.ROUNDS
    for number, (one, two) in enumerate(zip(mine, theirs, strict=True)):
        assert one.keys() == two.keys()
        assert agree.difference(one, two) <= 1e-5
        before = mine[number - 1] if number else agree.start()
        assert agree.difference(before, two) > 1e-3  # each round moves the weights: equal ones would prove nothing


def test_fedavg_with_equal_shares_would_not_agree() -> None:
    """The clients differ so much that a mean that forgets their rows is told apart."""
    kept = result_of("peers")
    assert kept is not None
    theirs = {name: np.array(value) for name, value in kept["agreement"]["flower"][0].items()}
    sent = []
    for client in range(agreed.CLIENTS):
        learner = agree.rounds.Net(agree.PROBLEM, agree.NETWORK)
        local = agree.rounds.Local(1, agreed.BATCH, agreed.RATE)
        sent.append(learner.train(agree.start(), agreed.rows(client), local, (agreed.SEED, 0, client)))
    plain = {name: np.mean([weights[name] for weights in sent], axis=0) for name in theirs}
    assert agree.difference(plain, theirs) > 1e-4


def test_the_page_tells_what_was_measured() -> None:
    text = "\n".join(page.section())
    assert "Flower" in text and "no weight differs by more than" in text
