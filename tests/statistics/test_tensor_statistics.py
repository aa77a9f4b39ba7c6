"""Observations: exact where they promise it, whatever the order, in constant memory; ranges inside what was seen."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from optimizer.algorithms.quantization.linear import UINT8, asymmetric, dequantize, quantize
from optimizer.errors import DataError, UsageError
from optimizer.statistics.histogram import BINS, Histogram
from optimizer.statistics.tensor_statistics import METHODS, Observation, Range

numbers = st.floats(-1e6, 1e6, width=32)
feed_of_numbers = arrays.arrays(np.float32, st.integers(1, 40), elements=numbers)
feed_lists = st.lists(feed_of_numbers, min_size=1, max_size=5)
any_float = st.floats(width=32, allow_nan=False, allow_infinity=False)


def observed(*items, axis=None):
    found = Observation.of(axis)
    for item in items:
        found.add(np.asarray(item))
    return found


def normal(size, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


@given(st.lists(arrays.arrays(np.float32, st.integers(1, 40), elements=any_float), min_size=1, max_size=5))
def test_counts_are_never_lost_and_lie_where_the_numbers_are(items):
    whole = np.concatenate(items)
    histogram = observed(*items).histogram
    assert histogram.counts.sum() == whole.size
    direct = Histogram()
    direct.fit(float(np.abs(whole).max()))
    direct.add(whole.astype(np.float64))
    np.testing.assert_array_equal(histogram.counts, direct.counts)
    edges, counts = histogram.between(float(whole.min()), float(whole.max()))
    assert counts.sum() == whole.size
    assert len(edges) == len(counts) + 1
    if histogram.exponent > -100:
        assert edges[0] <= whole.min()
        assert whole.max() < edges[-1]


@given(feed_lists)
def test_the_order_of_feeds_does_not_matter(items):
    forth, back = observed(*items), observed(*reversed(items))
    np.testing.assert_array_equal(forth.histogram.counts, back.histogram.counts)
    assert forth.range() == back.range()
    for method in ("moving-average", "percentile"):  # the others see no more than the histogram
        there, again = forth.range(method), back.range(method)
        assert there.rmin == pytest.approx(again.rmin, rel=1e-9, abs=1e-9)
        assert there.rmax == pytest.approx(again.rmax, rel=1e-9, abs=1e-9)


@settings(max_examples=50)
@given(feed_lists, st.sampled_from(METHODS), st.booleans(), st.floats(50, 100))
def test_ranges_lie_within_what_was_seen(items, method, symmetric, percentile):
    found = observed(*items)
    got = found.range(method, percentile=percentile, symmetric=symmetric)
    assert found.minimum <= got.rmin <= got.rmax <= found.maximum


@given(feed_lists)
def test_sums_and_extremes_are_those_of_all_feeds_together(items):
    whole, found = np.concatenate(items).astype(np.float64), observed(*items)
    assert (found.count, found.feeds) == (whole.size, len(items))
    assert found.range() == Range(whole.min(), whole.max())
    assert found.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
    assert found.second_moment == pytest.approx(np.square(whole).mean(), rel=1e-9)
    average = found.range("moving-average")
    assert average.rmin == pytest.approx(np.mean([item.min() for item in items], dtype=float), rel=1e-9, abs=1e-9)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_channels_are_what_each_of_them_is_alone(batch, channels, width, seed):
    items = [normal((batch, channels, width), seed + number) for number in range(3)]
    whole = observed(*items, axis=1).channels
    for channel in range(channels):
        alone = observed(*(item[:, channel] for item in items))
        assert whole.count[channel] == alone.count
        assert (whole.minimum[channel], whole.maximum[channel]) == (alone.minimum, alone.maximum)
        assert whole.largest[channel] == alone.largest
        assert whole.mean[channel] == pytest.approx(alone.mean)
        assert whole.second_moment[channel] == pytest.approx(alone.second_moment)
        assert whole.variance[channel] == pytest.approx(alone.variance, abs=1e-12)


def test_memory_is_constant():
    found = observed(normal(3000), axis=0)
    size = len(pickle.dumps(found))
    for number in range(50):
        found.add(normal(3000, number, scale=10.0 ** (number % 30)))
    assert len(pickle.dumps(found)) <= size + 500  # numbers may take more digits


def test_what_is_not_finite_is_counted_and_left_out():
    found = observed([[1.0, np.nan, 3.0], [np.inf, -2.0, -np.inf]], [[np.nan, np.nan, np.nan]], axis=1)
    assert (found.count, found.non_finite, found.feeds) == (3, 6, 1)
    assert found.range() == Range(-2.0, 3.0)
    assert found.histogram.counts.sum() == 3
    np.testing.assert_array_equal(found.channels.count, [1, 1, 1])
    np.testing.assert_array_equal(found.channels.mean, [1, -2, 3])
    np.testing.assert_array_equal(found.channels.largest, [1, 2, 3])


@pytest.mark.parametrize(
    "kind", [np.float16, ml_dtypes.bfloat16, np.float64, np.int64, np.uint8, np.int8, ml_dtypes.int4, np.bool_]
)
def test_every_numeric_type(kind):
    found = observed(np.array([0, 1, 1, 0], kind), axis=0)
    assert (found.range(), found.mean, found.count) == (Range(0.0, 1.0), 0.5, 4)


def test_integers_are_not_rounded():
    assert observed(np.array([2**24 + 1], np.int32)).maximum == 2**24 + 1


@pytest.mark.parametrize("array", [np.array(["a"], object), np.array([1j])])
def test_what_is_no_number_is_refused(array):
    with pytest.raises(DataError, match="no range"):
        observed(array)


def test_channels_that_are_not_there_are_refused():
    with pytest.raises(DataError, match=r"axis 1 of shape \[3\]"):
        observed(np.zeros(3), axis=1)
    with pytest.raises(DataError, match="has 4 channels and had 3"):
        observed(np.zeros((2, 3)), np.zeros((2, 4)), axis=-1)


def test_an_empty_tensor_is_no_feed():
    found = observed(np.zeros((0, 3), np.float32), axis=1)
    assert (found.count, found.feeds, found.largest, found.mean) == (0, 0, 0.0, 0.0)
    with pytest.raises(DataError, match="no finite element"):
        found.range()


def test_unknown_methods_and_bad_numbers_are_refused():
    with pytest.raises(UsageError, match="'median'; give one of min-max, moving-average, percentile, entropy, mse"):
        observed([1.0]).range("median")
    with pytest.raises(UsageError, match="percentile"):
        observed([1.0]).range("percentile", percentile=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.5, -1e-30])
def test_a_constant_has_its_own_range(method, value):
    got = observed(np.full(5, value, np.float32)).range(method)
    assert got.rmin == got.rmax == pytest.approx(value)


def test_percentiles_are_those_of_the_numbers_up_to_a_bin():
    values = np.random.default_rng(0).exponential(size=20_000).astype(np.float32)
    found = observed(values)
    got = found.range("percentile", percentile=99)
    low, high = np.percentile(values, [0.5, 99.5])
    assert low - found.histogram.width <= got.rmin <= low
    assert high <= got.rmax <= high + 2 * found.histogram.width
    both = found.range("percentile", percentile=99, symmetric=True)
    assert both.largest == pytest.approx(np.percentile(np.abs(values), 99), abs=2 * found.histogram.width)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_the_end_that_has_the_outlier_is_clipped(method):
    values = np.concatenate([np.abs(normal(100_000)), [-200.0]]).astype(np.float32)
    for sign in (1, -1):
        got = observed(sign * values).range(method, percentile=99.99)
        assert 2.5 < got.largest < 16  # of a histogram up to 256, a range of 256 bins is 16 wide


def quantization_error(values, limits):
    parameters = asymmetric(limits.rmin, limits.rmax, UINT8)
    return float(np.square(dequantize(quantize(values, parameters), parameters) - values).sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["normal", "relu", "heavy", "shifted", "six"])
def test_the_least_error_is_the_least_of_real_quantization(seed, shape):
    random = np.random.default_rng(seed)
    values = {
        "normal": random.standard_normal(20_000),
        "relu": np.maximum(random.standard_normal(20_000), 0),
        "heavy": random.standard_t(2.5, 20_000),
        "shifted": random.standard_normal(20_000) + 3,
        "six": np.clip(3 * random.standard_normal(20_000), 0, 6),
    }[shape].astype(np.float32)
    found = observed(values)
    best = quantization_error(values, found.range("mse"))
    candidates = [Range(found.minimum * low, found.maximum * high) for low in (1, 0.7, 0.4) for high in (1, 0.7, 0.4)]
    assert best <= 1.03 * min(quantization_error(values, other) for other in (found.range(), *candidates))


def test_a_range_without_outliers_is_hardly_clipped_by_entropy():
    values = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    got = observed(values).range("entropy")
    assert got.rmin < -0.95
    assert got.rmax > 0.95


def test_outputs_of_a_relu_keep_their_range_in_entropy():
    values = np.maximum(normal(100_000), 0)
    assert observed(values).range("entropy").rmax > 2.5


def test_change_tells_feeds_apart():
    same, other = normal((2, 3)), normal((2, 3), seed=1)
    assert observed(same, same).feed_change == 0
    assert observed(same, other).feed_change > 0
    assert observed(same, same[:1]).feed_change == np.inf
    long = normal(5000)
    elsewhere = long.copy()
    elsewhere[1] += 1  # no element of the sample
    assert observed(long, elsewhere).feed_change == pytest.approx(1 / 5000, rel=1e-3)
    assert observed([np.nan, 1.0], [np.nan, 1.0]).feed_change == 0


def test_a_share_of_elements():
    found = observed(np.array([0.0, 0.0, 0.5, 1.0], np.float32))
    assert found.share(0, 0) == 0.5
    assert found.share(1, 1) == 0.25
    assert found.share(0, 1) == 1
    assert BINS % 2 == 0
