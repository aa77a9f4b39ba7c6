"""Refusals, and how they are counted where a run is to be verbose."""

from __future__ import annotations

import onnx_ir as ir

from optimizer.contract.passes import Sites
from optimizer.contract.refusal import Refusal, RefusalCount, RefusalLog

TWO = ir.from_onnx_text(
    '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) { a = Relu(x)  y = Relu(a) }'
)
FIRST, SECOND = list(TWO.graph)


def test_a_refusal_is_true_and_equal_to_one_of_the_same_reason():
    assert Refusal("")
    assert Refusal("no") == Refusal("no") != Refusal("other")


def test_counts_are_by_step_and_reason_with_the_first_site():
    log = RefusalLog()
    for node in (FIRST, SECOND):
        log.add("drop", Refusal("no"), node)
    log.add("fuse", Refusal("no"), SECOND)
    assert log.counts() == (RefusalCount("drop", "no", 2, "Relu -> a"), RefusalCount("fuse", "no", 1, "Relu -> y"))


def test_a_node_counts_once_with_the_last_reason():
    log = RefusalLog()
    log.add("drop", Refusal("first"), FIRST)
    log.add("drop", Refusal("last"), FIRST)
    assert log.counts() == (RefusalCount("drop", "last", 1, "Relu -> a"),)


def test_what_is_permitted_in_the_end_was_not_refused():
    log = RefusalLog()
    log.add("drop", Refusal("no"), FIRST)
    log.add("drop", Refusal("no"), SECOND)
    Sites(refusals=log).permits("drop", "Relu -> a")
    assert log.counts() == (RefusalCount("drop", "no", 1, "Relu -> y"),)
