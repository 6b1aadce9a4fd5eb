"""Schema.read: clean columns, or every fault at once, by row number and never by value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionlearn.errors import DataError, SettingsError
from fusionlearn.problem import Category, ClassLabel, Number, NumberLabel, Schema, Vector, canonical, parse_numbers

LABEL = ClassLabel("ill", {"no": ["0"], "yes": [1, "2.0"]})
SECRET = "Smith-4711"


def schema(**rules):
    return Schema({"age": Number(0, 120), "ward": Category(("a", "b")), "pixel": Vector(2, 0, 16)}, LABEL, **rules)


def cells(**changed):
    return {
        "age": [1, "2", 3.0, "4.5"],
        "ward": ["a", " b", "b", "a"],
        "pixel": [[0, 1], [2, 3], [4, 5], [16, 16]],
        "ill": [0, "1", 2, "2.00"],
        "name": [SECRET] * 4,
    } | changed


def faults(raw, **rules):
    with pytest.raises(DataError) as refused:
        schema(**rules).read(raw, first_row=11)
    assert SECRET not in str(refused.value)
    return refused.value.faults


def test_clean_columns():
    table = schema().read(cells())
    assert set(table.data) == {"age", "ward", "pixel", "y"}
    assert table.data["age"].tolist() == [1, 2, 3, 4.5]
    assert table.data["ward"].tolist() == [0, 1, 1, 0]
    assert table.data["pixel"].shape == (4, 2)
    assert table.data["y"].tolist() == [0, 1, 1, 1]
    assert table.kept.all()
    assert table.clipped == 0


def test_label_is_not_looked_at_when_predicting():
    raw = cells(ill=[SECRET] * 4)
    assert "y" not in schema().read(raw, with_label=False).data
    del raw["ill"]
    schema().read(raw, with_label=False)


@pytest.mark.parametrize(
    ("changed", "column", "kind", "rows"),
    [
        ({"age": [1, SECRET, 3, SECRET]}, "age", "text", (12, 14)),
        ({"age": [1, np.inf, 3, 4]}, "age", "not finite", (12,)),
        ({"age": [1, 2, 3, -1]}, "age", "below 0", (14,)),
        ({"age": [121, 2, 3, 1]}, "age", "above 120", (11,)),
        ({"age": [1, None, "", "NA"]}, "age", "missing", (12, 13, 14)),
        ({"age": np.ones((4, 2))}, "age", "one number is expected", ()),
        ({"ward": ["a", SECRET, "b", "a"]}, "ward", "not among", (12,)),
        ({"ward": ["a", "?", "b", None]}, "ward", "missing", (12, 14)),
        ({"pixel": [[0, 1], [2, 17], [4, 5], [6, 7]]}, "pixel", "above 16", (12,)),
        ({"pixel": [[0, 1], [2, np.nan], [4, 5], [6, 7]]}, "pixel", "missing", (12,)),
        ({"pixel": np.ones((4, 3))}, "pixel", "the task says (2,)", ()),
        ({"ill": [0, 1, 7, 0]}, "ill", "none of the task's classes", (13,)),
        ({"ill": [0, 1, "", 0]}, "ill", "label is missing", (13,)),
        ({"ill": [0, 1]}, "ill", "has 2 rows", ()),
    ],
)
def test_each_fault_is_named_with_its_rows(changed, column, kind, rows):
    found = faults(cells(**changed))
    assert [fault.column for fault in found] == [column]
    assert kind in found[0].kind
    assert found[0].rows == rows


def test_all_faults_at_once_and_five_rows_of_each():
    many = {name: column * 10 for name, column in cells(age=[SECRET] * 4, ward=["z"] * 4, ill=[9] * 4).items()}
    found = faults(many)
    assert [fault.column for fault in found] == ["age", "ward", "ill"]
    assert all(fault.count == 40 and len(fault.rows) == 5 for fault in found)


def test_absent_columns_are_all_named():
    assert [fault.column for fault in faults({"ward": ["a"]})] == ["age", "pixel", "ill"]


def test_rules_for_missing_values():
    raw = cells(age=[1, None, 3, 4], ill=[0, 1, None, 0])
    dropped = schema(missing="drop").read(raw)
    assert dropped.kept.tolist() == [True, False, False, True]
    assert dropped.data["y"].tolist() == [0, 0]
    own = Schema({"age": Number(0, 120, missing="center"), "b": Number(0, 1)}, LABEL)
    read = own.read({"age": [None, 2], "b": [0, 1], "ill": [0, 1]})
    assert np.isnan(read.data["age"][0])
    with pytest.raises(DataError):
        own.read({"age": [None, 2], "b": [0, None], "ill": [0, 1]})
    with pytest.raises(DataError, match="vector column cannot"):
        schema(missing="center").read(cells(pixel=[[0, np.nan]] * 4))


def test_out_of_range_may_be_clipped_and_is_counted():
    table = schema(out_of_range="clip").read(cells(age=[-5, 500, 3, 4], pixel=[[99, 1]] * 4))
    assert table.data["age"].tolist() == [0, 120, 3, 4]
    assert table.clipped == 6


def test_numbers_as_label_are_scaled():
    regression = Schema({"a": Number(0, 1)}, NumberLabel("y_raw", 0, 10, center=4, scale=2))
    assert regression.kind == "regression"
    assert regression.labels == ()
    assert regression.label.bound == 3
    assert regression.read({"a": [0, 1], "y_raw": ["0", 10]}).data["y"].tolist() == [-2, 3]
    for bad in (["x", 1], [np.inf, 1], [11, 1], [None, 1], np.ones((2, 2))):
        with pytest.raises(DataError):
            regression.read({"a": [0, 1], "y_raw": bad})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Number(1, 1),
        lambda: Number(2, 1),
        lambda: Number(0, float("inf")),
        lambda: Number(0, 1, scale=0),
        lambda: Number(0, 1, center=float("nan")),
        lambda: Vector(0, 0, 1),
        lambda: Category(("a",)),
        lambda: Category(("1", "1.0")),
        lambda: ClassLabel("y", {"only": ["1"]}),
        lambda: ClassLabel("y", {"a": ["1"], "b": [1.0]}),
        lambda: ClassLabel("y", {"a": ["1"], "b": []}),
        lambda: ClassLabel("y", (("a", ("1",)), ("a", ("2",)))),
        lambda: Schema({}, LABEL),
        lambda: Schema({"ill": Number(0, 1)}, LABEL),
        lambda: Schema({"y": Number(0, 1)}, LABEL),
        lambda: Schema({"a": Number(0, 1)}, LABEL, missing="guess"),
        lambda: Schema({"a": Number(0, 1, missing="guess")}, LABEL),
        lambda: Schema({"a": Number(0, 1)}, LABEL, out_of_range="guess"),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(SettingsError):
        make()


@pytest.mark.parametrize(
    ("cell", "text"),
    [(1, "1"), (1.0, "1"), ("1.0", "1"), (" 1 ", "1"), (True, "1"), (np.bool_(False), "0"), (b"a ", "a"), ("-0", "0"),
     (0.1, "0.1"), ("1e3", "1000"), (float("nan"), ""), ("inf", "inf"), (2**60, "1.152921504606847e+18"), ("é", "é")],
)  # fmt: skip
def test_values_have_one_text(cell, text):
    assert canonical(cell) == text


@given(st.one_of(st.integers(-(2**52), 2**52), st.floats(allow_nan=False, allow_infinity=False), st.text()))
def test_canonical_is_stable(cell):
    assert canonical(canonical(cell)) == canonical(cell)


def test_numbers_from_text_tell_text_from_missing():
    values, text = parse_numbers(["1", "x", "", "n/a", None, "2e3"])
    assert text.tolist() == [False, True, False, False, False, False]
    assert values[[0, 5]].tolist() == [1, 2000]
    assert np.isnan(values[1:5]).all()
