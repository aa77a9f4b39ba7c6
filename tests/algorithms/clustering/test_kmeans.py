"""Codebooks: how near to the best clustering they are, what they keep exactly, and how indices are packed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from optimizer.algorithms.clustering import kmeans
from optimizer.algorithms.clustering.activation_norms import ActivationNorms
from optimizer.algorithms.clustering.bit_packing import bits_for, planes
from optimizer.algorithms.clustering.codes import Coding, cluster
from optimizer.algorithms.clustering.kmeans import codebooks, nearest
from optimizer.algorithms.clustering.product_quantization import nearest_vectors, vector_codebook
from optimizer.algorithms.quantization.weight_rows import RowLayout

RANDOM = np.random.default_rng(0)
SAMPLES = {
    "normal": RANDOM.standard_normal(300),
    "heavy tails": RANDOM.standard_normal(300) * np.exp(1.5 * RANDOM.standard_normal(300)),
    "outlier": np.concatenate([RANDOM.standard_normal(299), [500]]),
    "two heaps": np.concatenate([RANDOM.standard_normal(150) - 30, RANDOM.standard_normal(150) * 0.1 + 5]),
    "mostly zeros": np.where(RANDOM.random(300) < 0.8, 0, RANDOM.standard_normal(300)),
}


def squared_error(numbers, entries, masses=None) -> float:
    error = (numbers - entries[nearest(numbers, entries)]) ** 2
    return float(np.sum(error if masses is None else error * masses))


def least_error(numbers: np.ndarray, entries: int, masses: np.ndarray | None = None) -> float:
    """What no clustering is better than: dynamic programming over all stretches of the sorted numbers."""
    order = np.argsort(numbers)
    points, mass = numbers[order], np.ones(numbers.size) if masses is None else masses[order]
    m, first, second = (np.concatenate([[0], np.cumsum(mass * points**power)]) for power in (0, 1, 2))
    begin, end = np.meshgrid(np.arange(numbers.size + 1), np.arange(numbers.size + 1), indexing="ij")
    inside = np.maximum(m[end] - m[begin], 1e-300)
    cost = np.where(end > begin, second[end] - second[begin] - (first[end] - first[begin]) ** 2 / inside, np.inf)
    best = cost[0]
    for _ in range(entries - 1):
        best = np.minimum(best, np.min(best[:, np.newaxis] + cost, axis=0))
    return float(best[-1])


@pytest.mark.parametrize("entries", [2, 7, 16, 64])
@pytest.mark.parametrize("numbers", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_nearly_the_best_clustering(numbers, entries, is_weighted):
    masses = np.abs(RANDOM.standard_normal(numbers.size)) + 0.01 if is_weighted else None
    found = codebooks(numbers[np.newaxis], entries, None if masses is None else masses[np.newaxis])[0]
    best = least_error(numbers, entries, masses)
    assert squared_error(numbers, found, masses) <= 1.25 * best + 1e-20
    linear = codebooks(numbers[np.newaxis], entries, None if masses is None else masses[np.newaxis], init="linear")[0]
    assert squared_error(numbers, linear, masses) <= 1.25 * best + 1e-20


def test_the_numbers_of_long_rows_are_gathered_first(monkeypatch):
    numbers = (RANDOM.standard_normal((1, 30000)) * np.exp(RANDOM.standard_normal(30000))).astype(np.float32)
    masses = RANDOM.random((1, 30000)).astype(np.float32)
    for mass in (None, masses):
        exact = codebooks(numbers, 64, mass)[0]
        monkeypatch.setattr(kmeans, "MOST_POINTS", 1000)
        binned = codebooks(numbers, 64, mass)[0]
        monkeypatch.undo()
        weights = None if mass is None else mass[0]
        assert squared_error(numbers[0], binned, weights) <= 1.01 * squared_error(numbers[0], exact, weights)


def test_bins_are_in_the_order_of_the_numbers():
    numbers = np.sort(np.concatenate([RANDOM.standard_normal(1000) * 10.0**e for e in range(-40, 38, 6)]))
    bins = kmeans._bins(numbers.astype(np.float32))
    assert np.all(np.diff(bins) >= 0)
    assert bins.min() >= 0
    assert bins.max() < 1 << (32 - kmeans._DROPPED_BITS)


FLOATS = st.floats(-1e3, 1e3, width=32)


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=FLOATS),
    st.sampled_from([2, 3, 16, 100]),
    st.sampled_from(["density", "linear"]),
    st.booleans(),
)
def test_what_every_codebook_keeps(rows, entries, init, keep_zeros):
    found = codebooks(rows, entries, init=init, keep_zeros=keep_zeros)
    assert found.shape == (len(rows), entries)
    assert found.dtype == rows.dtype
    assert np.all(np.diff(found, axis=1) >= 0)
    assert np.all(np.abs(found) <= np.abs(rows).max())
    for row, book in zip(rows, found, strict=True):
        places = nearest(row, book)
        distances = np.abs(row[:, np.newaxis].astype(np.float64) - book)
        taken = np.abs(row - book[places].astype(np.float64))
        assert np.all(taken <= distances.min(axis=1) * (1 + 1e-6) + 1e-30)
        if np.unique(row).size <= entries:
            assert np.array_equal(book[places], row)
        if keep_zeros:
            assert np.all(book[places][row == 0] == 0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_hold_every_bit(bits):
    numbers = RANDOM.integers(0, 2**bits, 8 * 37).astype(np.uint8)
    total = np.zeros(numbers.size, np.int64)
    size = 0
    for plane in planes(numbers, bits):
        total += (plane.table[plane.packed] if plane.width < 8 else plane.digits).reshape(-1).astype(np.int64)
        size += plane.packed.nbytes
    assert np.array_equal(total, numbers)
    assert size == numbers.size * bits // 8


def test_bits_for():
    assert [bits_for(entries) for entries in (1, 2, 3, 16, 17, 256)] == [1, 1, 2, 4, 5, 8]


def test_vectors_are_found_again():
    book = RANDOM.standard_normal((20, 3)).astype(np.float32)
    vectors = book[RANDOM.integers(0, 20, 4000)]
    found = vector_codebook(vectors + RANDOM.standard_normal(vectors.shape).astype(np.float32) * 1e-3, 20)
    assert np.abs(found[nearest_vectors(vectors, found)] - vectors).max() < 0.01
    few = vector_codebook(vectors, 256)
    assert len(few) == 20
    assert np.array_equal(few[nearest_vectors(vectors, few)], vectors)


def test_vectors_of_zeros_stay():
    vectors = np.where(RANDOM.random((500, 1)) < 0.5, 0, RANDOM.standard_normal((500, 2)))
    found = vector_codebook(vectors, 8, keep_zeros=True)
    assert np.all(found[nearest_vectors(vectors, found)][~vectors.any(axis=1)] == 0)


@pytest.mark.parametrize("lead", [0, 1])
def test_channels_of_like_spread_share_a_codebook(lead):
    spread = np.repeat([0.01, 1.0], 8)[RANDOM.permutation(16)]
    array = RANDOM.standard_normal((16, 64)) * spread[:, np.newaxis]
    array = (array if lead else array.T).astype(np.float32)
    found = cluster(array, RowLayout(array.shape, lead), Coding(16, group=8))
    assert found.books.shape == (2, 16)
    assert np.array_equal(found.owners == 1, spread == 1)
    whole = cluster(array, RowLayout(array.shape, lead), Coding(16))
    assert found.owners is not None
    assert whole.owners is None
    rows = array if lead else array.T
    back = np.take_along_axis(found.books[found.owners], found.indices.astype(np.int64), axis=1)
    assert np.linalg.norm(back - rows) == pytest.approx(found.error * np.linalg.norm(rows))
    quiet = spread < 1
    assert np.linalg.norm((back - rows)[quiet]) < 0.2 * np.linalg.norm(rows[quiet])


def test_as_many_channels_as_pay_share_a_codebook():
    coding = Coding(16, group="auto")
    assert coding.channels_of_a_group(512, 4608) == 1
    assert coding.channels_of_a_group(512, 100) == 11
    assert coding.channels_of_a_group(20, 100) == 20
    assert Coding(16, group=7).channels_of_a_group(5, 100) == 5
    assert Coding(16).channels_of_a_group(5, 100) == 5


@pytest.mark.parametrize(("group", "factor"), [(0, 0.85), (4, 0.85), (1, 1.0)])
def test_errors_cancel_in_the_mean(group, factor):
    """Inputs as behind a Relu: means as large as their spread; a row's own entries are means, so little is left."""
    rows = RANDOM.standard_normal((24, 200)).astype(np.float32)
    inputs = np.maximum(RANDOM.standard_normal((2000, 200)) + np.linspace(-1, 1, 200), 0)
    power, mean = (np.asarray(one, np.float32)[np.newaxis] for one in (np.mean(inputs**2, axis=0), inputs.mean(axis=0)))
    unit = power.mean()
    known = ActivationNorms(power / unit, mean / np.sqrt(unit))
    errors = []
    for given_inputs in (ActivationNorms(known.power, None), known):
        found = cluster(rows, RowLayout(rows.shape, 1), Coding(16, group=group), given_inputs)
        book = found.books[found.owners] if found.owners is not None else np.broadcast_to(found.books, (24, 16))
        back = np.take_along_axis(book, found.indices.reshape(rows.shape).astype(np.int64), axis=1)
        errors.append(np.linalg.norm(inputs @ (back - rows).T))
    assert errors[1] < factor * errors[0]
