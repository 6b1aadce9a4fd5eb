"""Texts answered by phrases: counted tables, links, phrases, the language model, the search, and the method."""

import dataclasses
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fusionlearn as fl
from fusionlearn import alignment, arrays, counted, decoding, file, method, testing
from fusionlearn.encoders.subwords import Subwords
from fusionlearn.errors import FileError, SettingsError, UpdateError
from fusionlearn.methods.phrases import PREFIX, WEIGHTS, Phrases
from fusionlearn.pretrain import pretrain
from fusionlearn.problem import BEGIN, END, NOTHING, UNKNOWN, Problem, Text, TextLabel

WORDS = {"null": "zero", "eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five", "sechs": "six"}
TURNED = ("nicht", "not")  # stands after its word in one language and before it in the other


def pairs(rows, seed, most=5, words=tuple(WORDS)):
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(rows):
        drawn = rng.choice(list(words), rng.integers(1, most + 1)).tolist()
        texts.append([(word, rng.random() < 0.2) for word in drawn])
    return {
        "de": [" ".join(f"{word} {TURNED[0]}" if turned else word for word, turned in text) for text in texts],
        "en": [
            " ".join(f"{TURNED[1]} {WORDS[word]}" if turned else WORDS[word] for word, turned in text) for text in texts
        ],
    }


def new_task(**chosen):
    return fl.new_task(
        "numbers", {"de": Text()}, TextLabel("en"), encoder=[Subwords(size=160, length=24)],
        method=Phrases(reach=0, **chosen), privacy="none", max_records=10_000, missing="center",
    )  # fmt: skip


@pytest.fixture(scope="module")
def task():
    """A task whose prior knows some words and not the others."""
    public = pairs(200, 0, words=("null", "eins", "zwei"))
    every = {"de": [" ".join(WORDS)] * 3, "en": [" ".join(reversed(WORDS.values()))] * 3}  # pieces of all words
    return pretrain(new_task(), {name: public[name] + every[name] for name in public})


def altered(task, **chosen):
    return dataclasses.replace(task, method=dataclasses.replace(task.method, **chosen), max_bytes=0)


# --- counted tables -------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.lists(st.integers(0, 5), min_size=5, max_size=5), st.integers(1, 9)), max_size=60)


def table_of(drawn):
    rows = np.array([row for row, _ in drawn if any(row)], np.uint16).reshape(-1, 5)
    return rows, np.array([count for row, count in drawn if any(row)], np.int64)


