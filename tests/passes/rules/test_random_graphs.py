"""`simplify` on random graphs at all operator sets: valid, equal, no larger, and at rest after one run."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from optimizer.contract.passes import Context
from optimizer.io.model import load, to_proto
from passes.simplify import Simplify
from random_graphs import GROUPS, graphs
from rewriting import outputs

EXAMPLES = int(os.environ.get("ONNXHONE_EXAMPLES") or 12)  # of each group; a search for bugs wants thousands


def simplified(proto):
    model = load(proto)
    return to_proto(Simplify().run(model, Context(reference=model)).model)


def answers(proto, feeds):
    """What ONNX Runtime answers, or ``None`` where it cannot run the model: an operator, or a shape, does not fit."""
    try:
        return outputs(proto, feeds, optimize=False)
    except Exception:  # noqa: BLE001 - ONNX Runtime's own exceptions share no base but Exception
        return None


def assert_equal(wanted, found):
    """Equal but for roundings, each of which may be as large as those of the largest numbers around."""
    for one, other in zip(wanted, found, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        scale = float(np.abs(one).max(initial=1.0))
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("group", GROUPS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data(), st.integers(0, 9))
def test_random_graphs(group, data, seed):
    proto, shape = data.draw(graphs(group))
    note(onnx.printer.to_text(proto))
    feeds = {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}
    wanted = answers(proto, feeds)
    assume(wanted is not None)
    assume(all(np.isfinite(array).all() and np.abs(array).max(initial=0) < 1e6 for array in wanted))
    after = simplified(proto)
    note(onnx.printer.to_text(after))
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.output) == list(proto.graph.output)
    assert after.ByteSize() <= proto.ByteSize()
    assert_equal(wanted, outputs(after, feeds, optimize=False))
    assert simplified(after).SerializeToString() == after.SerializeToString()
