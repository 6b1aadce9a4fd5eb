"""Partitions: every row goes to one client, in the proportions asked for, and can be named by a digest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionlearn import partition
from fusionlearn.errors import SettingsError


@given(
    st.integers(1, 300), st.integers(1, 6), st.integers(1, 12), st.sampled_from([0.01, 0.1, 1.0, 100.0]), st.integers(0)
)
def test_every_row_goes_to_one_client(rows, classes, clients, alpha, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    parts = partition.dirichlet(labels, clients, alpha, rng=rng)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_small_alpha_is_uneven_and_large_alpha_is_not():
    labels = np.repeat(np.arange(10), 1000)
    holds = {}
    for alpha in (0.1, 1000.0):
        parts = partition.dirichlet(labels, 10, alpha, rng=np.random.default_rng(0))
        shares = np.array([np.bincount(labels[part], minlength=10) for part in parts]) / 1000
        holds[alpha] = np.sort(shares, axis=0)[-1].mean()  # of a class, the share of the client that holds most of it
    assert holds[0.1] > 0.5
    assert holds[1000.0] == pytest.approx(0.1, abs=0.01)


def test_a_client_may_be_promised_rows():
    labels = np.repeat(np.arange(10), 90)
    for seed in range(5):
        parts = partition.dirichlet(labels, 20, 0.1, at_least=2, rng=np.random.default_rng(seed))
        assert min(len(part) for part in parts) >= 2


@pytest.mark.parametrize(
    ("clients", "alpha", "at_least"), [(0, 1.0, 0), (3, 0.0, 0), (3, float("nan"), 0), (3, 1.0, 9)]
)
def test_what_cannot_be_is_refused(clients, alpha, at_least):
    with pytest.raises(SettingsError):
        partition.dirichlet(np.zeros(10, int), clients, alpha, at_least=at_least, rng=np.random.default_rng(0))


def test_digest_names_rows_and_owners():
    parts = [np.array([0, 2]), np.array([1])]
    known = partition.digest(parts)
    assert known == "5898622a490e730015de81a97a9333637dfed42dc2332fae0d064b5e2fb43943"
    assert known == partition.digest([np.array([2, 0]), np.array([1])])
    for other in ([np.array([1]), np.array([0, 2])], [np.array([0]), np.array([1, 2])], [np.array([0, 1, 2])]):
        assert partition.digest(other) != known


def test_topics_are_found_and_every_text_goes_to_one_client():
    rng = np.random.default_rng(0)
    topics = [
        ["hund", "wiese", "ball", "hat", "bellt", "holt"],
        ["koch", "küche", "topf", "rührt", "salz", "herd"],
        ["auto", "straße", "rad", "fährt", "ampel", "hupt"],
    ]
    kinds = np.arange(120) % 3
    texts = [" ".join(rng.choice(topics[kind], 3, replace=False)).upper() + " sieht man hier" for kind in kinds]
    parts = partition.by_topic(texts, 3, rng=np.random.default_rng(1))
    assert sorted(np.concatenate(parts).tolist()) == list(range(120))
    assert all(len(set(kinds[part])) == 1 for part in parts)  # what all texts have tells nothing
    again = partition.by_topic(texts, 3, rng=np.random.default_rng(1))
    assert partition.digest(parts) == partition.digest(again)


def test_texts_without_a_word_have_a_place():
    parts = partition.by_topic(["", "", "1 2 3", "!"], 2, rng=np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == [0, 1, 2, 3]
