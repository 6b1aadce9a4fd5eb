"""Who counts as a client: two clients' equal sums are two updates, one client's repeated file is one."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import errors, file, keys

COLUMNS = {"x": fl.Number(-4, 4), "z": fl.Number(-4, 4)}
LABEL = fl.ClassLabel("y", {"no": ["0"], "yes": ["1"]})


@pytest.fixture
def task():
    return fl.new_task("members", COLUMNS, LABEL, method="ridge", privacy="none")


def one_row_each(count):
    """Clients with one row, many of them with the very same one."""
    rng = np.random.default_rng(3)
    return [{"x": rng.integers(-1, 2, 1), "z": rng.integers(0, 2, 1), "y": rng.integers(0, 2, 1)} for _ in range(count)]


def test_clients_with_equal_rows_each_count(task):
    parts = one_row_each(40)
    pooled = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    fused, report = fl.fuse(task, [fl.summarize(task, part) for part in parts])
    expected, _ = fl.fuse(task, [fl.summarize(task, pooled)])
    assert report.findings["records"] == 40
    assert file.digest(fused) == file.digest(expected)


def test_an_unsigned_file_given_twice_counts_once(task):
    update = fl.summarize(task, {"x": [1, 2, 0], "z": [0, 1, 1], "y": [0, 1, 1]})
    copy = file.from_bytes(file.to_bytes(update))
    _, report = fl.fuse(task, [update, copy])
    assert report.findings["records"] == 3
    assert report.findings["repeated"] == 1


def test_a_signed_update_is_the_same_file_when_made_again(task):
    rows, key = {"x": [1, 2, 0], "z": [0, 1, 1], "y": [0, 1, 1]}, keys.generate()
    first, again = (file.sign(fl.summarize(task, rows), key) for _ in range(2))
    assert not first.nonce
    assert (file.digest(first), first.signature) == (file.digest(again), again.signature)


def test_a_given_generator_gives_the_same_update(task):
    rows = one_row_each(1)[0]
    first, again = (fl.summarize(task, rows, rng=np.random.default_rng(7)) for _ in range(2))
    assert file.digest(first) == file.digest(again)


def test_a_member_is_added_once(task):
    first = fl.summarize(task, {"x": [1, 2, 0], "z": [0, 1, 1], "y": [0, 1, 1]})
    second = fl.summarize(task, {"x": [1, 2], "z": [0, 1], "y": [0, 1]})
    total = fl.add(task, first, second)
    for answers in ((total, first), (first, total), (first, second, first), (total, total)):
        with pytest.raises(errors.UpdateError, match=r"counted already|twice"):
            fl.add(task, *answers)
    for answers in ((total, first), (first, total)):
        with pytest.raises(errors.UpdateError, match="counted already"):
            fl.fuse(task, answers)
    with pytest.raises(errors.UpdateError, match="is not in"):
        fl.subtract(task, fl.add(task, first), second)
