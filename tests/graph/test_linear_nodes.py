"""Where the bias of a linear node is: its own input, or that of an Add behind a MatMul."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from optimizer.graph.linear_nodes import bias_input

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def node_of(text: str, name: str = "h") -> ir.Node:
    """The node that makes the value ``name``."""
    graph = ir.from_onnx_text(f"{HEADER} g {text}").graph
    return next(node for node in graph if node.outputs[0].name == name)


@pytest.mark.parametrize(
    ("text", "reader", "position", "value"),
    [
        ("(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] h) { h = Gemm(x, w, b) }", "Gemm", 2, "b"),
        ("(float[2,3] x, float[3,4] w) => (float[2,4] h) { h = Gemm(x, w) }", "Gemm", 2, None),
        ("(float[1,3,5] x, float[4,3,1] w) => (float[1,4,5] h) { h = Conv(x, w) }", "Conv", 2, None),
        ("(float[2,3] x, float[3,4] w, float[4] b) => (y) { h = MatMul(x, w) y = Add(h, b) }", "Add", 1, "b"),
        ("(float[2,3] x, float[3,4] w, float[4] b) => (y) { h = MatMul(x, w) y = Add(b, h) }", "Add", 0, "b"),
    ],
)
def test_the_bias_is_found(text, reader, position, value):
    bias = bias_input(node_of(text.replace("(y)", "(float[2,4] y)")))
    assert (bias.node.op_type, bias.position) == (reader, position)
    assert (None if bias.value is None else bias.value.name) == value


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,3] x, float[3,4] w) => (float[2,4] h) { h = MatMul(x, w) }",
        "(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y) { h = MatMul(x, w) y = Sub(h, b) }",
        "(float[2,3] x, float[3,4] w) => (float[2,4] y) { h = MatMul(x, w) y = Add(h, h) }",
        "(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y, float[2,4] h) { h = MatMul(x, w) y = Add(h, b) }",
        """(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y, float[2,4] z)
           { h = MatMul(x, w) y = Add(h, b) z = Abs(h) }""",
        """(float[2,3] x, float[3,4] w, float[4] b, bool c) => (float[2,4] y)
           { h = MatMul(x, w)
             y = If (c) <then_branch = t () => (float[2,4] s) { s = Add(h, b) },
                         else_branch = e () => (float[2,4] r) { r = Expand(b, b) }> }""",
    ],
    ids=["alone", "Sub", "twice", "output", "two consumers", "in a branch"],
)
def test_a_product_without_an_addition_of_its_own_has_no_bias(text):
    assert bias_input(node_of(text)) is None
