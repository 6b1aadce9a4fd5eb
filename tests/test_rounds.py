"""Traditional federated learning: each algorithm's step against one computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests import rounds as small

from fusionlearn import network
from fusionlearn.simulate import rounds
from fusionlearn.simulate.rounds import Head, Local, Net, Rival, Server, federate, mean_change

PROBLEM = small.task().problem  # two classes
X = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, -1.0, 0.0], [1.0, 1.0, 0.0, 1.0]], np.float32)
Y = np.array([1, 0, 1])


def softmax(scores: np.ndarray) -> np.ndarray:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def gradient(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean cross-entropy over all three rows."""
    wrong = softmax(X @ weight + bias) - np.eye(2)[Y]
    return X.T @ wrong / 3, wrong.mean(axis=0)


def test_a_client_goes_down_the_slope():
    learner, local = Head(PROBLEM), Local(epochs=2, batch_size=3, rate=0.5)
    found = learner.train(learner.start(), (X, Y), local, (0,))
    weight, bias = np.zeros((4, 2)), np.zeros(2)
    for _ in range(2):
        slope, shift = gradient(weight, bias)
        weight, bias = weight - 0.5 * slope, bias - 0.5 * shift
    np.testing.assert_allclose(found["weight"], weight, atol=1e-6)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-6)


def test_fedprox_pulls_a_client_back():
    learner = Head(PROBLEM)
    start = {"weight": np.full((4, 2), 0.3, np.float32), "bias": np.zeros(2, np.float32)}
    found = learner.train(start, (X, Y), Local(epochs=2, batch_size=3, rate=0.5, proximal=0.7), (0,))
    weight, bias = start["weight"].astype(float), np.zeros(2)
    for _ in range(2):
        slope, shift = gradient(weight, bias)
        weight, bias = weight - 0.5 * (slope + 0.7 * (weight - 0.3)), bias - 0.5 * (shift + 0.7 * bias)
    np.testing.assert_allclose(found["weight"], weight, atol=1e-6)


def test_a_network_takes_the_same_step_as_the_head():
    pytest.importorskip("torch")
    name, learner = "linear", Head(PROBLEM)
    start = network.initial(name, PROBLEM)
    found = Net(PROBLEM, name).train(start, (X, Y), Local(2, 3, 0.5, 0.1), (0,))
    given = {"weight": start["head.weight"].T.copy(), "bias": start["head.bias"]}
    same = learner.train(given, (X, Y), Local(2, 3, 0.5, 0.1), (0,))
    np.testing.assert_allclose(found["head.weight"].T, same["weight"], atol=1e-6)
    np.testing.assert_allclose(Net(PROBLEM, name).answer(found, X), learner.answer(same, X), atol=1e-6)


def test_the_server_weighs_clients_by_rows():
    start = {"w": np.array([1.0, 1.0])}
    change = mean_change(start, [{"w": np.array([2.0, 1.0])}, {"w": np.array([1.0, 5.0])}], [30, 10])
    np.testing.assert_allclose(change["w"], [0.75, 1.0])
    server = Server(start, Rival("fedavg"))
    server.step(change)
    np.testing.assert_allclose(server.weights["w"], [1.75, 2.0])


def test_fedadam_takes_the_published_step():
    server = Server({"w": np.array([1.0])}, Rival("fedadam", server_rate=0.1))
    first = second = 0.0
    weight = 1.0
    for change in (0.5, -0.2):
        server.step({"w": np.array([change])})
        first, second = 0.9 * first + 0.1 * change, 0.99 * second + 0.01 * change**2
        weight += 0.1 * first / (second**0.5 + 1e-3)
        assert server.weights["w"][0] == pytest.approx(weight)


def test_one_client_and_one_round_is_its_own_training():
    learner = Head(PROBLEM)
    seen: list[object] = []

    def judge(found: np.ndarray) -> float:
        return float((found.argmax(axis=1) == Y).mean())

    curve = federate(
        learner, [(X, Y)], Rival("fedavg", 3, Local(1, 2, 0.3)), judge, X, seed=4,
        seen=lambda number, _weights, sent: seen.append((number, len(sent))),
    )  # fmt: skip
    weights = learner.start()
    for number in range(3):
        weights = learner.train(weights, (X, Y), Local(1, 2, 0.3), (4, number, 0))
    assert curve.value[-1] == judge(learner.answer(weights, X))
    assert curve.weights_bytes == 4 * (4 * 2 + 2) and curve.taking_part == 1
    assert seen == [(0, 1), (1, 1), (2, 1)]
    again = federate(learner, [(X, Y)], Rival("fedavg", 3, Local(1, 2, 0.3)), judge, X, seed=4)
    assert again.value == curve.value


def test_only_so_many_clients_take_part_in_a_round():
    counts: list[int] = []
    clients = [(X, Y)] * 5
    curve = federate(
        Head(PROBLEM), clients, Rival("fedavg", 4, per_round=2), lambda _found: 0.0, X,
        seen=lambda _number, _weights, sent: counts.append(len(sent)),
    )  # fmt: skip
    assert counts == [2, 2, 2, 2] and curve.taking_part == 2


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(rounds.SettingsError, match="fedavg, fedprox, fedadam"):
        Rival("fedmagic")
