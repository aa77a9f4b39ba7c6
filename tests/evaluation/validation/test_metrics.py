"""Error measures add up over feeds, and nothing odd is skipped."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.evaluation.validation.metrics import ErrorSums, sums
from optimizer.evaluation.validation.output_error import OutputError, difference


def floats(*numbers):
    return np.array(numbers, np.float32)


def test_of_equal_arrays_nothing_differs():
    found = sums(floats(1, math.nan, math.inf), floats(1, math.nan, math.inf))
    assert (found.differing, found.misplaced, found.rel_l2, found.sqnr) == (0, 0, 0.0, math.inf)
    assert found.agreement == 1


def test_formulas():
    found = sums(floats(3, 4), floats(3, 4.5))
    assert found.rel_l2 == pytest.approx(0.1)
    assert found.sqnr == pytest.approx(20)
    assert found.max_abs == pytest.approx(0.5)
    assert found.cosine == pytest.approx((9 + 18) / 5 / math.hypot(3, 4.5))


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (math.inf, -math.inf), (math.nan, math.inf)],
)
def test_nan_and_infinity_count_by_place_and_kind(reference, candidate):
    found = sums(floats(1, reference), floats(1, candidate))
    assert found.misplaced == 1
    assert math.isinf(found.rel_l2)


def test_zero_reference_has_no_relative_error():
    assert sums(floats(0, 0), floats(0, 0)).rel_l2 == 0
    assert math.isinf(sums(floats(0, 0), floats(0, 1)).rel_l2)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.integers(1, 19))
def test_sums_of_parts_are_sums_of_the_whole(numbers, cut):
    reference = np.array(numbers, np.float32).reshape(-1, 1)
    candidate = reference + np.float32(0.5)
    whole = sums(reference, candidate)
    parts = sums(reference[:cut], candidate[:cut]) + sums(reference[cut:], candidate[cut:])
    assert parts.elements == whole.elements
    assert parts.error2 == pytest.approx(whole.error2)
    assert parts.dot == pytest.approx(whole.dot)
    assert parts.max_abs == whole.max_abs


def test_arg_max_flips_are_counted_by_row_with_their_gap():
    found = sums(np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[1.0, 2.1], [1.0, 3.0]]))
    assert (found.rows, found.arg_max_changes, found.gap) == (2, 1, 2.0)
    assert found.agreement == 0.5


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16, np.float64])
def test_every_float_type(kind):
    found = sums(np.array([1, 2], kind), np.array([1, 3], kind))
    assert found.max_abs == 1
    assert found.rel_l2 == pytest.approx(1 / math.sqrt(5))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, ml_dtypes.int4, ml_dtypes.uint4])
def test_integers_are_compared_by_equality(kind):
    found = sums(np.array([1, 2, 3, 4], kind), np.array([1, 2, 3, 5], kind))
    assert (found.elements, found.differing, found.agreement) == (4, 1, 0.75)


def test_strings_and_booleans():
    assert sums(np.array(["a", "b"], object), np.array(["a", "c"], object)).differing == 1
    assert sums(np.array([True, False]), np.array([True, True])).differing == 1


def test_complex_numbers():
    assert sums(np.array([3 + 4j]), np.array([3 + 4.5j])).rel_l2 == pytest.approx(0.1)


def test_empty_arrays_agree():
    assert sums(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == ErrorSums()


@pytest.mark.parametrize(
    ("reference", "candidate", "reason"),
    [
        (floats(1), floats(1, 2), "has shape [2] instead of [1]"),
        (floats(1), np.array([1.0]), "has dtype float64 instead of float32"),
        ([floats(1)], [], "has length 0 instead of 1"),
        ([floats(1)], floats(1), "is a ndarray instead of list"),
        ({"a": 1.0}, {"b": 1.0}, "has keys ['b'] instead of ['a']"),
        (None, floats(1), "is present [1.] instead of None"),
    ],
)
def test_values_that_cannot_be_compared_fail_in_words(reference, candidate, reason):
    found = difference(reference, candidate)
    assert found.failure == reason
    assert (found + difference(floats(1), floats(1))).failure == reason
    assert found.error("y") == OutputError("y")


def test_containers_are_compared_item_by_item():
    found = difference([{1: 3.0, 2: 4.0}], [{1: 3.0, 2: 4.5}])
    assert found.floats.rel_l2 == pytest.approx(0.1)
    assert difference([floats(1), np.array([2])], [floats(1), np.array([3])]).discrete.differing == 1
    assert difference(None, None).failure == ""


def test_without_values_only_dtype_and_shape_count():
    assert not difference(floats(1), floats(2), values=False).floats.differing
    assert difference(floats(1), floats(1, 2), values=False).failure


def test_the_worst_feed_is_kept():
    small = difference(floats(1e-3), floats(2e-3))
    large = difference(floats(1e3), floats(1e3))
    total = small + large
    assert total.worst_rel_l2 == pytest.approx(1)
    assert total.floats.rel_l2 == pytest.approx(1e-6)


def test_report_values_are_json():
    found = difference(floats(0, 1), floats(0, math.nan)).error("y").to_dict()
    assert found["rel_l2"] == "inf"
    assert difference(floats(3, 4), floats(3, 4)).error("y").to_dict()["sqnr"] is None
