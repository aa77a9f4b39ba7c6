"""Weights that stay, fitted anew: never worse, exact where the rest can stand in, and what is chosen to go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.algorithms.reconstruction.least_squares import (
    Fit,
    damping,
    least_squares,
    optimal_brain_surgeon,
)
from optimizer.statistics.damping import damped, factor, inverse_diagonal


def moments(rows: np.ndarray) -> np.ndarray:
    return rows.swapaxes(-1, -2) @ rows / rows.shape[-2]


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    groups, outputs, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 9))
    rows = rng.standard_normal((groups, draw(st.integers(1, 30)), width)) @ rng.standard_normal((width, width))
    matrix = rng.standard_normal((groups, outputs, width))
    stays = rng.random(matrix.shape) < draw(st.floats(0, 1))
    return matrix, stays, rows, draw(st.sampled_from([1e-9, 1e-3, 0.3]))


@given(problems())
@settings(max_examples=60, deadline=None)
def test_no_row_is_worse_than_with_its_other_weights_at_zero(problem):
    matrix, stays, rows, part = problem
    fitted = least_squares(matrix, stays, Fit.same(matrix, moments(rows), part))
    assert not fitted[~stays].any()
    wanted = rows @ matrix.swapaxes(-1, -2)
    before = np.sum((rows @ (matrix * stays).swapaxes(-1, -2) - wanted) ** 2, axis=1)
    after = np.sum((rows @ fitted.swapaxes(-1, -2) - wanted) ** 2, axis=1)
    assert np.all(after <= before * (1 + 1e-9) + 1e-9)


def test_it_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    rows, matrix = rng.standard_normal((1, 400, 12)) @ rng.standard_normal((12, 12)), rng.standard_normal((1, 5, 12))
    stays = rng.random(matrix.shape) < 0.5
    fitted = least_squares(matrix, stays, Fit.same(matrix, moments(rows), 1e-12))
    for row in range(5):
        kept = stays[0, row]
        exact = np.linalg.lstsq(rows[0][:, kept], rows[0] @ matrix[0, row], rcond=None)[0]
        np.testing.assert_allclose(fitted[0, row, kept], exact, rtol=1e-4, atol=1e-4)


def test_what_others_can_stand_in_for_is_no_loss():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((1, 50, 6)), 2, axis=2)  # each input twice
    matrix = rng.standard_normal((1, 4, 12))
    kept = np.tile([True, False], 6)[np.newaxis]
    fit = Fit.same(matrix, moments(rows), 1e-9)
    fitted = least_squares(matrix, np.broadcast_to(kept[:, np.newaxis], matrix.shape), fit)
    np.testing.assert_allclose(rows @ fitted.swapaxes(1, 2), rows @ matrix.swapaxes(1, 2), atol=1e-6)


def test_pruning_takes_what_costs_least_and_keeps_zeros():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((1, 80, 4)), 2, axis=2)
    matrix = rng.standard_normal((1, 3, 8))
    matrix[0, 0, 0] = 0

    def mask(costs, part):
        kept = np.ones(costs.size, np.bool_)
        kept[np.argsort(costs, axis=None, kind="stable")[: round(12 * part)]] = False
        return kept.reshape(costs.shape)

    pruned = optimal_brain_surgeon(matrix, Fit.same(matrix, moments(rows), 1e-6), mask)
    assert np.sum(pruned == 0) == 12
    assert pruned[0, 0, 0] == 0
    smallest = np.where(mask(np.abs(matrix), 1), matrix, 0)
    assert loss(rows, matrix, pruned) < loss(rows, matrix, smallest) / 2


def loss(rows, matrix, other):
    return np.linalg.norm(rows @ (other - matrix).swapaxes(1, 2)) / np.linalg.norm(rows @ matrix.swapaxes(1, 2))


def test_a_target_from_elsewhere():
    rng = np.random.default_rng(1)
    rows, truth = rng.standard_normal((2, 300, 5)), rng.standard_normal((2, 3, 5))
    answers = rows @ truth.swapaxes(1, 2)
    fit = Fit(moments(rows), answers.swapaxes(1, 2) @ rows / 300, np.mean(answers**2, axis=1), 1e-9)
    np.testing.assert_allclose(least_squares(np.ones_like(truth), truth != 0, fit), truth, atol=1e-5)


def test_nothing_seen_changes_nothing():
    matrix = np.arange(6.0).reshape(1, 2, 3)
    fit = Fit.same(matrix, np.zeros((1, 3, 3)), damping(3, 0))
    np.testing.assert_allclose(least_squares(matrix, matrix > 1, fit), np.where(matrix > 1, matrix, 0))


@pytest.mark.parametrize("part", [0.01, 1.0])
def test_the_diagonal_of_the_inverse(part):
    rows = np.random.default_rng(0).standard_normal((2, 9, 5))
    square = damped(moments(rows), part)
    np.testing.assert_allclose(inverse_diagonal(square), np.einsum("gkk->gk", np.linalg.inv(square)))


def test_what_has_no_factor_has_none():
    assert factor(-np.eye(2)) is None
    assert inverse_diagonal(-np.eye(2)) is None
