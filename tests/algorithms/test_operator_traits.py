"""What the table of operators says of a new activation, all that ask it know."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from optimizer.algorithms.channels.dependency.operators import channel_groups
from optimizer.algorithms.horizontal_fusion.batch_operators import acts_alone
from optimizer.algorithms.rewriting.layout.operators import Change, permuted
from optimizer.evaluation.feeds.input_roles import clues
from optimizer.graph.operators import Trait, having

OPSET = onnx.defs.onnx_opset_version()


def node_between(op_type: str, inputs: int = 1) -> tuple[ir.Node, ir.Graph]:
    """A node that reads a Conv as each of its inputs, and what reads it."""
    reads = ", ".join(["a"] * inputs)
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : {OPSET}]>
        g (float[2,3,4,5] x) => (float[2,3,4,5] y) <float[3,3,1,1] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}>
        {{ a = Conv(x, w)  b = {op_type}({reads})  y = Conv(b, w) }}"""
    )
    for node in model.graph:
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3, 4, 5])
    return model.graph.node(1), model.graph


@pytest.mark.parametrize("op_type", sorted(having(Trait.UNARY)))
def test_unary_operators_compute_on_any_axes_channels_and_batches(op_type):
    node, graph = node_between(op_type)
    assert permuted(node, (0, 2, 3, 1), OPSET) == Change((0,))
    assert acts_alone(node, {0}, OPSET)
    groups = channel_groups(graph, OPSET)
    before, behind = groups.axis_of(node.inputs[0]), groups.axis_of(node.outputs[0])
    assert before.channel_ids.tolist() == behind.channel_ids.tolist()


@pytest.mark.parametrize("op_type", sorted(having(Trait.BROADCASTING)))
def test_broadcasting_operators_compute_on_any_axes_channels_and_batches(op_type):
    node, graph = node_between(op_type, 3 if op_type == "Where" else 2)
    every = range(len(node.inputs))
    assert permuted(node, (0, 2, 3, 1), OPSET) == Change(tuple(every))
    assert acts_alone(node, set(every), OPSET)
    assert not acts_alone(node, set(every), 6), "before opset 7 an attribute told where it broadcasts"
    groups = channel_groups(graph, OPSET)
    before, behind = groups.axis_of(node.inputs[0]), groups.axis_of(node.outputs[0])
    assert before.channel_ids.tolist() == behind.channel_ids.tolist()


@pytest.mark.parametrize("op_type", sorted(having(Trait.MOVING)))
def test_what_is_fed_is_followed_through_moving_operators(op_type):
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : {OPSET}]>
        g (int64[N] x, int64[N] i, float[7,3] t) => (float[A,B] y) {{ a = {op_type}(x, i)  y = Gather(t, a) }}"""
    )
    assert clues(model.graph.inputs[0]).id_limit == 7
