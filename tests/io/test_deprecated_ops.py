"""Operators that onnx calls deprecated: those that are still defined are taken, those that were removed are not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from optimizer import optimize
from optimizer.errors import ModelError
from optimizer.io.model import check_structure, load, to_proto
from optimizer.io.protos.proto_diff import difference

NORMALIZED = """
<ir_version: 8, opset_import: ["" : {version}]>
g (float[1, 4, 3] x) => (float[1, 4, 3] y)
<float[2] scale = {{1, 2}}, float[2] bias = {{0, 1}}>
{{ {nodes} }}
"""
PLAIN = "z = Identity(x)  y = GroupNormalization<num_groups = 2>(z, scale, bias)"
IN_BRANCH = """
flag = Constant<value = bool {1}>()
y = If (flag) <
    then_branch = yes () => (float[1, 4, 3] a) { a = GroupNormalization<num_groups = 2>(x, scale, bias) },
    else_branch = no () => (float[1, 4, 3] b) { b = Identity(x) }
>
"""
IN_FUNCTION = """
<ir_version: 8, opset_import: ["" : 18, "local" : 1]>
g (float[1, 4, 3] x) => (float[1, 4, 3] y)
<float[2] scale = {1, 2}, float[2] bias = {0, 1}>
{ y = local.norm(x, scale, bias) }
<domain: "local", opset_import: ["" : 18]>
norm (a, s, b) => (c) { c = GroupNormalization<num_groups = 2>(a, s, b) }
"""


def normalized(nodes: str = PLAIN, version: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(NORMALIZED.format(version=version, nodes=nodes))


@pytest.mark.parametrize("version", [18, 20])
@pytest.mark.parametrize("nodes", [PLAIN, IN_BRANCH])
def test_defined_operator_is_loaded_and_comes_back_as_it_was(nodes, version):
    proto = normalized(nodes, version)
    assert difference(proto, to_proto(load(proto))) is None


def test_defined_operator_within_a_function():
    proto = onnx.parser.parse_model(IN_FUNCTION)
    assert difference(proto, to_proto(load(proto))) is None


def test_order_is_mended_too():
    proto = normalized()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    check_structure(proto)


def test_model_is_optimized_and_compared():
    feed = {"x": np.arange(12, dtype=np.float32).reshape(1, 4, 3) ** 2}
    result = optimize(normalized(), data=[feed] * 3, timing=False)
    assert {"drop-identities": 1} in [stage.changes for stage in result.report.stages]
    assert [node.op_type for node in result.model.graph.node] == ["GroupNormalization"]
    assert result.report.verdict == "improved"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("y = GroupNormalization<num_groups = 2>(x, scale)", "has 2 inputs, 3 to 3 are allowed"),
        ("y, t = GroupNormalization<num_groups = 2>(x, scale, bias)", "has 2 outputs, 1 to 1 are allowed"),
        ("y = GroupNormalization(x, scale, bias)", "'num_groups' is missing"),
        ("y = GroupNormalization<num_groups = 2, stash_type = 1>(x, scale, bias)", "attribute 'stash_type'"),
        ("y = Upsample(x, scale)", "operator Upsample was removed in version 18"),
        ("y = Scatter(x, scale, bias)", "operator Scatter was removed in version 18"),
        ("h = GroupNormalization<num_groups = 2>(x, scale, bias)  y = Upsample(h, scale)", "Upsample was removed"),
    ],
)
def test_what_is_wrong_is_refused(node, expected):
    with pytest.raises(ModelError, match=expected):
        load(normalized(node))
