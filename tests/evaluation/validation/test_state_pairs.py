"""Which outputs feed inputs again, and what is fed then."""

from __future__ import annotations

import numpy as np
import pytest

from optimizer.evaluation.runtime.session import Slot
from optimizer.evaluation.validation.state_pairs import next_feed, state_pairs


def slots(*names, shape=(1, "N"), kind="tensor(float)"):
    return [Slot(name, kind, shape) for name in names]


@pytest.mark.parametrize(
    ("into", "out"),
    [
        ("h", "hn"),
        ("h0", "hn"),
        ("c_0", "c_n"),
        ("state", "stateN"),
        ("state", "state_out"),
        ("state_in", "state_out"),
        ("input_state", "output_state"),
        ("prev_state", "next_state"),
        ("cache_last_time", "cache_last_time_next"),
        ("cached_key_0", "new_cached_key_0"),
        ("in_cache12", "out_cache12"),
        ("hiddenIn", "hiddenOut"),
        ("r1i", "r1o"),
        ("initial_h", "Y_h"),
        ("past_0", "present_0"),
        ("past_key_values.3.key", "present.3.key"),
        ("past_key_values.3.decoder.value", "present.3.decoder.value"),
        ("past_key_values_3_key", "present_key_values_3_key"),
    ],
)
def test_names_of_a_state(into, out):
    others = ("x", "past_key_values.4.key", "past_7", "c1")
    assert state_pairs(slots(into, *others), slots("y", out, "logits")) == {into: out}


@pytest.mark.parametrize(
    ("into", "out"),
    [
        ("input", "output"),
        ("x", "y"),
        ("input_1", "output_1"),
        ("past_key_values.3.key", "present.3.value"),
        ("past_0", "present_1"),
        ("h", "cn"),
        ("image", "logits"),
        ("state", "state"),
    ],
)
def test_names_of_no_state(into, out):
    assert state_pairs(slots(into), slots(out)) == {}


@pytest.mark.parametrize(
    ("into", "out"),
    [
        (slots("h", shape=(2, 4)), slots("hn", shape=(2, 5))),
        (slots("h", shape=(2, 4)), slots("hn", shape=(2, 4, 1))),
        (slots("h"), slots("hn", kind="tensor(int64)")),
        (slots("h", kind="seq(tensor(float))", shape=()), slots("hn", kind="seq(tensor(float))", shape=())),
        (slots("h"), [Slot("hn", "tensor(float)", (), ranked=False)]),
    ],
)
def test_what_does_not_fit_is_no_state(into, out):
    assert state_pairs(into, out) == {}


def test_of_two_none_is_meant():
    assert state_pairs(slots("state"), slots("state_out", "new_state")) == {}
    assert state_pairs(slots("state_in", "prev_state"), slots("state_out")) == {}


INPUTS = [
    Slot("ids", "tensor(int64)", (1, "tokens")),
    Slot("mask", "tensor(int64)", (1, "past + tokens")),
    Slot("past", "tensor(float)", (1, 2, "past", 4)),
]


def test_a_mask_grows_and_shrinks_with_the_past():
    feed = {"ids": np.zeros((1, 1), np.int64), "mask": np.ones((1, 3), np.int64), "past": np.zeros((1, 2, 2, 4))}
    longer = next_feed(feed, {"past": np.zeros((1, 2, 5, 4))}, INPUTS)
    assert [np.shape(longer[slot.name]) for slot in INPUTS] == [(1, 1), (1, 6), (1, 2, 5, 4)]
    assert longer["mask"].all()
    shorter = next_feed(feed, {"past": np.zeros((1, 2, 1, 4))}, INPUTS)
    assert np.shape(shorter["mask"]) == (1, 2)


def test_without_states_the_feed_is_as_it_was():
    feed = {"ids": np.zeros((1, 1), np.int64)}
    assert next_feed(feed, {}, INPUTS) == feed
