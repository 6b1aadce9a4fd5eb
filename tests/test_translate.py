"""Texts answered with texts: pieces, the transformer, its training, the method, and the way through files."""

import csv
import dataclasses
import itertools

import numpy as np
import pytest
from click.testing import CliRunner

import fusionlearn as fl
from fusionlearn import cli, file, method, network, settings, translation
from fusionlearn.encoders.subwords import PIECES, Subwords, cut, learn, words_of
from fusionlearn.errors import DataError, SettingsError, UpdateError
from fusionlearn.export import to_onnx
from fusionlearn.pretrain import pretrain
from fusionlearn.problem import BEGIN, END, NOTHING, UNKNOWN, Problem, Schema, Text, TextLabel

NUMBERS = {"null": "zero", "eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five"}
SMALL = "seq2seq:width=32,heads=2,encoder=1,decoder=1,hidden=64"
SCHEMA = Schema({"de": Text()}, TextLabel("en"))
CODER = Subwords(size=64, length=12)


def pairs(rows, seed, most=4):
    rng = np.random.default_rng(seed)
    words = [rng.choice(list(NUMBERS), rng.integers(1, most + 1)).tolist() for _ in range(rows)]
    return {"de": [" ".join(row) for row in words], "en": [" ".join(NUMBERS[word] for word in row) for row in words]}


def new_task(**given):
    chosen = {"network": SMALL, "epochs": 1, "batch_size": 16, "rate": 0.01, "warmup": 10, "beam": 2} | given
    return fl.new_task(
        "numbers", {"de": Text()}, TextLabel("en"), encoder=[CODER], method=method.make("translate", chosen),
        privacy="none",
    )  # fmt: skip


@pytest.fixture(scope="module")
def task():
    """A task whose prior knows texts of up to three words, and no longer ones."""
    return pretrain(new_task(), pairs(400, 0, most=3), epochs=20)


def problem(size=20, length=6):
    return Problem("text", (), tuple(f"p{i}" for i in range(length)), (size - 1.0,) * length, 1000)


def module(seed=0, size=20, length=6):
    asked = problem(size, length)
    return network.module_with(SMALL, asked, network.initial(SMALL, asked, seed))


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_texts_come_back_from_their_pieces():
    texts = ["Zwei Hunde laufen, schnell!", "it's 10 o'clock.", "   many   blanks ", ""]
    coder = Subwords(size=200, length=60, lower=False)
    data = {"de": np.array(texts, object)}
    prior = coder.pretrain(data, SCHEMA, rng=np.random.default_rng(0))
    found = coder.encode(data, SCHEMA, prior)["x"]
    assert found.shape == (4, 60) and found.max() < 200
    assert coder.texts(found.astype(int), prior).tolist() == [" ".join(text.split()) for text in texts]
    assert found[3].tolist() == [END] + [NOTHING] * 59


def test_the_commonest_pairs_become_pieces_first():
    pieces = learn({"aab": 10, "aac": 5, "bc": 3}, 6)
    assert pieces == ["a", "b", "c", "aa", "aab", "aac"]
    ranks = {piece: 4 + k for k, piece in enumerate(pieces)}
    assert cut("aabaac", ranks) == [ranks["aab"], ranks["aac"]]
    assert cut("axa", ranks) == [ranks["a"], UNKNOWN, ranks["a"]]
    assert learn({"aab": 10, "aac": 5, "bc": 3}, 100)[-1] == "bc"  # and then there is nothing left to join
    assert words_of("Ja, ja!", lower=True) == ["▁ja", ",", "▁ja", "!"]


def test_joined_pairs_are_counted_as_if_anew():
    rng = np.random.default_rng(3)
    counts = {"".join(rng.choice(list("abc"), rng.integers(1, 8))): int(rng.integers(1, 9)) for _ in range(40)}
    pieces, parts = sorted("abc", key=lambda one: (-sum(w.count(one) * n for w, n in counts.items()), one)), {}
    parts = {word: list(word) for word in counts}
    while len(pieces) < 20:
        found = {}
        for word, cut_up in parts.items():
            for pair in itertools.pairwise(cut_up):
                found[pair] = found.get(pair, 0) + counts[word]
        pair = min(found, key=lambda one: (-found[one], one))
        if "".join(pair) not in pieces:
            pieces.append("".join(pair))
        for cut_up in parts.values():
            i = 0
            while i < len(cut_up) - 1:
                if (cut_up[i], cut_up[i + 1]) == pair:
                    cut_up[i : i + 2] = ["".join(pair)]
                i += 1
    assert learn(counts, 20) == pieces