@given(ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_tables_count_and_merge_and_come_back_from_their_code(one, two):
    first, second = (counted.tally(*table_of(drawn)) for drawn in (one, two))
    truth = Counter()
    for rows, count in (table_of(one), table_of(two)):
        for row, times in zip(rows.tolist(), count.tolist(), strict=True):
            truth[tuple(row)] += times
    both = counted.merged([first, second])
    assert [(tuple(row), n) for row, n in zip(both.rows.tolist(), both.count.tolist(), strict=True)] == sorted(
        truth.items()
    )
    coded = counted.encode("t", both)
    arrays.check(coded, counted.declare("t", 5, 6, 120), "it")
    back = counted.decode("t", coded, 5, "it")
    assert np.array_equal(back.rows, both.rows) and np.array_equal(back.count, both.count)
    kept = both.capped(3)
    assert (
        len(kept.count) == min(3, len(truth))
        and sorted(kept.count, reverse=True) == sorted(truth.values(), reverse=True)[:3]
    )


def test_coded_tables_that_no_table_gives_are_refused():
    rows = np.array([[4, 5, 0], [4, 6, 7], [9, 4, 0]], np.uint16)
    good = counted.encode("t", counted.tally(rows))
    assert [good[f"t.{part}"].tolist() for part in ("shared", "length", "rest")] == [
        [0, 1, 0], [2, 3, 2], [4, 5, 6, 7, 9, 4]
    ]  # fmt: skip
    for part, wrong, told in (
        ("rest", [4, 5, 6, 7, 9], "do not fit"),
        ("count", [1, 1], "do not fit"),
        ("shared", [1, 1, 0], "do not fit"),
        ("shared", [0, 2, 0], "do not fit"),
        ("rest", [4, 5, 5, 0, 9, 4], "ascending"),  # [4, 5, 0] twice
        ("rest", [4, 7, 6, 7, 9, 4], "ascending"),
        ("length", [2, 4, 1], "end before"),
    ):
        with pytest.raises(UpdateError, match=told):
            counted.decode("t", {**good, f"t.{part}": np.array(wrong, good[f"t.{part}"].dtype)}, 3, "it")
    moved = {**good, "t.shared": np.array([1, 0, 0], np.uint8), "t.length": np.array([3, 2, 2], np.uint8)}
    with pytest.raises(UpdateError, match="end before"):
        counted.decode("t", moved, 3, "it")


# --- links and phrases ----------------------------------------------------------------------------------------------


def numbered(texts, words):
    rows = [[words[word] for word in text.split()] for text in texts]
    return np.array([row + [NOTHING] * (12 - len(row)) for row in rows], np.int64)


def test_links_are_learned_from_pairs_alone():
    data = pairs(300, 1)
    read = {word: 4 + k for k, word in enumerate([*WORDS, TURNED[0]])}
    write = {word: 4 + k for k, word in enumerate([*WORDS.values(), TURNED[1]])}
    source, target = numbered(data["de"], read), numbered(data["en"], write)
    found = alignment.Linker(source, target, counted.empty(2), 6).links(source, target)
    row, a, b = np.nonzero(found)
    assert (source[row, a] == target[row, b]).mean() > 0.98  # a word and its translation have one number here
    pieces = (source != NOTHING).sum()
    assert 0.97 < len(row) / pieces < 1.03
    assert not (found & ((source == NOTHING)[:, :, None] | (target == NOTHING)[:, None, :])).any()


def test_links_do_not_depend_on_how_much_is_looked_at_together(monkeypatch):
    rng = np.random.default_rng(2)
    source, target = rng.integers(4, 12, (2, 50, 7))
    source[rng.random(source.shape) < 0.1] = UNKNOWN
    source[np.arange(7) >= rng.integers(0, 8, (50, 1))] = NOTHING
    known = counted.tally(rng.integers(4, 12, (30, 2)).astype(np.uint16))
    whole = alignment.Linker(source, target, known, 3).links(source, target)
    monkeypatch.setattr(alignment, "BLOCK", 350)
    monkeypatch.setattr(alignment, "KEPT", 0)
    parts = list(alignment.blocks(source, target))
    linker = alignment.Linker(source, target, known, 3)
    assert len(parts) == 8
    assert np.array_equal(np.concatenate([linker.links(source[rows], target[rows]) for rows in parts]), whole)


def test_what_is_known_decides_where_texts_do_not():
    source, target = np.array([[4, 5, 0]]), np.array([[6, 7, 8]])
    known = counted.Table(np.array([[4, 7], [5, 6]], np.uint16), np.array([50, 50]))
    found = alignment.Linker(source, target, known, 0).links(source, target)[0]
    assert found[0, 1] and found[1, 0] and not found[0, 0] and not found[2].any()


def test_links_grow_from_what_both_say_by_what_one_says():
    rng = np.random.default_rng(5)
    forth, back = rng.random((2, 200, 6, 7)) < 0.25
    found = alignment.grown(forth, back)
    assert (found >= (forth & back)).all() and (found <= (forth | back)).all()
    forth, back = np.zeros((2, 1, 3, 3), bool)
    forth[0, [0, 1], [0, 1]] = True
    back[0, 0, 0] = True
    assert np.array_equal(alignment.grown(forth, back), forth)
    forth[0, 1, 0] = True  # its neighbour has a link already, and so have both of its pieces once [1, 1] is in
    back[0, 1, 1] = True
    assert not alignment.grown(forth, back)[0, 1, 0]


def slow_phrases(source, target, found, longest):
    """Every pair of runs with a link inside and none from inside one of them out of the other."""
    truth = Counter()
    for row, links in enumerate(found):
        read, wrote = int((source[row] > 0).sum()), int((target[row] > 0).sum())
        for a, c in itertools.product(range(read), range(wrote)):
            for b, d in itertools.product(
                range(a + 1, min(a + longest, read) + 1), range(c + 1, min(c + longest, wrote) + 1)
            ):
                inside = links[a:b, c:d].sum()
                if inside and inside == links[a:b].sum() and inside == links[:, c:d].sum():
                    parts = [*source[row, a:b].tolist(), 0, *target[row, c:d].tolist()]
                    if UNKNOWN not in parts:
                        truth[tuple(parts + [0] * (2 * longest + 1 - len(parts)))] += 1
    return truth


@pytest.mark.parametrize("longest", [1, 3, 8])
def test_phrases_are_those_that_links_allow(longest):
    rng = np.random.default_rng(longest)
    source, target = (rng.choice([UNKNOWN, 4, 5, 6, 7], (60, width)) for width in (5, 6))
    for texts in (source, target):
        texts[np.arange(texts.shape[1]) >= rng.integers(0, texts.shape[1] + 1, (len(texts), 1))] = NOTHING
    found = (rng.random((60, 5, 6)) < 0.25) & (source > 0)[:, :, None] & (target > 0)[:, None, :]
    table = alignment.phrases(source, target, found, longest)
    counts = {tuple(row): n for row, n in zip(table.rows.tolist(), table.count.tolist(), strict=True)}
    assert counts == slow_phrases(source, target, found, longest) and len(counts) > 5
    linked = alignment.linked(source, target, found)
    truth = Counter((int(source[n, a]), int(target[n, b])) for n, a, b in zip(*np.nonzero(found), strict=True))
    assert {tuple(row): n for row, n in zip(linked.rows.tolist(), linked.count.tolist(), strict=True)} == {
        pair: n for pair, n in truth.items() if UNKNOWN not in pair
    }


# --- the language model ---------------------------------------------------------------------------------------------


def drawn_texts(seed, rows=40, width=6, size=9):
    rng = np.random.default_rng(seed)
    texts = rng.choice(np.arange(4, size), (rows, width), p=np.array([8, 4, 2, 1, 1]) / 16)
    texts[np.arange(width) >= rng.integers(1, width + 1, (rows, 1))] = NOTHING
    return texts


def test_runs_are_those_of_texts_between_begin_and_end():
    texts = drawn_texts(3)
    truth = Counter()
    for row in texts.tolist():
        whole = [BEGIN, *[piece for piece in row if piece], END]
        for long in (1, 2, 3):
            for at in range(len(whole) - long + 1):
                if whole[at : at + long] != [BEGIN]:
                    truth[tuple(whole[at : at + long] + [0] * (3 - long))] += 1
    table = decoding.runs(texts, 3)
    assert {tuple(row): n for row, n in zip(table.rows.tolist(), table.count.tolist(), strict=True)} == truth


def packed(*pieces):
    state = 0
    for piece in pieces:
        state = (state << decoding.WIDTH) | piece
    return state


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_what_may_follow_has_probability_one_in_all(order, weight):
    private, public = (decoding.runs(drawn_texts(seed), order) for seed in (1, 2))
    language = decoding.Language(private, public, weight, 9)
    for before in itertools.product([0, BEGIN, 4, 5, 8], repeat=order - 1):
        state = np.full(9, packed(*before), np.uint64)
        assert np.exp(language.log(state, np.arange(9))).sum() == pytest.approx(1.0, abs=1e-9), before


def test_what_was_seen_often_is_likely():
    texts = np.array([[4, 5, 6]] * 9 + [[4, 5, 7]])
    language = decoding.Language(decoding.runs(texts, 3), counted.empty(3), 0.1, 9)
    said = np.exp(language.log(np.full(9, packed(4, 5), np.uint64), np.arange(9)))
    assert said[6] > 0.8 > 0.1 > said[7] > said[8]
    assert said[6] == pytest.approx((9 - decoding.DISCOUNT) / 10 + 2 * decoding.DISCOUNT / 10 * np.exp(
        language.log(np.array([packed(5)], np.uint64), np.array([6]), 2)[0]))  # fmt: skip


# --- the search -----------------------------------------------------------------------------------------------------


def slow_best(source, table, language, weights, reach):
    """The best score over every way to go through a text."""
    longest, size = table.target.shape[1], len(source)
    keys = {}
    for k, key in enumerate(table.source.tolist()):
        keys.setdefault(tuple(key), []).append(k)

    def key(run):
        row = np.zeros((1, longest), np.uint16)
        row[0, : len(run)] = run
        return tuple(counted.words(row)[0].tolist())

    mask = (1 << (decoding.WIDTH * (language.order - 1))) - 1

    def said(state, pieces):
        total = 0.0
        for piece in pieces:
            total += weights.language * float(language.log(np.array([state], np.uint64), np.array([piece]))[0])
            state = ((state << decoding.WIDTH) | piece) & mask
        return state, total

    best = (-math.inf, [])

    def go(read, end, state, score, answer):
        nonlocal best
        if len(read) == size:
            best = max(best, (score + said(state, [END])[1], answer))
            return
        gap = min(set(range(size)) - read)
        for begin in range(gap, min(gap + reach, size - 1) + 1):
            for stop in range(begin + 1, min(begin + longest, size) + 1):
                if read & set(range(begin, stop)):
                    break
                found = [(table.target[k, : table.long[k]].tolist(), float(table.worth[k]))
                         for k in keys.get(key(source[begin:stop]), [])]  # fmt: skip
                if not found and stop == begin + 1:
                    found = [([source[begin]], decoding.COPIED)]
                for pieces, worth in found:
                    after, more = said(state, pieces)
                    far = weights.jump * abs(begin - end)
                    go(read | set(range(begin, stop)), stop, after, score + worth + more - far, answer + pieces)

    go(frozenset(), 0, BEGIN, 0.0, [])
    return best


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_a_wide_beam_finds_the_best_of_all_translations(reach):
    rng = np.random.default_rng(reach)
    source, target = rng.integers(4, 8, (2, 15, 5))
    found = rng.random((15, 5, 5)) < 0.22
    weights = weighed(0.1, language=0.7, jump=0.2, piece=0.4)
    own = (alignment.phrases(source, target, found, 2), alignment.linked(source, target, found))
    asked = np.array([[4, 5, 6, 7], [7, 7, 5, 0], [8, 4, 5, 0], [6, 0, 0, 0], [0, 0, 0, 0]])
    language = decoding.Language(decoding.runs(target, 3), counted.empty(3), 0.0, 9)
    none = (counted.empty(5), counted.empty(2))
    table = decoding.pairs(own, none, 0.0, weights, decoding.wanted(asked, 2))
    table = dataclasses.replace(table, worth=table.worth + rng.normal(size=len(table.worth)) * 0.01)  # no two alike
    answers = decoding.translate(asked, table, language, weights, 12, beam=500, reach=reach)
    for text, answer in zip(asked.tolist(), answers.tolist(), strict=True):
        _, truth = slow_best([piece for piece in text if piece], table, language, weights, reach)
        assert answer[: answer.index(END)] == truth
    again = decoding.translate(asked[::-1], table, language, weights, 12, beam=500, reach=reach)
    assert np.array_equal(again, answers[::-1])


def test_pairs_are_worth_what_their_counts_say():
    rows = np.array([[4, 0, 6], [4, 0, 7], [5, 0, 6]], np.uint16)
    own = (counted.tally(rows, np.array([3, 1, 2])), counted.tally(rows[:, ::2], np.array([3, 1, 2])))
    none = (counted.empty(3), counted.empty(2))
    asked = decoding.wanted(np.array([[4, 0]]), 1)
    worth = {name: decoding.pairs(own, none, 0.1, weighed(**{name: 1.0}), asked).worth for name in WEIGHTS}
    assert np.allclose(worth["whole"], np.log([2.5 / 4, 0.5 / 4]))
    assert np.allclose(worth["whole_back"], np.log([2.5 / 5, 0.5 / 1]))
    assert np.allclose(worth["links"], np.log([3 / 4, 1 / 4]))
    assert np.allclose(worth["links_back"], np.log([3 / 5, 1]))
    assert worth["phrase"].tolist() == worth["piece"].tolist() == [1, 1]
    public = (counted.tally(rows[1:2], np.array([10])), counted.empty(2))
    with_public = decoding.pairs(own, public, 0.1, weighed(whole=1.0), asked).worth
    assert np.allclose(with_public, np.log([2.5 / 5, 1.5 / 5]))


def weighed(others=0.0, **chosen):
    return decoding.Weights(**(dict.fromkeys(WEIGHTS, others) | chosen))


# --- the method -----------------------------------------------------------------------------------------------------


def fused(task, updates):
    return fl.fuse(task, updates)[0]


def test_fusing_helps_every_client_and_files_keep_it(task, tmp_path):
    parts = [pairs(150, 1, words=("drei", "vier")), pairs(150, 2, words=("fünf", "sechs", "eins"))]
    test = pairs(80, 9)
    updates = [fl.summarize(task, part) for part in parts]
    for number, update in enumerate(updates):
        file.write(tmp_path / str(number), update)
    file.write(tmp_path / "model", fused(task, [file.read(tmp_path / str(k)) for k in range(2)]))
    model = file.read(tmp_path / "model")
    found = fl.evaluate(model, test)
    alone = [fl.evaluate(fused(task, [update]), test) for update in updates]
    assert found["bleu"] > 65 and found["same"] > 0.7 and max(one["bleu"] for one in alone) < 45
    together = {name: [*parts[0][name], *parts[1][name]] for name in parts[0]}
    assert found["bleu"] > 0.97 * fl.evaluate(fused(task, [fl.summarize(task, together)]), test)["bleu"]
    told = fl.fuse(task, updates)[1].findings
    assert told["records"] == 300 and told["pairs"] == len(model.arrays["pairs.count"])


def test_the_laws_on_texts(task):
    tables = [{name: np.array(column, object) for name, column in pairs(rows, rows).items()} for rows in (1, 40, 7)]
    case = testing.Case(task.schema, tuple(tables))
    clients = [testing._encoded(task, table) for table in tables]
    summaries = [testing._summarize(task.method, data, task.problem, task.prior) for data in clients]
    testing._declared(task.method, clients, summaries, task.problem, task.prior, "texts")
    testing._refusal(task.method, summaries[1], task.problem, task.prior, "texts")
    testing._files(task, case, "texts")
    one = task.method.predict(summaries[1], {"x": clients[1]["x"][3:4]}, task.problem, task.prior)["piece"]
    many = task.method.predict(summaries[1], clients[1], task.problem, task.prior)["piece"]
    assert np.array_equal(one[0], many[3])


def test_counts_add_up(task):
    """Fused in any order and any groups it is the same, and without looking for links it is what one client counts."""
    fixed = altered(task, rounds=0)
    parts = [pairs(rows, rows) for rows in (1, 30, 60)]
    together = {name: list(itertools.chain(*(part[name] for part in parts))) for name in parts[0]}
    updates = [fl.summarize(fixed, part) for part in parts]
    whole = fl.summarize(fixed, together)
    model, one = fused(fixed, updates), fused(fixed, [whole])
    assert all(np.array_equal(model.arrays[name], one.arrays[name]) for name in one.arrays)
    assert all(np.array_equal(one.arrays[name], whole.arrays[name]) for name in one.arrays)
    assert file.digest(fused(fixed, updates[::-1])) == file.digest(model)
    fuse = fixed.method.fuse
    rng = np.random.default_rng(0)
    two, _ = fuse([updates[0].arrays, updates[1].arrays], fixed.problem, fixed.prior, rng=rng)
    grouped, _ = fuse([{**two, "count": np.asarray(31)}, updates[2].arrays], fixed.problem, fixed.prior, rng=rng)
    assert all(np.array_equal(grouped[name], model.arrays[name]) for name in grouped)


def test_rare_rows_stay_and_many_rows_are_cut(task):
    data = pairs(60, 4)
    whole = fl.summarize(task, data).arrays
    held = {name: len(whole[f"{name}.count"]) for name in ("pairs", "links", "runs")}
    least = fl.summarize(altered(task, least=3), data).arrays
    most = fl.summarize(altered(task, most=20), data).arrays
    for name in held:
        assert (least[f"{name}.count"] >= 3).all()
        assert len(least[f"{name}.count"]) == (whole[f"{name}.count"] >= 3).sum() > 0
        assert len(most[f"{name}.count"]) == min(20, held[name])
        assert sorted(most[f"{name}.count"]) == sorted(whole[f"{name}.count"])[-20:]
    small, large = (altered(task, most=most).max_bytes for most in (20, 20_000))
    assert small < large / 5


def test_a_limit_that_is_too_small_names_the_rows_that_fit(task):
    with pytest.raises(SettingsError, match=r"give the method fewer rows to send: most = \d+ fits") as told:
        dataclasses.replace(task, max_bytes=100_000)
    rows = int(re.search(r"most = (\d+)", str(told.value))[1])
    assert 0 < dataclasses.replace(altered(task, most=rows), max_bytes=100_000).method.most == rows
    with pytest.raises(SettingsError, match=f"most = {rows} fits"):
        dataclasses.replace(altered(task, most=2 * rows), max_bytes=100_000)
    with pytest.raises(SettingsError, match=r"with most = 1 an update takes \d+ bytes, the least"):
        dataclasses.replace(task, max_bytes=100)


def test_strange_texts_are_answered(task):
    """One row, one that is nearly empty, letters and words that nobody has seen; and nothing learned at all."""
    update = fl.summarize(task, {"de": ["eins"], "en": ["one"]})
    model = fused(task, [update])
    asked = {"de": ["", "§ ø eins", "qwx zwei", "eins " * 60, "null nicht"]}
    found = fl.predict(model, asked)["text"].tolist()
    assert found[0] == "" and found[1] == "one" and found[2].endswith("two") and found[4] == "not zero"
    assert 15 <= len(found[3].split()) <= 23 and set(found[3].split()) == {"one"}
    nothing = altered(task, least=1000)
    nothing = dataclasses.replace(nothing, prior={k: v for k, v in task.prior.items() if not k.startswith(PREFIX)})
    update = fl.summarize(nothing, pairs(3, 1))
    assert len(update.arrays["pairs.count"]) == 0
    assert fl.predict(fused(nothing, [update]), {"de": ["eins zwei"]})["text"].tolist() == ["eins zwei"]


def test_hostile_updates_are_refused(task):
    update = fl.summarize(task, pairs(20, 1))

    def forged(**arrays):
        return dataclasses.replace(update, arrays={**update.arrays, **arrays}, nonce="0" * 64)

    def of(name, rows):
        return counted.encode(name, counted.tally(np.array(rows, np.uint16)))

    wide = 2 * task.method.longest + 1
    row = [4, 5, 0, 6, *[0] * (wide - 4)]
    full = [4] * task.method.longest
    count = update.arrays["pairs.count"]
    for wrong, told in (
        ({"count": np.asarray(0)}, "below"),
        ({"count": np.asarray(10**6)}, "above"),
        ({"pairs.count": count.astype(np.int64)}, "dtype"),
        ({"pairs.count": np.zeros_like(count)}, "below"),
        ({"pairs.count": np.full_like(count, 2**32 - 1)}, "above"),
        ({"pairs.count": np.full_like(count, 2**31 - 1)}, "more than 20 texts"),
        ({"pairs.count": count[1:]}, "do not fit"),
        ({"pairs.rest": update.arrays["pairs.rest"][::-1].copy()}, "."),
        ({"pairs.rest": np.full_like(update.arrays["pairs.rest"], 160)}, "above"),
        ({"runs.length": np.full_like(update.arrays["runs.length"], 9)}, "above"),
        (of("pairs", [row, [4, 5, 6, *[0] * (wide - 3)]]), "none of its kind"),
        (of("pairs", [row, [0, 4, *[0] * (wide - 2)]]), "none of its kind"),
        (of("pairs", [[4, 0, 5, 0, 6, *[0] * (wide - 5)]]), "none of its kind"),
        (of("pairs", [[*full, 4, 0, 5, *[0] * (wide - len(full) - 3)]]), "none of its kind"),
        (of("pairs", [[4, 0, END, *[0] * (wide - 3)]]), "none of its kind"),
        (of("links", [[4, 0]]), "none of its kind"),
        (of("links", [[4, UNKNOWN]]), "none of its kind"),
        (of("runs", [[4, 0, 5, 0]]), "none of its kind"),
        (of("runs", [[4, BEGIN, 5, 0]]), "none of its kind"),
        (of("runs", [[4, END, 5, 0]]), "none of its kind"),
    ):
        with pytest.raises(UpdateError, match=told):
            fused(task, [forged(**wrong)])
    fused(task, [forged(**of("pairs", [row]), **of("runs", [[BEGIN, 4, 5, END], [4, 0, 0, 0]]))])
    shy = altered(task, least=2)
    frank = dataclasses.replace(update, task=file.digest(shy))
    with pytest.raises(UpdateError, match="less than 2 times"):
        fused(shy, [frank])
    many = altered(task, most=10)
    with pytest.raises(UpdateError, match="≤10"):
        fused(many, [dataclasses.replace(update, task=file.digest(many))])


def test_a_forged_model_is_told_once(task):
    model = fused(task, [fl.summarize(task, pairs(20, 1))])
    broken = dataclasses.replace(model, arrays={**model.arrays, "pairs.count": model.arrays["pairs.count"][1:]})
    with pytest.raises(FileError, match="belong together"):
        fl.predict(broken, {"de": ["eins"]})
    broken = dataclasses.replace(model, prior={**model.prior, PREFIX + "runs.count": np.ones(3, np.uint32)})
    with pytest.raises((FileError, SettingsError)):
        fl.predict(broken, {"de": ["eins"]})


def test_what_it_refuses(task):
    for wrong, told in (
        ({"longest": 9}, "longest"), ({"order": 5}, "order"), ({"rounds": -1}, "rounds"), ({"least": 0}, "least"),
        ({"most": 0}, "most"), ({"beam": 0}, "beam"), ({"reach": 60}, "reach"), ({"public": 2.0}, "public"),
        ({"language": 1e9}, "weight"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=told):
            method.make("phrases", wrong)
    with pytest.raises(SettingsError, match="pre-train the task again"):
        fl.summarize(altered(task, longest=2), pairs(4, 1))
    with pytest.raises(SettingsError, match="label must be text"):
        Phrases().declare(Problem("binary", ("a", "b"), ("x",), (1.0,), 10), {})
