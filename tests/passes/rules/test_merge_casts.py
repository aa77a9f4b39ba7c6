"""merge-casts: Cast of a Cast, where the first loses nothing."""

from __future__ import annotations

import pytest

from passes.rules import merge_casts
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("float, double, float", "(float[N] x) => (float[N] y)", "a = Cast<to=11>(x) y = Cast<to=1>(a)",
            after="y = Cast<to=1>(x)"),
    Rewrite("bool, int64, float", "(bool[N] x) => (float[N] y)", "a = Cast<to=7>(x) y = Cast<to=1>(a)",
            after="y = Cast<to=1>(x)"),
    Rewrite("half, float, double", "(float16[N] x) => (double[N] y)", "a = Cast<to=1>(x) y = Cast<to=11>(a)",
            after="y = Cast<to=11>(x)"),
    Rewrite("int32, int64, double", "(int32[N] x) => (double[N] y)", "a = Cast<to=7>(x) y = Cast<to=11>(a)",
            after="y = Cast<to=11>(x)"),
]

NO_OPS = [
    NoOp("float, int32, float", "(float[N] x) => (float[N] y)", "a = Cast<to=6>(x) y = Cast<to=1>(a)"),
    NoOp("float, half, float", "(float[N] x) => (float[N] y)", "a = Cast<to=10>(x) y = Cast<to=1>(a)"),
    NoOp("int64, float, int64", "(int64[N] x) => (int64[N] y)", "a = Cast<to=1>(x) y = Cast<to=7>(a)"),
    NoOp("float, double, int32", "(float[N] x) => (int32[N] y)", "a = Cast<to=11>(x) y = Cast<to=6>(a)"),
    NoOp("an operator between", "(int32[N] x) => (int32[N] y)", "a = Cast<to=7>(x) b = Neg(a) y = Cast<to=6>(b)"),
    NoOp("float, bool, float", "(float[N] x) => (float[N] y)", "a = Cast<to=9>(x) y = Cast<to=1>(a)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, merge_casts.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, merge_casts.RULES)