def test_what_the_coder_refuses():
    with pytest.raises(SettingsError, match="one column of text"):
        CODER.features(Schema({"a": fl.Number(0, 1)}, TextLabel("en")), None)
    with pytest.raises(SettingsError, match="label of text"):
        CODER.features(Schema({"a": Text()}, fl.NumberLabel("y", 0, 1)), None)
    data = {"de": np.array(["a"], object)}
    with pytest.raises(SettingsError, match="pre-train"):
        CODER.encode(data, SCHEMA, {})
    for wrong in (np.frombuffer(b"a\na", np.uint8), np.frombuffer(b"\xff", np.uint8), np.zeros(3)):
        with pytest.raises(SettingsError, match="different pieces"):
            CODER.encode(data, SCHEMA, {PIECES: wrong})


# --- the label ------------------------------------------------------------------------------------------------------


def test_a_label_of_text_is_read_and_its_faults_told_without_its_words():
    table = SCHEMA.read({"de": ["a", "b"], "en": ["x", b"y"]})
    assert table.data["y"].tolist() == ["x", "y"] and SCHEMA.kind == "text" and SCHEMA.labels == ()
    strict = Schema({"de": Text()}, TextLabel("en", longest=5))
    with pytest.raises(DataError) as error:
        strict.read({"de": ["a"] * 3, "en": ["", "secret words", "fine"]})
    assert {fault.rows for fault in error.value.faults} == {(1,), (2,)} and "secret" not in str(error.value)
    dropping = Schema({"de": Text()}, TextLabel("en", longest=5), missing="drop", out_of_range="clip")
    assert dropping.read({"de": ["a"] * 3, "en": ["", "secret", "fine"]}).data["y"].tolist() == ["secre", "fine"]


def test_methods_and_labels_must_fit_each_other():
    with pytest.raises(SettingsError, match="for labels of text there are 'phrases'"):
        fl.new_task("t", {"de": Text()}, TextLabel("en"), encoder=[CODER], method="average", privacy="none")
    with pytest.raises(SettingsError, match="for labels of text there are 'phrases'"):
        fl.new_task("t", {"a": fl.Number(0, 1)}, fl.NumberLabel("y", 0, 1), method="translate", privacy="none")


def test_a_task_written_in_toml(tmp_path):
    (tmp_path / "task.toml").write_text(
        f"""
name = "numbers"
encoder = [{{name = "subwords", size = 64, length = 12}}]
[columns.de]
type = "text"
[label]
column = "en"
type = "text"
[method]
name = "translate"
network = "{SMALL}"
epochs = 1
batch_size = 16
rate = 0.01
warmup = 10
beam = 2
[privacy]
mode = "none"
""",
        encoding="utf-8",
    )
    assert file.digest(settings.task_from_toml(tmp_path / "task.toml")) == file.digest(new_task())


# --- the network ----------------------------------------------------------------------------------------------------


def test_no_place_sees_what_is_yet_to_be_written_or_what_is_not_there():
    torch = pytest.importorskip("torch")
    subject = module()
    source, written = torch.tensor([[5, 6, 7, END]]), torch.tensor([[BEGIN, 8, 9, 10]])
    before = subject(source, written)
    later = subject(source, torch.tensor([[BEGIN, 8, 9, 11]]))
    assert torch.equal(before[:, :3], later[:, :3]) and not torch.equal(before[:, 3], later[:, 3])
    padded = subject(torch.tensor([[5, 6, 7, END, NOTHING, NOTHING]]), written)
    assert torch.allclose(before, padded, atol=1e-5)
    assert not torch.allclose(before, subject(torch.tensor([[5, 6, 4, END]]), written), atol=1e-3)


def test_networks_that_cannot_be():
    with pytest.raises(SettingsError, match="twice the 3 heads"):
        network.parse("seq2seq:width=32,heads=3")
    with pytest.raises(SettingsError, match="answers with texts"):
        network.shapes(SMALL, Problem("binary", ("a", "b"), ("x",), (1.0,), 10))


