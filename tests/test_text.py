"""Text columns, hashed n-grams and naive Bayes on counts: what they emit, what they promise, what they refuse."""

import math
import zlib

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import cache, file, settings, testing
from fusionlearn.encoders.ngrams import COMMON, IDF, Ngrams, grams
from fusionlearn.errors import DataError, SettingsError, UpdateError
from fusionlearn.methods.naive_bayes import GRID, NaiveBayes, _evidence
from fusionlearn.pretrain import pretrain
from fusionlearn.problem import ClassLabel, Number, Schema, Text
from fusionlearn.site import SiteMap, open_source

LABEL = ClassLabel("verdict", {"bad": ["bad"], "good": ["good"]})
GOOD, BAD = ["great book", "loved it!", "great, great fun", "it works"], ["broke at once", "awful book", "not great"]
ROWS = {"review": GOOD + BAD, "verdict": ["good"] * len(GOOD) + ["bad"] * len(BAD)}


def task(**more):
    told = {"method": "naive_bayes", "encoder": Ngrams(512), "privacy": fl.Privacy("none", small_cells="allow")}
    return fl.new_task("reviews", {"review": Text()}, LABEL, **(told | more))


def encoded(encoder, texts, prior=None):
    schema = Schema({"review": Text(missing="center")}, LABEL)
    return encoder.encode(schema.read({"review": texts}, with_label=False).data, schema, prior or {})["x"]


# --- the column -----------------------------------------------------------------------------------------------------


def test_text_is_read_as_it_stands():
    table = Schema({"review": Text()}, LABEL).read({"review": ["none", b"1.0 ", "?"]}, with_label=False)
    assert table.data["review"].tolist() == ["none", "1.0 ", "?"]


def test_faults_of_text_name_rows_and_no_text():
    schema = Schema({"review": Text(longest=10)}, LABEL)
    cells = np.array(["fine", "secret and long", "", 7.5, None], dtype=object)
    with pytest.raises(DataError) as error:
        schema.read({"review": cells}, with_label=False)
    told = {fault.kind: fault.rows for fault in error.value.faults}
    assert sorted(told.values()) == [(2,), (3, 5), (4,)]
    assert "secret" not in str(error.value) and "7.5" not in str(error.value)


def test_rules_for_long_and_missing_text():
    schema = Schema({"review": Text(longest=4)}, LABEL, missing="drop", out_of_range="clip")
    table = schema.read({"review": ["lovely", " ", "bad"]}, with_label=False)
    assert table.data["review"].tolist() == ["love", "bad"] and table.clipped == 1
    kept = Schema({"review": Text(missing="center")}, LABEL).read({"review": [None, "b"]}, with_label=False)
    assert kept.data["review"].tolist() == ["", "b"]
    with pytest.raises(SettingsError, match="longest = 0"):
        Text(longest=0)


@pytest.mark.parametrize("encoder", ["table", "identity"])
def test_encoders_of_numbers_refuse_text(encoder):
    with pytest.raises(SettingsError, match="is text: use 'ngrams'"):
        task(encoder=encoder)


def test_a_task_of_text_is_the_same_after_writing(tmp_path):
    made = task()
    file.write(tmp_path / "reviews.task", made)
    assert fl.read(tmp_path / "reviews.task").schema == made.schema


def test_text_in_task_toml(tmp_path):
    (tmp_path / "task.toml").write_text(
        'name = "r"\nprivacy = "none"\nencoder = ["ngrams"]\nmethod = "naive_bayes"\n'
        '[columns.review]\ntype = "text"\nlongest = 500\n'
        '[label]\ncolumn = "verdict"\n[label.classes]\nbad = ["bad"]\ngood = ["good"]\n'
    )
    assert settings.task_from_toml(tmp_path / "task.toml").schema.columns == {"review": Text(500)}


def test_features_of_texts_are_kept_under_the_texts():
    first, same, other = (np.array(cells, dtype=object) for cells in (["ab", "c"], ["ab", "c"], ["a", "bc"]))
    assert cache.key("", {"review": first}) == cache.key("", {"review": same}) != cache.key("", {"review": other})


