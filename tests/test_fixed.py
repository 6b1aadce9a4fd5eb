"""Fixed point, blocks and packed matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlearn.errors import SettingsError
from fusionlearn.fixed import FixedPoint, block_rows, one_blas_thread, pack, sum_blocks, unpack


@given(st.integers(1, 2**40), st.floats(1e-9, 1e5))
def test_sums_of_all_records_stay_below_the_limit(records, entry):
    try:
        grid = FixedPoint.for_sums(records, entry)
    except SettingsError:
        assert records * entry > 2.0**53
        return
    assert 8 <= grid.bits <= 50
    assert records * entry * 2.0**grid.bits <= 2**62
    if grid.bits < 50:
        assert records * max(entry, 2.0**-20) * 2.0 ** (grid.bits + 1) > 2**62  # no finer grid would do
    assert grid.bound(records, entry) >= records * entry * 2.0**grid.bits


def test_a_grid_too_coarse_is_refused():
    assert FixedPoint.for_sums(2**54, 1.0).bits == 8
    with pytest.raises(SettingsError, match="fraction bits"):
        FixedPoint.for_sums(2**54 + 2**10, 1.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(8, 40))
def test_rounding_is_to_the_nearest_and_back(values, bits):
    grid, array = FixedPoint(bits), np.array(values)
    integers = grid.encode(array)
    assert integers.dtype == np.int64
    assert np.abs(grid.decode(integers) - array).max() <= 2.0 ** -(bits + 1)
    assert (grid.encode(grid.decode(integers)) == integers).all()


def test_encoding_leaves_its_input_alone():
    array = np.array([0.3, 0.7])
    FixedPoint(10).encode(array)
    assert array.tolist() == [0.3, 0.7]


@pytest.mark.parametrize("size", [1, 2, 5, 63, 64, 65, 130])
def test_packing_keeps_a_symmetric_matrix(size):
    half = np.random.default_rng(size).normal(size=(size, size))
    matrix = half + half.T
    packed = pack(matrix)
    assert packed.shape == (size * (size + 1) // 2,)
    assert packed.tolist() == [matrix[i, j] for i in range(size) for j in range(i, size)]
    assert (unpack(packed) == matrix).all()


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(1, 400))
def test_blocks_cover_every_row_once_and_in_order(rows, width):
    seen = []
    values = np.arange(rows)
    total = sum_blocks(rows, width * 1000, lambda part: seen.append(part) or {"sum": np.asarray(values[part].sum())})
    assert total["sum"] == values.sum()
    length = block_rows(width * 1000)
    assert math.log2(length).is_integer()
    assert sum(part.stop - part.start for part in seen) == rows
    assert all(part.start % length == 0 for part in seen)


def test_blocks_of_wide_rows_are_shorter():
    lengths = [block_rows(width) for width in (1, 10, 100, 1000, 10_000, 100_000)]
    assert lengths == sorted(lengths, reverse=True)
    assert (lengths[0], lengths[-1]) == (65_536, 256)


def test_within_the_block_blas_has_one_thread():
    from threadpoolctl import threadpool_info, threadpool_limits

    def blas():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        with one_blas_thread() as threads:
            assert blas() == {1}
        assert threads == max(blas())
