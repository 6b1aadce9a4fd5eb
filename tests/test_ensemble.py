"""ensemble: local heads or networks, each heard where it knows the class and the region."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import coding, densities, method, network, plugin, sums, training
from fusionlearn.errors import DataError, SettingsError, UpdateError
from fusionlearn.methods.ensemble import GRID
from fusionlearn.pretrain import pretrain
from fusionlearn.problem import Problem


def problem(d, classes=2, records=1000):
    labels = tuple("abcdef"[:classes]) if classes else ()
    kind = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    return Problem(kind, labels, tuple(f"x{j}" for j in range(d)), (10.0,) * d, records, 1.0 if classes else 20.0)


def fit(of, *parts, **settings):
    subject, rng = method.make("ensemble", settings), np.random.default_rng(0)
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    for summary in summaries:
        subject.check(summary, of, {}, "here")
    model, findings = subject.fuse(summaries, of, {}, rng=rng)
    name = "probability" if of.labels else "value"
    return lambda x: subject.predict(model, {"x": np.asarray(x, float)}, of, {})[name], findings, summaries


def cluster(centre, n, rng):
    return np.clip(rng.normal(centre, 0.5, (n, 2)), -10, 10)


def test_a_client_alone_is_its_own_ridge():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = np.clip(x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=200), -20, 20)
    value, _, (summary,) = fit(problem(3, classes=0), (x, y))
    known = linear_model.LinearRegression().fit(x, y)
    assert value(x) == pytest.approx(known.predict(x), abs=0.02)  # its penalty is small, not 0
    assert summary["mean"] == pytest.approx(x.mean(0))
    assert summary["variance"] == pytest.approx(x.var(0))
    assert summary["class_count"].tolist() == [200]


def test_clients_are_heard_in_their_own_region():
    rng = np.random.default_rng(1)
    left, right = cluster((-5, 0), 100, rng), cluster((5, 0), 100, rng)
    # In each region the second column decides, the other way round.
    parts = [(left, (left[:, 1] > 0).astype(int)), (right, (right[:, 1] < 0).astype(int))]
    answers, findings, _ = fit(problem(2), *parts)
    for x, y in parts:
        assert (answers(x).argmax(axis=1) == y).mean() > 0.9
    deaf, _, _ = fit(problem(2), *parts, temper=0.0)
    assert (deaf(left).argmax(axis=1) == parts[0][1]).mean() < 0.8
    assert findings == {"records": 200, "heads": 2, "absent_classes": []}


def test_a_client_has_no_say_about_classes_it_never_saw():
    rng = np.random.default_rng(2)
    centres = {0: (-4, 0), 1: (4, 0), 2: (0, 5)}
    rows = {k: cluster(centre, 60, rng) for k, centre in centres.items()}
    pair = lambda a, b: (np.vstack([rows[a], rows[b]]), np.repeat([a, b], 60))  # noqa: E731
    answers, _, _ = fit(problem(2, 3), pair(0, 1), pair(1, 2), pair(0, 2))
    for k, x in rows.items():
        assert (answers(x).argmax(axis=1) == k).mean() > 0.95


def test_voice_grows_with_rows_and_with_the_share_of_a_class():
    rng = np.random.default_rng(3)
    x = cluster((0, 0), 400, rng)
    for_one, for_two = np.ones(400, int), np.zeros(400, int)
    for_one[:2], for_two[:2] = 0, 1  # both know both classes
    big_first, _, _ = fit(problem(2), (x, for_one), (x[:20], for_two[:20]))
    big_second, _, _ = fit(problem(2), (x[:20], for_one[:20]), (x, for_two))
    middle = x.mean(axis=0, keepdims=True)
    assert big_first(middle)[0, 1] > big_second(middle)[0, 1]


def test_probabilities_far_from_everybody_are_finite():
    rng = np.random.default_rng(4)
    x = cluster((0, 0), 30, rng)
    answers, _, _ = fit(problem(2), (x, (x[:, 0] > 0).astype(int)), (x[:1], np.array([1])))
    far = answers([[1e6, -1e6], [0, 0]])
    assert np.isfinite(far).all()
    assert far.sum(axis=1) == pytest.approx(1)


def test_absent_classes_and_one_class():
    rng = np.random.default_rng(5)
    x = cluster((0, 0), 30, rng)
    answers, findings, _ = fit(problem(2, 3), (x, (x[:, 0] > 0).astype(int)))
    assert findings["absent_classes"] == ["c"]
    assert answers(x)[:, 2].max() == 0
    with pytest.raises(UpdateError, match="one class only"):
        fit(problem(2), (x, np.zeros(30, int)))


def test_constant_columns_do_no_harm():
    rng = np.random.default_rng(6)
    x = np.column_stack([cluster((0, 0), 50, rng), np.full(50, 2.0)])
    answers, _, _ = fit(problem(3), (x[:25], (x[:25, 0] > 0).astype(int)), (x[25:], (x[25:, 0] > 0).astype(int)))
    assert (answers(x).argmax(axis=1) == (x[:, 0] > 0)).mean() > 0.9


def test_moments_and_refusals():
    rng = np.random.default_rng(7)
    x, of = cluster((1, 2), 40, rng), problem(2, records=100)
    subject = method.make("ensemble")
    summary = subject.summarize({"x": x, "y": (x[:, 0] > 1).astype(int)}, of, {}, rng=rng)
    moments = subject.moments(summary, of)
    assert moments.count == 40
    assert moments.mean == pytest.approx(x.mean(0))
    assert moments.second == pytest.approx((np.hstack([np.ones((40, 1)), x]) ** 2).sum(0))
    assert moments.class_count.tolist() == summary["class_count"].tolist()
    for count in ([0, 0], [60, 60]):
        with pytest.raises(UpdateError, match="rows, the task allows"):
            subject.check({**summary, "class_count": np.array(count)}, of, {}, "here")
    for name, value in (("variance", -1.0), ("mean", 11.0), ("weights", 1e13), ("bias", np.nan)):
        with pytest.raises(UpdateError, match=name):
            subject.check({**summary, name: np.full_like(summary[name], value)}, of, {}, "here")
    with pytest.raises(SettingsError, match="temper"):
        method.make("ensemble", {"temper": -1.0})
    assert subject.sensitivity(of, {}) is None
    assert subject.moments(summary, problem(2, classes=0)).class_count is None


def test_penalties_are_public_and_coarse():
    assert pytest.approx([10.0 ** (step / 2) for step in range(-6, 3)]) == list(GRID)


def test_heads_larger_than_any_honest_one_are_refused_at_the_limit():
    rng = np.random.default_rng(8)
    x, of, subject = cluster((0, 0), 40, rng), problem(2), method.make("ensemble")
    summary = subject.summarize({"x": x, "y": (x[:, 0] > 0).astype(int)}, of, {}, rng=rng)
    for name in ("weights", "bias"):
        subject.check({**summary, name: np.full_like(summary[name], 1e12)}, of, {}, "here")
        subject.check({**summary, name: np.full_like(summary[name], -1e12)}, of, {}, "here")
        for beyond in (1.0001e12, -1.0001e12):
            with pytest.raises(UpdateError, match=name):
                subject.check({**summary, name: np.full_like(summary[name], beyond)}, of, {}, "here")
    for name, top in (("mean", 10.0), ("variance", 100.0)):
        subject.check({**summary, name: np.full_like(summary[name], top)}, of, {}, "here")
        with pytest.raises(UpdateError, match=name):
            subject.check({**summary, name: np.full_like(summary[name], top * 1.001)}, of, {}, "here")
    with pytest.raises(UpdateError, match="rows, the task allows"):
        subject.check({**summary, "class_count": np.array([1, 1000])}, of, {}, "here")
    subject.check({**summary, "class_count": np.array([0, 1000])}, of, {}, "here")


def test_how_far_a_voice_carries():
    """The formula of the docstring, written out for two clients and one point."""
    rng = np.random.default_rng(9)
    of, subject = problem(2), method.make("ensemble", {"temper": 1.5})
    parts = [
        (x := cluster((-1, 0), 30, rng), (x[:, 0] > -1).astype(int)),
        (z := cluster((1, 1), 50, rng), (z[:, 1] > 1).astype(int)),
    ]
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    model, _ = subject.fuse(summaries, of, {}, rng=rng)
    point = np.array([[0.3, 0.4]])
    voices, votes = [], []
    for x, y in parts:
        mean, variance = x.mean(0), x.var(0)
        density = np.exp(-0.5 * ((point[0] - mean) ** 2 / variance + np.log(variance)).mean() * 1.5)
        voices.append(len(x) * density * np.bincount(y, minlength=2))
    for summary in summaries:
        score = point @ summary["weights"] + summary["bias"]
        votes.append(
            np.clip(score[0], 0, 1)
        )  # two scores that sum to 1: the nearest probabilities are the clipped ones
    counts = sum(np.bincount(y, minlength=2) for _, y in parts)
    voices = np.array(voices) / counts
    mixed = (voices * votes).sum(axis=0) / voices.sum(axis=0)
    assert subject.predict(model, {"x": point}, of, {})["probability"][0] == pytest.approx(
        mixed / mixed.sum(), rel=1e-9
    )


def test_it_promises_neither_sums_nor_exactness():
    assert method.make("ensemble").additive is False
    assert method.make("ensemble").exact is False


def test_the_only_row_of_a_class_has_its_whole_voice():
    rng = np.random.default_rng(10)
    x, of = cluster((0, 0), 40, rng), problem(2, 3)
    lonely = np.array([[6.0, 6.0]])
    y = (x[:, 0] > 0).astype(int)
    answers, _, summaries = fit(of, (np.vstack([x, lonely]), np.append(y, 2)))
    head = np.vstack([x, lonely]) @ summaries[0]["weights"] + summaries[0]["bias"]
    # One client that holds all of every class is heard fully on each: its own nearest probabilities, unchanged.
    assert answers(np.vstack([x, lonely])) == pytest.approx(sums.to_simplex(head), abs=1e-12)


# --- networks -------------------------------------------------------------------------------------------------------

NETWORK = {"network": "mlp:hidden=8", "epochs": 20, "components": 2}


def crossed(rng, n=120):
    """Two regions, in each of which the second column decides, the other way round."""
    left, right = cluster((-5, 0), n, rng), cluster((5, 0), n, rng)
    return [(left, (left[:, 1] > 0).astype(int)), (right, (right[:, 1] < 0).astype(int))]


def test_networks_are_heard_in_their_own_region():
    parts = crossed(np.random.default_rng(11))
    answers, findings, summaries = fit(problem(2), *parts, **NETWORK)
    for x, y in parts:
        assert (answers(x).argmax(axis=1) == y).mean() > 0.9
    deaf, _, _ = fit(problem(2), *parts, **NETWORK, temper=0.0)
    assert np.mean([(deaf(x).argmax(axis=1) == y).mean() for x, y in parts]) < 0.8
    assert findings == {"records": 240, "heads": 2, "absent_classes": []}
    assert summaries[0]["network.body.0.weight"].dtype == np.int8


def test_networks_answer_numbers_too():
    rng = np.random.default_rng(12)
    x = [cluster(centre, 200, rng) for centre in ((-4, 0), (4, 0))]
    y = [np.clip(3 * part[:, 1] * sign, -20, 20) for part, sign in zip(x, (1, -1), strict=True)]
    value, _, _ = fit(problem(2, classes=0), *zip(x, y, strict=True), **NETWORK, rate=0.01)
    for part, truth in zip(x, y, strict=True):
        assert ((value(part) - truth) ** 2).mean() < 0.2 * truth.var()


def test_a_network_has_no_say_about_classes_it_never_saw():
    rng = np.random.default_rng(13)
    centres = {0: (-4, 0), 1: (4, 0), 2: (0, 5)}
    rows = {k: cluster(centre, 60, rng) for k, centre in centres.items()}
    pair = lambda a, b: (np.vstack([rows[a], rows[b]]), np.repeat([a, b], 60))  # noqa: E731
    answers, findings, _ = fit(problem(2, 4), pair(0, 1), pair(1, 2), pair(0, 2), **NETWORK)
    for k, x in rows.items():
        assert (answers(x).argmax(axis=1) == k).mean() > 0.95
    assert findings["absent_classes"] == ["d"]
    assert answers(np.vstack([*rows.values()]))[:, 3].max() < 1e-12


def test_what_networks_say_together_is_the_formula_of_the_docstring():
    rng = np.random.default_rng(14)
    of, subject = problem(2, 3), method.make("ensemble", {**NETWORK, "temper": 0.7, "held_out": 0.0})
    parts = [(cluster((-1, 0), 60, rng), np.repeat([0, 1], 30)), (cluster((1, 1), 80, rng), np.repeat([1, 2], 40))]
    summaries = [subject.summarize({"x": x, "y": y}, of, {}, rng=rng) for x, y in parts]
    summaries[1] = {**summaries[1], "temperature": np.asarray(2.0, np.float32)}
    model, _ = subject.fuse(summaries, of, {}, rng=rng)
    x, start = rng.uniform(-2, 2, (5, 2)), network.initial("mlp:hidden=8", of)
    clients = [densities.decode(summary, summary["class_count"]) for summary in summaries]
    said = []
    for summary, temperature in zip(summaries, (1.0, 2.0), strict=True):
        scores = training.scores_of("mlp:hidden=8", of, coding.decode(summary, start), x)
        powers = np.exp(scores / temperature) * (summary["class_count"] > 0)
        said.append(powers / powers.sum(axis=1, keepdims=True))
    found = subject.predict(model, {"x": x}, of, {})["probability"]
    assert found == pytest.approx(densities.together(clients, said, x, 0.7), rel=1e-6)


def test_a_temperature_is_chosen_on_rows_that_were_not_learned():
    rng = np.random.default_rng(15)
    x = cluster((0, 0), 300, rng)
    noise = {"network": "mlp:hidden=64", "epochs": 60, "rate": 0.2}
    learnt = lambda y, **more: fit(problem(2), (x, y), **noise, **more)[2][0]["temperature"]  # noqa: E731
    random_labels = rng.integers(0, 2, 300)
    assert learnt(random_labels) > 2  # it is sure of what it learned by heart, and should not be
    assert learnt((x[:, 0] > 0).astype(int)) < learnt(random_labels)
    assert learnt(random_labels, held_out=0.0) == 1


@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("classes", [2, 0])
def test_lean_clients_may_send_networks(rows, classes):
    rng = np.random.default_rng(16)
    x, of = cluster((0, 0), 60, rng), problem(2, classes)
    y = (x[:, 0] > 0).astype(int) if classes else x[:, 0]
    few = np.ones(rows, int) if classes else np.full(rows, 1.5)  # one class, one value
    answers, _, summaries = fit(of, (x, y), (np.repeat(x[:1], rows, axis=0), few), **NETWORK)
    assert summaries[1]["temperature"] == 1
    assert np.isfinite(answers([[1e6, -1e6], [0, 0]])).all()
    if classes:
        with pytest.raises(UpdateError, match="one class only"):
            fit(of, (x[:1], np.ones(1, int)), **NETWORK)


def test_networks_start_from_the_prior_and_the_model_keeps_what_it_needs():
    of, settings = problem(2), {**NETWORK, "epochs": 0}
    subject = method.make("ensemble", settings)
    prior = network.named(network.initial("mlp:hidden=8", of, seed=5))
    x = cluster((0, 0), 40, np.random.default_rng(17))
    data = {"x": x, "y": (x[:, 0] > 0).astype(int)}
    summary = subject.summarize(data, of, prior, rng=np.random.default_rng(0))
    assert (summary["network.body.0.weight"] == 0).all()  # it has not moved
    model, _ = subject.fuse([summary], of, prior, rng=np.random.default_rng(0))
    known = softmax_of(network.initial("mlp:hidden=8", of, seed=5), x, of)
    own = densities.decode(summary, summary["class_count"])
    wanted = densities.together([own], [known], x)
    assert subject.predict(model, {"x": x}, of, {})["probability"] == pytest.approx(wanted, rel=1e-5)
    learned = method.make("ensemble", NETWORK).pretrain(data, of, {}, rng=np.random.default_rng(0))
    found = softmax_of({name.removeprefix("network."): array for name, array in learned.items()}, x, of)
    assert (found.argmax(axis=1) == data["y"]).mean() > 0.9
    with pytest.raises(SettingsError, match="was it made for another one"):
        method.make("ensemble", {"network": "linear"}).declare(of, prior)


def softmax_of(weights, x, of):
    return sums.softmax(training.scores_of("mlp:hidden=8", of, weights, x))


def test_only_a_network_is_pretrained():
    columns = {"u": fl.Number(-10, 10, 0, 1), "v": fl.Number(-10, 10, 0, 1)}
    label = fl.ClassLabel("y", {"a": ["0"], "b": ["1"]})
    tasks = [fl.new_task("t", columns, label, method=method.make("ensemble", some), privacy="none")
             for some in ({}, NETWORK)]  # fmt: skip
    x = cluster((0, 0), 40, np.random.default_rng(18))
    data = {"u": x[:, 0], "v": x[:, 1], "y": (x[:, 0] > 0).astype(int)}
    with pytest.raises(SettingsError, match="nothing in 't' can be pre-trained"):
        pretrain(tasks[0], data)
    with pytest.raises(SettingsError, match="nothing in 't' can be pre-trained"):
        pretrain(tasks[0], {"u": x[:, 0], "v": x[:, 1]})  # nor does it ask for labels
    assert any(name.startswith("network.") for name in pretrain(tasks[1], data).prior)
    with pytest.raises(DataError, match="a network needs labels"):
        pretrain(tasks[1], {"u": x[:, 0], "v": x[:, 1]})


def test_networks_no_client_could_have_sent_are_refused():
    rng = np.random.default_rng(19)
    x, of, subject = cluster((0, 0), 60, rng), problem(2), method.make("ensemble", NETWORK)
    summary = subject.summarize({"x": x, "y": (x[:, 0] > 0).astype(int)}, of, {}, rng=rng)
    subject.check(summary, of, {}, "here")
    for name, value in (
        ("temperature", 0.0), ("temperature", np.nan), ("temperature", 1e6), ("scale.head.weight", -1.0),
        ("network.head.bias", np.inf), ("density.mean", 11.0), ("density.variance", 0.0), ("density.weight", 0.4),
        ("density.class", 0),
    ):  # fmt: skip
        wrong = np.full_like(summary[name], value)
        with pytest.raises(UpdateError):
            subject.check({**summary, name: wrong}, of, {}, "here")
    with pytest.raises(UpdateError, match="rows, the task allows"):
        subject.check({**summary, "class_count": np.array([900, 101])}, of, {}, "here")
    with pytest.raises(UpdateError, match="classes it counts"):
        subject.check({**summary, "class_count": np.array([60, 0])}, of, {}, "here")


def test_settings_of_networks():
    for wrong in ({"network": "rnn"}, {"components": 0}, {"held_out": 0.9}, {**NETWORK, "epochs": -1}):
        with pytest.raises(SettingsError):
            method.make("ensemble", wrong)
    # Tasks written before networks came keep their bytes: their settings are not told unless they are set.
    assert plugin.to_json(method.make("ensemble"))["settings"] == {"temper": 1.0}


def test_a_network_is_resumed_and_a_head_has_nothing_to_resume(tmp_path):
    x, of = cluster((0, 0), 60, np.random.default_rng(21)), problem(2)
    data, local = {"x": x, "y": (x[:, 0] > 0).astype(int)}, {"checkpoint": str(tmp_path / "kept")}
    found = []

    def stop(epoch):
        if epoch.number == 7 and list(tmp_path.iterdir()):
            raise KeyboardInterrupt

    subject = method.make("ensemble", NETWORK)
    with pytest.raises(KeyboardInterrupt), training.watching(stop):
        subject.summarize(data, of, {}, rng=np.random.default_rng(0), local=local)
    with training.watching(lambda epoch: found.append(epoch.number)):
        again = subject.summarize(data, of, {}, rng=np.random.default_rng(0), local=local)
    whole = subject.summarize(data, of, {}, rng=np.random.default_rng(0))
    assert all(again[name].tobytes() == whole[name].tobytes() for name in whole)
    assert not list(tmp_path.iterdir()) and found[-1] == 20
    with pytest.raises(SettingsError, match="nothing to resume"):
        method.make("ensemble").summarize(data, of, {}, rng=np.random.default_rng(0), local=local)


def test_many_clients_at_once_are_each_as_alone():
    rng, of = np.random.default_rng(22), problem(2)
    parts = [{"x": (x := cluster((0, 0), n, rng)), "y": (x[:, 0] > 0).astype(int)} for n in (150, 1, 40, 200)]
    subject = method.make("ensemble", NETWORK)
    rngs = [[np.random.default_rng(seed) for seed in range(4)] for _ in range(2)]
    together = subject.summarize_many(parts, of, {}, rngs=rngs[0])
    alone = [subject.summarize(part, of, {}, rng=one) for part, one in zip(parts, rngs[1], strict=True)]
    assert {float(summary["temperature"]) for summary in alone} > {1.0}  # of some it was chosen
    for one, other in zip(together, alone, strict=True):
        assert all(one[name].tobytes() == other[name].tobytes() for name in other) and one.keys() == other.keys()


def test_moments_of_networks_are_those_of_the_rows():
    rng = np.random.default_rng(20)
    x, of, subject = cluster((1, 2), 60, rng), problem(2), method.make("ensemble", {**NETWORK, "epochs": 0})
    summary = subject.summarize({"x": x, "y": (x[:, 0] > 1).astype(int)}, of, {}, rng=rng)
    moments = subject.moments(summary, of)
    assert moments.count == 60 and moments.class_count.tolist() == summary["class_count"].tolist()
    assert moments.mean == pytest.approx(x.mean(0), abs=1e-4)
    assert moments.second == pytest.approx((np.hstack([np.ones((60, 1)), x]) ** 2).sum(0), rel=1e-3)
