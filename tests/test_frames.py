"""Data frames are taken as they are: anything that names its columns and gives them by name."""

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import errors, file

COLUMNS = {"dose": fl.Number(0, 10), "ward": fl.Category(("a", "b"))}
LABEL = fl.ClassLabel("ill", {"no": ["0"], "yes": ["1"]})
CELLS = {"dose": [1.0, 2.0, float("nan"), 9.0], "ward": ["a", "b", "a", None], "ill": [0, 1, 1, 0]}


class Frame:
    """The least a data frame is, with an index that is not the position."""

    columns = ("dose", "ward", "ill")

    def __getitem__(self, name):
        return np.array(CELLS[name], dtype=object if name == "ward" else None)


@pytest.fixture
def task():
    return fl.new_task("frames", COLUMNS, LABEL, privacy="none", missing="drop")


def same(task, frame):
    plain, framed = (fl.summarize(task, data, rng=np.random.default_rng(0)) for data in (CELLS, frame))
    assert file.digest(plain) == file.digest(framed)
    model, _ = fl.fuse(task, [framed])
    assert list(fl.predict(model, frame)["label"]) == ["no", "yes", "", ""]
    assert fl.evaluate(model, frame) == fl.evaluate(model, CELLS)


def test_what_names_its_columns_is_a_table(task):
    same(task, Frame())


def test_pandas_with_an_index_of_its_own(task):
    pandas = pytest.importorskip("pandas")
    same(task, pandas.DataFrame(CELLS, index=[7, 3, 9, 1]))


def test_parquet_table(task):
    pyarrow = pytest.importorskip("pyarrow")
    same(task, pyarrow.table(CELLS))


def test_what_is_no_table_is_refused_in_a_sentence(task):
    with pytest.raises(errors.DataError, match="neither columns by name, nor a data frame"):
        fl.summarize(task, [1, 2, 3])
