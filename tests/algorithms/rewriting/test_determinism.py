"""The order in which a rewrite sees its nodes does not decide which constant it takes over."""

from __future__ import annotations

import itertools

import onnx_ir as ir

from optimizer.algorithms.rewriting import replacement

CHAIN = """
<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y)
<float long_name = {2.0}, float ab = {3.0}, float aa = {4.0}>
{ a = Mul(x, long_name)  b = Mul(a, ab)  y = Mul(b, aa) }
"""


def test_dying_constants_come_in_one_order_shortest_name_first():
    nodes = list(ir.from_onnx_text(CHAIN).graph)
    for order in itertools.permutations(nodes):
        assert [value.name for value in replacement.constants_only_read_by(dict.fromkeys(order))] == [
            "aa",
            "ab",
            "long_name",
        ]
