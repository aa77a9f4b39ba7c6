"""merge-transposes: Transpose of Transpose."""

from __future__ import annotations

import pytest

from passes.rules import merge_transposes
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("as one", "(float[2,3,4] x) => (float[4,2,3] y)",
            "a = Transpose<perm=[2,1,0]>(x) y = Transpose<perm=[0,2,1]>(a)",
            after="y = Transpose<perm=[2, 0, 1]>(x)"),
    Rewrite("the first is read by others too", "(float[2,3,4] x) => (float[4,2,3] y, float[4,3,2] z)",
            "a = Transpose<perm=[2,1,0]>(x) y = Transpose<perm=[0,2,1]>(a) z = Neg(a)",
            after="a = Transpose<perm=[2, 1, 0]>(x) y = Transpose<perm=[2, 0, 1]>(x) z = Neg(a)"),
    Rewrite("three", "(float[2,3,4] x) => (float[2,4,3] y)",
            "a = Transpose<perm=[2,1,0]>(x) b = Transpose<perm=[0,2,1]>(a) y = Transpose<perm=[1,0,2]>(b)",
            after="y = Transpose<perm=[0, 2, 1]>(x)"),
]

NO_OPS = [
    NoOp("of unknown order", "(float[2,3] x) => (float[2,3] y)", "a = Transpose(x) y = Transpose(a)"),
    NoOp("an operator between", "(float[2,3] x) => (float[2,3] y)",
         "a = Transpose<perm=[1,0]>(x) b = Neg(a) y = Transpose<perm=[1,0]>(b)"),
    NoOp("one", "(float[2,3] x) => (float[3,2] y)", "y = Transpose<perm=[1,0]>(x)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, merge_transposes.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, merge_transposes.RULES)
