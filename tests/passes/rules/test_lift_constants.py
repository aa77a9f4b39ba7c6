"""lift-constants: Constant nodes become initializers where there may be some."""

from __future__ import annotations

import pytest

from passes.rules import lift_constants
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "a tensor": (
        model("g (float[2] x) => (float[2] y) { c = Constant<value = float[2] {1, 2}>() y = Add(x, c) }"),
        ["Add"],
    ),
    "a number": (
        model("g (float[2] x) => (float[2] y) { c = Constant<value_float=2.0>() y = Add(x, c) }"),
        ["Add"],
    ),
    "integers": (
        model("g (float[2] x) => (float[2] y) { c = Constant<value_ints=[2]>() y = Reshape(x, c) }"),
        ["Reshape"],
    ),
}
NO_OPS = {
    "an output": model(
        "g (float[2] x) => (float[2] y, float[2] c) { c = Constant<value = float[2] {1, 2}>() y = Add(x, c) }"
    ),
    "no Constant": model("g (float[2] x) => (float[2] y) { y = Neg(x) }"),
    "before IR version 4": model(
        "g (float[2] x) => (float[2] y) { c = Constant<value = float[2] {1, 2}>() y = Add(x, c) }", 8
    ).replace("ir_version: 8", "ir_version: 3"),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_constants_are_initializers(text, left):
    model = rewritten(text, lift_constants.RULES)
    assert [node.op_type for node in model.graph] == left
    assert len(model.graph.initializers) == 1


def test_the_same_constant_is_not_stored_twice():
    text = model(
        "g (float[2] x) => (float[2] y) <float[2] d = {1, 2}> "
        "{ c = Constant<value = float[2] {1, 2}>() a = Add(x, c) y = Mul(a, d) }"
    )
    assert list(rewritten(text, lift_constants.RULES).graph.initializers) == ["d"]


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, lift_constants.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, lift_constants.RULES)
