"""merge-slices: Slice of a Slice of other axes."""

from __future__ import annotations

import pytest

from passes.rules import merge_slices
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("two axes",
            "(float[6,8] x) => (float[2,7] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, int64[1] o = "
            "{1}, int64[1] f = {9}>",
            "the_first_slice_of_x = Slice(x, s, e, z) y = Slice(the_first_slice_of_x, s, f, o)",
            after="<int64[2] s_1 = {1, 1}, int64[2] s_2 = {3, 9}, int64[2] s_3 = {0, 1}> y = Slice(x, s_1, s_2, s_3)"),
    Rewrite("steps",
            "(float[6,8] x) => (float[2,4] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, int64[1] o = "
            "{1}, int64[1] f = {9}, int64[1] t = {2}>",
            "the_first_slice_of_the_input_x = Slice(x, s, e, z) y = Slice(the_first_slice_of_the_input_x, z, f, o, t)",
            after="<int64[2] s_1 = {1, 0}, int64[2] s_2 = {3, 9}, int64[2] s_3 = {0, 1}, int64[2] s_4 = {1, 2}> y "
                  "= Slice(x, s_1, s_2, s_3, s_4)"),
]

NO_OPS = [
    NoOp("the same axis",
         "(float[6,8] x) => (float[1,8] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, int64[1] o = "
         "{1}, int64[1] f = {9}>", "a = Slice(x, s, e, z) y = Slice(a, s, e, z)"),
    NoOp("the same axis from the end",
         "(float[6,8] x) => (float[1,8] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, int64[1] o = "
         "{1}, int64[1] f = {9}, int64[1] m = {-2}>", "a = Slice(x, s, e, z) y = Slice(a, s, e, m)"),
    NoOp("read by two",
         "(float[6,8] x) => (float[2,7] y, float[2,8] w) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
         "int64[1] o = {1}, int64[1] f = {9}>", "a = Slice(x, s, e, z) y = Slice(a, s, f, o) w = Neg(a)"),
    NoOp("the first is an output",
         "(float[6,8] x) => (float[2,7] y, float[2,8] a) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
         "int64[1] o = {1}, int64[1] f = {9}>", "a = Slice(x, s, e, z) y = Slice(a, s, f, o)"),
    NoOp("the end is an input of the model",
         "(float[6,8] x, int64[1] e) => (float[A,7] y) <int64[1] s = {1}, int64[1] z = {0}, int64[1] o = {1}, "
         "int64[1] f = {9}>", "a = Slice(x, s, e, z) y = Slice(a, s, f, o)"),
    NoOp("an operator between",
         "(float[6,8] x) => (float[2,7] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, int64[1] o = "
         "{1}, int64[1] f = {9}>", "a = Slice(x, s, e, z) b = Neg(a) y = Slice(b, s, f, o)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, merge_slices.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, merge_slices.RULES)