# --- n-grams --------------------------------------------------------------------------------------------------------


def test_grams_are_words_and_words_in_a_row():
    assert list(grams("Don't  STOP!", 2)) == ["don't", "stop", "!", "don't stop", "stop !"]


def test_a_feature_is_the_public_hash_of_its_gram():
    x = encoded(Ngrams(1000, words=1, weight="count"), ["ça ça va", ""])
    expected = {zlib.crc32("ça".encode()) % 1000: 2.0, zlib.crc32(b"va") % 1000: 1.0}
    assert {int(j): float(x[0, j]) for j in np.flatnonzero(x[0])} == expected and not x[1].any()


def test_features_stay_within_their_bounds():
    texts = ["a " * 1000, "a b c", ""]
    assert encoded(Ngrams(64, weight="count"), texts).max() == 255
    assert encoded(Ngrams(64, weight="presence"), texts).max() == 1
    x = encoded(Ngrams(64, weight="tfidf"), texts)
    assert np.allclose(np.linalg.norm(x, axis=1), [1, 1, 0]) and np.abs(x).max() <= 1


@pytest.mark.parametrize("weight", ["presence", "unit", "count", "tfidf"])
def test_a_row_of_features_depends_on_nothing_but_its_text(weight):
    encoder, texts = Ngrams(64, weight=weight), ["a b a", "b c", "", "c c d!"]
    together = encoded(encoder, texts)
    for row, text in enumerate(texts):
        assert np.array_equal(encoded(encoder, [text])[0], together[row])


def test_pretraining_tells_how_rare_a_gram_is():
    made = task(encoder=Ngrams(512, words=1, weight="tfidf"))
    filled = pretrain(made, {"review": ["the cat", "the dog", "the end", "the cat"]})
    place = {word: zlib.crc32(word.encode()) % 512 for word in ("the", "cat", "zebra")}
    idf = filled.prior[IDF]
    assert [float(idf[place[word]]) for word in place] == pytest.approx(
        [1, 1 + math.log(5 / 3), 1 + math.log(5)], rel=1e-6
    )
    x = encoded(made.encoder.encoders[0], ["the cat"], filled.prior)
    assert x[0, place["cat"]] / x[0, place["the"]] == pytest.approx(1 + math.log(5 / 3), rel=1e-6)
    with pytest.raises(SettingsError, match=r"ngrams\.idf"):
        encoded(Ngrams(512, weight="tfidf"), ["a"], {IDF: np.ones(3, np.float32)})


def test_only_words_common_in_public_make_longer_grams():
    made = task(encoder=Ngrams(512, common=2))
    with pytest.raises(SettingsError, match="pre-train the task"):
        fl.summarize(made, ROWS)
    filled = pretrain(made, {"review": ["not good", "not bad", "good"]})
    assert sorted(filled.prior[COMMON].tolist()) == sorted(zlib.crc32(word) for word in (b"not", b"good"))
    known = frozenset(filled.prior[COMMON].tolist())
    assert list(grams("not good at all", 3, known)) == ["not", "good", "at", "all", "not good"]
    model, _ = fl.fuse(filled, [fl.summarize(filled, ROWS)])
    assert COMMON in model.prior


def test_ngrams_refuses_what_it_cannot_read():
    schema = Schema({"review": Text(), "age": Number(0, 1)}, LABEL)
    with pytest.raises(SettingsError, match="'age' is none"):
        Ngrams().features(schema, None)
    with pytest.raises(SettingsError, match="num_features"):
        Ngrams(-1)
    with pytest.raises(SettingsError, match="words"):
        Ngrams(words=0)


def test_as_many_features_as_the_limit_allows():
    made = task(encoder=Ngrams(0), max_bytes=100_000)
    width = made.problem.num_features
    assert 5000 < width < 6250  # 2 classes of 8 bytes, and room for the header


# --- naive Bayes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [NaiveBayes(), NaiveBayes(smoothing=0.0), NaiveBayes(class_prior="uniform")])
def test_naive_bayes_keeps_its_laws(method):
    testing.check_method(method, tries=4)


