"""Entries of codebooks chosen by the inputs' second moments: never worse than the nearest on what was seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_cases import CASES, kernel, moments_of, moving_together
from optimizer.algorithms.clustering.gptq import Input, chosen
from optimizer.algorithms.reconstruction.gptq import quadratic_error
from optimizer.statistics import im2col
from optimizer.statistics.second_moments import SecondMoments


def nearest(array, books, owners):
    """By comparing with all entries."""
    own = books[np.broadcast_to(owners, array.shape)]
    at = np.abs(own - array[..., np.newaxis]).argmin(axis=-1)
    return np.take_along_axis(own, at[..., np.newaxis], axis=-1)[..., 0]


def problem(case, seed, codebooks, entries):
    op_type, shape, attributes, _, data = CASES[case]
    node, rng = kernel(op_type, shape, **attributes), np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(np.float32)
    books = np.sort(rng.standard_normal((codebooks, entries)), axis=1).astype(np.float32)
    owners = rng.integers(0, codebooks, shape)
    x = moving_together(rng, data, along=1 if "Conv" in op_type else -1)
    return node, weight, books, owners, moments_of(node, x)[1]


def errors(node, array, found, moments):
    return quadratic_error(im2col.as_matrix(node, array - found).astype(np.float64), moments.second_moment)


@given(st.sampled_from(sorted(CASES)), st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 20), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_row_is_worse_than_with_the_nearest_entries(case, seed, codebooks, entries, keep_zeros):
    node, weight, books, owners, moments = problem(case, seed, codebooks, entries)
    if keep_zeros:
        books[:, 0] = 0
        books.sort(axis=1)
        weight[np.random.default_rng(seed).random(weight.shape) < 0.3] = 0
    found = chosen(weight, books, owners, Input(node, moments), keep_zeros=keep_zeros)
    assert (found.shape, found.dtype) == (weight.shape, books.dtype)
    assert (found[..., np.newaxis] == books[owners]).any(axis=-1).all()
    plain = errors(node, weight, nearest(weight, books, owners), moments)
    assert (errors(node, weight, found, moments) <= plain * (1 + 1e-6) + 1e-9).all()
    if keep_zeros:
        assert not found[weight == 0].any()


@pytest.mark.parametrize("case", CASES)
def test_inputs_that_move_together_make_up_for_each_other(case):
    node, weight, books, owners, moments = problem(case, 0, 3, 8)
    found = chosen(weight, books, owners, Input(node, moments), keep_zeros=False)
    plain = errors(node, weight, nearest(weight, books, owners), moments)
    assert errors(node, weight, found, moments).sum() < 0.9 * plain.sum()


def test_without_moments_that_have_a_factor_entries_are_the_nearest():
    node, weight, books, owners, _ = problem("gemm", 0, 3, 8)
    moments = SecondMoments.of(*im2col.width(node))
    moments.rows = 1
    found = chosen(weight, books, owners, Input(node, moments), keep_zeros=False)
    np.testing.assert_array_equal(found, nearest(weight, books, owners))