# --- training and writing -------------------------------------------------------------------------------------------


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = np.pad(rng.integers(4, 20, (40, 4)), ((0, 0), (0, 2)), constant_values=NOTHING)
    plan = translation.Schedule(epochs=3, batch_size=8, rate=0.01, warmup=3)
    whole = module()
    translation.fit(whole, rows, rows, plan, seed=5)

    class Stop(Exception):
        pass

    def interrupt(done, *_):
        if done == 2:
            raise Stop

    kept = tmp_path / "kept"
    with monkeypatch.context() as patched:
        patched.setattr(translation, "tell", interrupt)
        with pytest.raises(Stop):
            translation.fit(module(), rows, rows, plan, seed=5, checkpoint=kept)
    assert kept.exists()
    again = module()
    epochs = []
    monkeypatch.setattr(translation, "tell", lambda done, *_: epochs.append(done))
    translation.fit(again, rows, rows, plan, seed=5, checkpoint=kept)
    assert epochs == [3] and not kept.exists()
    for name, value in network.state(whole).items():
        assert np.array_equal(value, network.state(again)[name]), name


def test_every_row_is_in_one_batch_of_each_epoch_and_lengths_go_together():
    rng = np.random.default_rng(1)
    rows = np.where(np.arange(9) < rng.integers(1, 10, 500)[:, None], 7, NOTHING)
    found = list(translation.batches(rows, rows, 10, 0, 0))
    assert sorted(np.concatenate(found)) == list(range(500))
    assert len(found) == 50
    spread = [np.ptp((rows[batch] != NOTHING).sum(axis=1)) for batch in found]
    assert np.mean(spread) < 1
    assert [b.tolist() for b in found] != [b.tolist() for b in translation.batches(rows, rows, 10, 0, 1)]


