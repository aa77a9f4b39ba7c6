"""Constants get other data in place: a new constant is none of those that are about to change."""

from __future__ import annotations

from passes.rules import fuse_affine, transposes
from rewriting import ops, rewritten

HEAD = '<ir_version: 10, opset_import: ["": 20]> '
# ``a`` permuted is what ``b`` is, and ``b`` is permuted in place.
PERMUTED = """g (float[1,2,2] x) => (float[1,2,2] y, float[1,1,2] z)
<float[1,1,2] a = {1, 2}, float[1,2,1] b = {1, 2}> {
  p = Transpose <perm = [0,2,1]> (x)  q = Add (p, a)  r = Mul (q, b)  y = Transpose <perm = [0,2,1]> (r)  z = Exp (a)
}"""
# The shift of the first is what the bias of the second was, and that gets other data.
NORM = "BatchNormalization <epsilon = 0.0>"
SHARED = f"""g (float[1,1,2] x) => (float[1,1,2] y, float[1,1,2] z)
<float[1,1,1] w = {{2}}, float[1] t = {{5}}, float[1] s = {{3}}, float[1] n = {{0}},
float[1] v = {{1}}, float[1] u = {{5}}> {{
  a = Conv (x, w)  y = {NORM} (a, s, t, n, v)  b = Conv (x, w, u)  z = {NORM} (b, s, t, n, v)
}}"""


def test_a_permuted_constant_is_not_one_that_is_permuted_in_place():
    model = rewritten(HEAD + PERMUTED, transposes.RULES)
    assert sorted(ops(model)) == ["Add", "Exp", "Mul"]


def test_a_new_bias_is_not_one_that_gets_other_data():
    model = rewritten(HEAD + SHARED, fuse_affine.RULES)
    assert ops(model) == ["Conv", "Conv"]
