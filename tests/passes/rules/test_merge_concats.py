"""merge-concats: Concat of Concats along one axis."""

from __future__ import annotations

import pytest

from passes.rules import merge_concats
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("first", "(float[N,4] x, float[N,2] z) => (float[N,10] y)",
            "a = Concat<axis=1>(x, z) y = Concat<axis=1>(a, x)",
            after="y = Concat<axis=1>(x, z, x)"),
    Rewrite("last, axis from the end", "(float[N,4] x, float[N,2] z) => (float[N,10] y)",
            "a = Concat<axis=-1>(x, z) y = Concat<axis=1>(x, a)",
            after="y = Concat<axis=1>(x, x, z)"),
    Rewrite("three", "(float[N,4] x) => (float[N,16] y)",
            "a = Concat<axis=1>(x, x) b = Concat<axis=1>(a, x) y = Concat<axis=1>(x, b)",
            after="y = Concat<axis=1>(x, x, x, x)"),
]

NO_OPS = [
    NoOp("another axis", "(float[2,4] x) => (float[4,8] y)",
         "a = Concat<axis=1>(x, x) b = Neg(a) y = Concat<axis=0>(a, b)"),
    NoOp("along another axis, read once", "(float[2,4] x, float[2,8] z) => (float[4,8] y)",
         "a = Concat<axis=1>(x, x) y = Concat<axis=0>(a, z)"),
    NoOp("read by two", "(float[N,4] x) => (float[N,12] y, float[N,8] z)",
         "a = Concat<axis=1>(x, x) y = Concat<axis=1>(a, x) z = Neg(a)"),
    NoOp("read twice", "(float[N,4] x) => (float[N,16] y)", "a = Concat<axis=1>(x, x) y = Concat<axis=1>(a, a)"),
    NoOp("an output", "(float[N,4] x) => (float[N,12] y, float[N,8] a)",
         "a = Concat<axis=1>(x, x) y = Concat<axis=1>(a, x)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, merge_concats.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, merge_concats.RULES)