def test_rates_rise_then_fall():
    plan = translation.Schedule(rate=1.0, warmup=4)
    rates = [translation.rate_at(plan, step, 100) for step in range(100)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and max(rates) == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0 < rates[-1] < 0.01


def scored(modules, source, answer):
    """The mean log-probability of an answer, as the beam judges it without reward for length."""
    torch = pytest.importorskip("torch")
    written = torch.tensor([[BEGIN, *answer[:-1]]])
    with torch.inference_mode():
        chances = sum(one(torch.from_numpy(source[None]), written).softmax(dim=2) for one in modules) / len(modules)
    return float(sum(chances[0, i, piece].log() for i, piece in enumerate(answer)))


def test_a_wide_beam_finds_the_best_of_all_answers():
    import itertools

    modules = [module(seed, size=7) for seed in (1, 2)]
    source = np.array([4, 5, END])
    every = [[*body, END] for length in range(3) for body in itertools.product([UNKNOWN, 4, 5, 6], repeat=length)] + [
        list(body) for body in itertools.product([UNKNOWN, 4, 5, 6], repeat=3)
    ]
    best = max(every, key=lambda answer: scored(modules, source, answer))
    found = translation.write(modules, source[None], 3, beam=40, reward=0.0)[0]
    assert found[found != NOTHING].tolist() == best


def test_one_beginning_is_the_best_piece_each_time():
    torch = pytest.importorskip("torch")
    subject = module(3)
    rows = np.array([[4, 5, 6, END, 0, 0], [9, END, 0, 0, 0, 0], [7, 8, 9, 10, 11, END]])
    found = translation.write([subject], rows, 5)
    for row, answer in zip(rows, found, strict=True):
        written = [BEGIN]
        while len(written) < 6 and written[-1] != END:
            with torch.inference_mode():
                scores = subject(torch.from_numpy(row[row != NOTHING][None]), torch.tensor([written]))[0, -1].clone()
                scores[[NOTHING, BEGIN]] = -torch.inf
            written.append(int(scores.argmax()))
        assert answer[: len(written) - 1].tolist() == written[1:]
    assert np.array_equal(translation.write([subject], rows[::-1].copy(), 5), found[::-1])


# --- the method -----------------------------------------------------------------------------------------------------


def test_the_whole_way_through_files(task, tmp_path):
    test = pairs(60, 99)
    file.write(tmp_path / "task", _with(task, epochs=8, rate=0.005))
    task = file.read(tmp_path / "task")
    updates = []
    for k in range(3):
        path = tmp_path / f"{k}.update"
        file.write(path, fl.summarize(task, pairs(300, k + 1)))
        updates.append(file.read(path))
    model, report = fl.fuse(task, updates)
    file.write(tmp_path / "model", model)
    model = file.read(tmp_path / "model")
    answers = fl.predict(model, {"de": test["de"]})
    assert answers["text"].dtype == object and len(answers["text"]) == 60
    found, alone = fl.evaluate(model, test), fl.evaluate(fl.fuse(task, updates[:1])[0], test)
    assert found["bleu"] > 60 and found["bleu"] > alone["bleu"] > 20
    assert found["same"] == np.mean(answers["text"] == np.array(test["en"], object))
    assert report.findings["records"] == 900
    assert not any(name.startswith(network.PREFIX) for name in model.prior) and PIECES in model.prior


def _with(task, **given):
    return dataclasses.replace(task, method=dataclasses.replace(task.method, **given), max_bytes=0)


def summaries(task, count=2):
    encoded = [task.encoder.encode(task.schema.read(pairs(30, k)).data, task.schema, task.prior) for k in range(count)]
    rngs = [np.random.default_rng(k) for k in range(count)]
    return encoded, [
        task.method.summarize(data, task.problem, task.prior, rng=rng) for data, rng in zip(encoded, rngs, strict=True)
    ]


def fused(task, parts):
    return task.method.fuse(parts, task.problem, task.prior, rng=np.random.default_rng(0))[0]


def moved(task, arrays, name):
    return np.asarray(arrays[name], np.float64) - task.prior[name]


def test_the_mean_is_by_rows_and_takes_a_step(task):
    task = _with(task, step=0.5)
    _encoded, (a, b) = summaries(task)
    assert a["network.head.weight"].dtype == np.int8 and int(a["count"]) == 30
    b = {**b, "count": np.asarray(90)}
    alone = [fused(_with(task, step=1.0), [part]) for part in (a, b)]
    together = fused(task, [a, b])
    for name in together:
        wanted = 0.5 * (0.25 * moved(task, alone[0], name) + 0.75 * moved(task, alone[1], name))
        assert np.abs(moved(task, together, name) - wanted).max() < 1e-6, name
    assert np.abs(moved(task, together, "network.head.weight")).max() > 1e-3


def test_rows_of_the_head_by_who_has_the_piece(task):
    task = _with(task, fusing="pieces")
    encoded, (a, b) = summaries(task)
    both = np.concatenate([encoded[0]["x"].astype(int), encoded[0]["y"]])
    assert a["piece_count"].tolist() == [int((both == piece).sum()) for piece in range(64)]
    counts = np.zeros((2, 64), np.int64)
    counts[0, 5], counts[0, 6], counts[1, 6] = 3, 1, 3
    a, b = {**a, "piece_count": counts[0]}, {**b, "piece_count": counts[1]}
    own = [fused(_with(task, fusing="mean"), [part]) for part in (a, b)]
    together = fused(task, [a, b])
    first, second = (moved(task, one, "network.head.weight") for one in own)
    found = moved(task, together, "network.head.weight")
    assert np.allclose(found[5], first[5], atol=1e-6) and np.allclose(found[6], (first + 3 * second)[6] / 4, atol=1e-6)
    assert not found[7].any()  # what nobody has stays as it was
    name = "network.encoder.0.up.weight"
    assert np.allclose(
        moved(task, together, name), (moved(task, own[0], name) + moved(task, own[1], name)) / 2, atol=1e-6
    )


def test_an_ensemble_keeps_every_network(task):
    task = _with(task, fusing="ensemble")
    encoded, parts = summaries(task)
    model = fused(task, parts)
    asked = {"x": encoded[0]["x"][:5]}
    found = task.method.predict(model, asked, task.problem, task.prior)["piece"]
    modules = [
        network.module_with(
            SMALL, task.problem, {name.removeprefix("network."): array[k] for name, array in model.items()}
        )
        for k in range(2)
    ]
    assert np.array_equal(found, translation.write(modules, asked["x"].astype(int), 12, beam=2))
    assert np.allclose(
        model["network.head.weight"][1], fused(_with(task, fusing="mean"), parts[1:])["network.head.weight"]
    )


def test_experts_are_heard_where_their_words_are(task):
    task = _with(task, fusing="experts", sharpness=1.0)
    encoded, parts = summaries(task)
    counts = np.zeros((2, 64), np.int64)
    pieces = encoded[0]["x"].astype(int)[0]
    counts[0, pieces], counts[1, 40] = 50, 50
    parts = [{**part, "piece_count": count} for part, count in zip(parts, counts, strict=True)]
    model = fused(task, parts)
    assert model["piece_count"].shape == (2, 64) and model["count"].tolist() == [30, 30]
    asked = {"x": encoded[0]["x"][:1]}
    found = task.method.predict(model, asked, task.problem, task.prior)["piece"]
    trust = task.method._trust(model, pieces[None], task.problem)
    own = [piece for piece in pieces.tolist() if piece > END]
    chances = [np.sum(np.log((counts[k, own] + 1) / (counts[k].sum() + 64))) for k in range(2)]
    assert trust[0, 0] == pytest.approx(1 / (1 + np.exp(chances[1] - chances[0])))
    assert trust[0, 0] > 0.99
    first = task.method.predict(fused(task, parts[:1]), asked, task.problem, task.prior)["piece"]
    assert np.array_equal(found, first)
    alike = _with(task, sharpness=0.0)
    assert np.allclose(alike.method._trust(model, pieces[None], task.problem), 0.5)


def test_weights_of_networks_count_in_what_is_written():
    modules = [module(seed) for seed in (3, 4)]
    rows = np.array([[4, 5, 6, END, 0, 0], [9, 8, 7, 6, END, 0], [7, 8, END, 0, 0, 0]])
    alone = [translation.write([one], rows, 5) for one in modules]
    assert not np.array_equal(*alone)
    trust = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    mixed = translation.write(modules, rows, 5, trust=trust, beam=3, reward=0.0)
    beams = [translation.write([one], rows, 5, beam=3, reward=0.0) for one in modules]
    assert np.array_equal(mixed, np.stack([beams[0][0], beams[1][1], beams[0][2]]))


@pytest.mark.parametrize("fusing", ["mean", "pieces", "ensemble", "experts"])
def test_doing_it_again_gives_the_same_and_the_order_of_arrival_does_not_matter(task, fusing):
    task = _with(task, fusing=fusing)
    _, parts = summaries(task)
    _, again = summaries(task)
    assert all(np.array_equal(one[name], two[name]) for one, two in zip(parts, again, strict=True) for name in one)
    assert {name: array.shape for name, array in parts[0].items()} == {
        name: spec.shape for name, spec in task.method.declare(task.problem, task.prior).items()
    }
    updates = [fl.summarize(task, pairs(30, k)) for k in range(3)]
    assert file.digest(fl.fuse(task, updates)[0]) == file.digest(fl.fuse(task, updates[::-1])[0])


def test_what_it_refuses(task):
    for given, told in (
        ({"beam": 0}, "beam"),
        ({"step": 0.0}, "step"),
        ({"rate": 2.0}, "rate"),
        ({"epochs": -1}, "epochs"),
    ):
        with pytest.raises(SettingsError, match=told):
            method.make("translate", given)
    with pytest.raises(SettingsError, match="was it made for another"):
        _with(task, network=SMALL.replace("decoder=1", "decoder=2"))
    update = fl.summarize(task, pairs(4, 1))
    forged = dataclasses.replace(update, arrays={**update.arrays, "count": np.asarray(0)})
    with pytest.raises(UpdateError):
        fl.fuse(task, [forged])
    with pytest.raises(SettingsError, match="has no graph"):
        to_onnx(fl.fuse(task, [update])[0])


def test_the_command_line_answers_with_texts(task, tmp_path):
    model = fl.fuse(task, [fl.summarize(task, pairs(100, 1))])[0]
    file.write(tmp_path / "model", model)
    rows = pairs(30, 5)
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["de", "en"], *zip(rows["de"], rows["en"], strict=True)])
    call("predict", tmp_path / "model", tmp_path / "rows.csv", "-o", tmp_path / "out.csv", "--allow-unsigned")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [line["prediction"] for line in found] == fl.predict(model, rows)["text"].tolist()
    told = call("evaluate", tmp_path / "model", tmp_path / "rows.csv", "--allow-unsigned")
    assert f"bleu               {fl.evaluate(model, rows)['bleu']:.4f}" in told


def call(*args):
    result = CliRunner().invoke(cli.main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.output
