"""What repairs of pruning hold does not grow with the number of calibration feeds."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.evaluation.feeds.sets import FeedSet, Split
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import clone, load
from optimizer.recipes.spec import parse_pass
from small_nets import Net

SHAPE = (1, 8, 48, 48)
FEW, MANY = 8, 64


def net():
    made = Net(*SHAPE)
    first = made.node("Relu", made.conv("x", 8, 24))
    pooled = made.node(
        "AveragePool", made.node("Relu", made.conv(first, 24, 16)), kernel_shape=[12, 12], strides=[12, 12]
    )
    flat = made.node("Flatten", pooled)
    return made.model(made.node("Gemm", flat, made.weight(256, 8), made.weight(8)))


def feed(number: int) -> dict[str, np.ndarray]:
    """Made when asked for, as one that is read from a file is."""
    return {"x": np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)}


def peak(spec: str, count: int) -> int:
    """The most bytes that are held while the pass runs, arrays of numpy among them."""
    reference, several, judges = load(net()), FeedSet(feed, range(count)), FeedSet(feed, range(100, 104))
    evaluator = RuntimeEvaluator(
        reference, Split(several, several, judges, judges, "iterable"), Budget.parse("rel_l2=1000"), is_timed=False
    )
    evaluator.budget_used(reference)
    model = clone(reference)
    gc.collect()
    tracemalloc.start()
    try:
        result = parse_pass(spec).run(model, Context(reference, evaluator=evaluator, budget_limit=1000.0))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.changes
    return most


@pytest.mark.parametrize("spec", ["prune-magnitude:guard=false", "prune-channels:macs=0.6,multiple=4"])
def test_it_does_not_grow_with_the_number_of_feeds(spec):
    peak(spec, FEW)  # what is imported and kept for good at first is no matter
    assert peak(spec, MANY) < 1.1 * peak(spec, FEW)
