"""Named arrays: what may be promised of them, and sums that refuse to overflow."""

import numpy as np
import pytest

from fusionlearn import arrays, errors
from fusionlearn.arrays import ArraySpec, UpTo

LIMIT = 2**62


def whole(*values: int) -> dict[str, np.ndarray]:
    return {"a": np.array(values, np.int64)}


def test_sums_and_differences_are_inverse():
    left, right = whole(1, -5, LIMIT), whole(2, 3, -LIMIT)
    total = arrays.add(left, right)
    assert total["a"].tolist() == [3, -2, 0] and total["a"].dtype == np.int64
    assert arrays.subtract(total, right)["a"].tolist() == left["a"].tolist()
    assert arrays.add({"n": np.array(1)}, {"n": np.array(2)})["n"] == 3
    assert arrays.add({"n": np.zeros(0, np.int64)}, {"n": np.zeros(0, np.int64)})["n"].size == 0


@pytest.mark.parametrize("value", [LIMIT + 1, -LIMIT - 1, 2**63 - 1, -(2**63)])
def test_a_sum_that_could_overflow_is_refused(value: int):
    for left, right in ((whole(0, value), whole(0, 0)), (whole(0, 0), whole(value, 0))):
        for operation in (arrays.add, arrays.subtract):
            with pytest.raises(errors.UpdateError, match="'a': the sum would overflow"):
                operation(left, right)


def test_only_like_is_added_to_like():
    for other in ({"b": np.array([1])}, {**whole(1), "b": np.array([1])}, {}):
        with pytest.raises(errors.UpdateError, match="different names"):
            arrays.add(whole(1), other)
    for other in (np.array([1.0]), np.array([1], np.int32), np.array(1), np.array([1, 2])):
        for left, right in ((whole(1), {"a": other}), ({"a": other}, whole(1))):
            with pytest.raises(errors.UpdateError, match="only arrays of one kind of integers and one shape"):
                arrays.add(left, right)


@pytest.mark.parametrize(
    ("spec", "array", "fault"),
    [
        (ArraySpec("int64", (2,), 0, 5), np.array([0, 5]), None),
        (ArraySpec("int64", (2,), 0, 5), np.array([0, 6]), "holds entries above 5, the most the task allows"),
        (ArraySpec("int64", (2,), 0, 5), np.array([-1, 5]), "holds entries below 0, the least the task allows"),
        (ArraySpec("int64", (2,)), np.array([-(2**62), 2**62]), None),
        (ArraySpec("int64", (2,)), np.array([0.0, 5.0]), "has dtype float64, the task says int64"),
        (ArraySpec("int64", (2,)), np.array([[0], [5]]), "is (2, 1), the task says (2,)"),
        (ArraySpec("int64", (UpTo(2), 1)), np.array([[0], [5]]), None),
        (ArraySpec("int64", (UpTo(2), 1)), np.zeros((0, 1), np.int64), None),
        (ArraySpec("int64", (UpTo(2), 1)), np.zeros((3, 1), np.int64), "is (3, 1), the task says (≤2, 1)"),
        (ArraySpec("int64", (), 1, 2), np.array(2), None),
        (ArraySpec("int64", (), 1, 2), np.array(3), "holds entries above 2, the most the task allows"),
        (ArraySpec("float64", (1,)), np.array([np.nan]), "holds NaN or infinity"),
        (ArraySpec("float32", (1,)), np.array([np.inf], np.float32), "holds NaN or infinity"),
        (ArraySpec("float64", (1,)), np.array([1e300]), None),
    ],
)
def test_what_is_declared_is_checked(spec: ArraySpec, array: np.ndarray, fault: str | None):
    assert spec.fault(array) == fault
    if fault is None:
        arrays.check({"a": array}, {"a": spec}, "here")
    else:
        with pytest.raises(errors.UpdateError) as caught:
            arrays.check({"a": array}, {"a": spec}, "here")
        assert str(caught.value) == f"here: array 'a' {fault}. Was it made with an older task file?"


def test_lacking_and_unknown_arrays_are_named():
    spec = {"a": ArraySpec("int64", (1,)), "b": ArraySpec("int64", (1,))}
    for given, told in (
        ({}, "here lacks a, b: the task's method declares a, b."),
        ({**whole(1), "c": 1, "d": 1}, "here lacks b and has unknown c, d: the task's method declares a, b."),
        ({**whole(1), "b": 1, "c": 1}, "here has unknown c: the task's method declares a, b."),
    ):
        with pytest.raises(errors.UpdateError) as caught:
            arrays.check(given, spec, "here")
        assert str(caught.value) == told


def test_the_bytes_of_a_declaration():
    assert ArraySpec("int64", ()).max_bytes == 8
    assert ArraySpec("float32", (3, UpTo(5))).max_bytes == 60


def test_rows_and_arrays_of_other_libraries():
    assert arrays.num_rows({}) == 0 and arrays.num_rows({"x": np.zeros((3, 2))}) == 3
    turned = np.arange(6).reshape(2, 3).T
    assert arrays.as_numpy(turned).flags.c_contiguous and np.array_equal(arrays.as_numpy(turned), turned)
    torch = pytest.importorskip("torch")
    assert arrays.as_numpy(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]
