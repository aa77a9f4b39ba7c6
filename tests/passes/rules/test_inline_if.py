"""inline-if: an If on a constant is its branch."""

from __future__ import annotations

import pytest

from passes.rules import inline_if
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("then", "(float[2] x) => (float[2] y) <bool c = {1}>",
            "z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { "
            "q = Abs (x) }> y = Exp (z)",
            after="p = Neg(x) y = Exp(p)"),
    Rewrite("else", "(float[2] x) => (float[2] y) <bool c = {0}>",
            "z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { "
            "q = Abs (x) }> y = Exp (z)",
            after="q = Abs(x) y = Exp(q)"),
    Rewrite("one element", "(float[2] x) => (float[2] y) <bool[1] c = {1}>",
            "z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { "
            "q = Abs (x) }> y = Exp (z)",
            after="p = Neg(x) y = Exp(p)"),
    Rewrite("two nodes", "(float[2] x) => (float[2] y) <bool c = {1}>",
            "z = If (c) <then_branch = t () => (float[2] p) { r = Neg (x) p = Relu (r) }, else_branch = e () => "
            "(float[2] q) { q = Abs (x) }> y = Exp (z)",
            after="r = Neg(x) p = Relu(r) y = Exp(p)"),
    Rewrite("a Constant node", "(float[2] x) => (float[2] y)",
            "c = Constant<value = bool {1}>() z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, "
            "else_branch = e () => (float[2] q) { q = Abs (x) }> y = Exp (z)",
            after="p = Neg(x) y = Exp(p)"),
]

NO_OPS = [
    NoOp("on an input", "(float[2] x, bool c) => (float[2] y)",
         "z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { q = "
         "Abs (x) }> y = Exp (z)"),
    NoOp("on what is computed", "(float[2] x, bool d) => (float[2] y)",
         "c = Not(d) z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => "
         "(float[2] q) { q = Abs (x) }> y = Exp (z)"),
    NoOp("a Loop", "(float[2] x, int64 n, bool c) => (float[2] y)",
         "y = Loop (n, c, x) <body = b (int64 i, bool k, float[2] s) => (bool l, float[2] o) { l = Identity(k) o = "
         "Neg(s) }>"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, inline_if.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, inline_if.RULES)
