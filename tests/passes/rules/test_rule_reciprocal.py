"""A product with a reciprocal is a quotient, unless it is quantized as the model runs."""

from __future__ import annotations

import pytest

from passes.rules import fuse_reciprocal
from rewriting import ops, rewritten

HEAD = '<ir_version: 8, opset_import: ["" : 13]> '
CONSTANTS = "<float one = {1}, float[1] ones = {1}, float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}>"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Reciprocal(d) y = Mul(x, a)", ["Div"]),
        ("a = Reciprocal(d) y = Mul(a, x)", ["Div"]),
        ("a = Div(one, d) y = Mul(x, a)", ["Div"]),
        ("a = Div(ones, d) b = Mul(x, a) y = Mul(b, w)", ["Div", "Mul"]),
        ("a = Div(two, d) y = Mul(x, a)", ["Div", "Mul"]),
        ("a = Div(wide, d) b = Mul(x, a) y = Squeeze(b)", ["Div", "Mul", "Squeeze"]),  # of a higher rank
        ("a = Div(one, d) b = Mul(x, a) y = Add(b, a)", ["Div", "Mul", "Add"]),  # somebody else reads it
        ("a = Div(d, one) y = Mul(x, a)", ["Div", "Mul"]),
    ],
)
def test_products(body, left):
    text = f"{HEAD} g (float[3,4] x, float[3,1] d) => (float[3,4] y) {CONSTANTS} {{ {body} }}"
    assert ops(rewritten(text, fuse_reciprocal.RULES)) == left


@pytest.mark.parametrize(
    "between", ["q, s, z = DynamicQuantizeLinear(b)", "c = Mul(b, w) e = Add(c, w) q, s, z = DynamicQuantizeLinear(e)"]
)
def test_what_is_quantized_keeps_its_rounding(between):
    body = f"a = Reciprocal(d) b = Mul(x, a) {between} y = DequantizeLinear(q, s, z)"
    text = f"{HEAD} g (float[3,4] x, float[3,1] d) => (float[3,4] y) {CONSTANTS} {{ {body} }}"
    assert "Div" not in ops(rewritten(text, fuse_reciprocal.RULES))
