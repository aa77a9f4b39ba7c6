"""inline-if: an If on a constant is its branch."""

from __future__ import annotations

import pytest

from passes.rules import inline_if
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "then": (
        model(
            "g (float[2] x) => (float[2] y) <bool c = {1}> { z = If (c) <then_branch = t () => (float[2] p) "
            "{ p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z) }"
        ),
        ["Neg", "Exp"],
    ),
    "else": (
        model(
            "g (float[2] x) => (float[2] y) <bool c = {0}> { z = If (c) <then_branch = t () => (float[2] p) "
            "{ p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z) }"
        ),
        ["Abs", "Exp"],
    ),
    "one element": (
        model(
            "g (float[2] x) => (float[2] y) <bool[1] c = {1}> { z = If (c) <then_branch = t () => (float[2] "
            "p) { p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z) }"
        ),
        ["Neg", "Exp"],
    ),
    "two nodes": (
        model(
            "g (float[2] x) => (float[2] y) <bool c = {1}> { z = If (c) <then_branch = t () => (float[2] p) "
            "{ r = Neg (x) p = Relu (r) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z) }"
        ),
        ["Neg", "Relu", "Exp"],
    ),
    "a Constant node": (
        model(
            "g (float[2] x) => (float[2] y) { c = Constant<value = bool {1}>() z = If (c) <then_branch = t "
            "() => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp "
            "(z) }"
        ),
        ["Neg", "Exp"],
    ),
}
NO_OPS = {
    "on an input": model(
        "g (float[2] x, bool c) => (float[2] y) { z = If (c) <then_branch = t () => (float[2] p) { p = "
        "Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z) }"
    ),
    "on what is computed": model(
        "g (float[2] x, bool d) => (float[2] y) { c = Not(d) z = If (c) <then_branch = t () => (float[2] "
        "p) { p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z) }"
    ),
    "a Loop": model(
        "g (float[2] x, int64 n, bool c) => (float[2] y) { y = Loop (n, c, x) <body = b (int64 i, bool "
        "k, float[2] s) => (bool l, float[2] o) { l = Identity(k) o = Neg(s) }> }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, inline_if.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, inline_if.RULES)