def test_naive_bayes_against_counting_by_hand():
    problem = fl.new_task("t", {"a": Number(0, 3, 0, 1), "b": Number(0, 3, 0, 1)}, LABEL, privacy="none").problem
    data = {"x": np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]), "y": np.array([0, 0, 1])}
    method, rng = NaiveBayes(smoothing=1.0), np.random.default_rng(0)
    model, findings = method.fuse([method.summarize(data, problem, {}, rng=rng)], problem, {}, rng=rng)
    assert np.allclose(np.exp(model["weights"]), [[4 / 6, 1 / 5], [2 / 6, 4 / 5]])
    assert np.allclose(np.exp(model["bias"]), [2 / 3, 1 / 3]) and findings["smoothing"] == 1.0
    odds = np.array([2 / 3 * (4 / 6) * (2 / 6), 1 / 3 * (1 / 5) * (4 / 5)])
    answer = method.predict(model, {"x": np.array([[1.0, 1.0]])}, problem, {})["probability"]
    assert np.allclose(answer, odds / odds.sum())


def test_smoothing_by_evidence_is_the_likelihood_of_drawing_the_counts_one_by_one():
    counts, smoothing = np.array([[2.0, 0.0, 1.0]]), 0.3
    likelihood, seen = 1.0, np.zeros(3)
    for j in (0, 0, 2):
        likelihood *= (seen[j] + smoothing) / (seen.sum() + 3 * smoothing)
        seen[j] += 1
    assert _evidence(counts, smoothing) == pytest.approx(math.log(likelihood), rel=1e-12)


def test_even_counts_are_smoothed_more_than_peaked_ones():
    problem = fl.new_task("t", {f"w{j}": Number(0, 1, 0, 1) for j in range(40)}, LABEL, privacy="none").problem
    rng, method = np.random.default_rng(0), NaiveBayes(smoothing=0.0)
    chosen = []
    for share in (np.full(40, 0.5), np.repeat([0.99, 0.0], [4, 36])):
        data = {"x": (rng.random((200, 40)) < share).astype(float), "y": np.arange(200) % 2}
        _, findings = method.fuse([method.summarize(data, problem, {}, rng=rng)], problem, {}, rng=rng)
        chosen.append(findings["smoothing"])
    assert chosen[0] > chosen[1] and set(chosen) <= set(GRID)


def test_impossible_counts_are_refused():
    made = task()
    update = fl.summarize(made, ROWS)
    forged = {name: array.copy() for name, array in update.arrays.items()}
    forged["class_count"][:] = [1, 1]
    with pytest.raises(UpdateError, match="more often than the rows"):
        made.method.check(forged, made.problem, {}, "update")


def test_naive_bayes_needs_two_classes_and_no_number_label():
    made = task()
    with pytest.raises(UpdateError, match="one class only"):
        fl.fuse(made, [fl.summarize(made, {"review": GOOD, "verdict": ["good"] * len(GOOD)})])
    with pytest.raises(SettingsError, match="ridge"):
        fl.new_task("t", {"a": Number(0, 1)}, fl.NumberLabel("y", 0, 1), method="naive_bayes", privacy="none")


# --- the whole round ------------------------------------------------------------------------------------------------


def test_a_round_of_reviews_from_csv(tmp_path):
    made = task()
    parts = [(0, 4), (4, 7)]  # a client with good reviews only, one with bad ones only
    updates = []
    for number, (start, stop) in enumerate(parts):
        lines = [f'"{ROWS["review"][i]}",{ROWS["verdict"][i]}' for i in range(start, stop)]
        path = tmp_path / f"{number}.csv"
        path.write_text("review,verdict\n" + "\n".join(lines) + "\n")
        updates.append(fl.summarize(made, open_source(path, made.schema, SiteMap()).pieces(100)))
    model, _ = fl.fuse(made, updates)
    pooled, _ = fl.fuse(made, [fl.summarize(made, ROWS)])
    assert np.allclose(model.arrays["weights"], pooled.arrays["weights"], rtol=1e-12)
    answer = fl.predict(model, {"review": ["great fun", "awful, broke"]})
    assert list(answer["label"]) == ["good", "bad"]
