"""Where QDQ pairs go, given the units that are to run in int8.

    kernels      as chosen
    glue         a chosen elementwise operator, or one that moves elements, joins if all its activations come from
                 int8 nodes and an int8 node reads it, through others like it
    tail         where a node's pair goes: behind the Relu or Clip that alone reads it, else behind itself
    pairs        on every activation that an int8 node reads, and on every tail, but for a MatMul or Gemm that may give
                 out float (and does, where no int8 node reads it)
    ties         what moves elements has one scale and zero point before and behind

A value that comes from an int8 node is read in its dequantized form by everyone; one that comes from a float node is
read so by int8 nodes alone, float ones go on reading the exact value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.fusion_table import Role
from optimizer.graph import constants, linear_nodes, queries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx_ir as ir


@dataclass
class Placement:
    """What is decided.

    Attributes:
        nodes: Int8 nodes, in order.
        tails: The value behind which each int8 node's pair goes.
        pairs: Values with a pair, in order, to whether everyone reads the dequantized form.
        groups: Of each value with a pair, the first of those that share its scale.
        biases: Kernel -> the Add behind it that holds its bias (MatMul), where that is to be int32.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    tails: dict[ir.Node, ir.Value] = field(default_factory=dict)
    pairs: dict[ir.Value, bool] = field(default_factory=dict)
    groups: dict[ir.Value, ir.Value] = field(default_factory=dict)
    biases: dict[ir.Node, ir.Node] = field(default_factory=dict)


def place(model: ir.Model, chosen: Collection[str]) -> Placement:
    """Decide for the main graph of ``model``.

    Args:
        model: Not changed.
        chosen: Names of the first outputs of the nodes that are to run in int8.
    """
    kernels = [
        node for node in model.graph if node.outputs[0].name in chosen and fusion_table.role(node) is Role.KERNEL
    ]
    biases = {node: add for node in kernels if (add := _bias_add(node)) is not None}
    placement = Placement(biases=biases)
    members = _with_glue(model, set(kernels), chosen, biases)
    placement.nodes = [node for node in model.graph if node in members]
    placement.tails = {node: tail(node, biases) for node in placement.nodes}
    produced = {value: node for node, value in placement.tails.items()}
    for node in placement.nodes:
        for value in activations(node):
            placement.pairs[value] = value in produced
        if _needs_pair(node, placement.tails[node], members):
            placement.pairs[placement.tails[node]] = True
    placement.groups = _ties(placement)
    return placement


def tail(node: ir.Node, biases: dict[ir.Node, ir.Node]) -> ir.Value:
    """The value behind which the pair of ``node`` goes."""
    value = (biases.get(node) or node).outputs[0]
    while True:
        following = queries.only_consumer(value, same_graph=True)
        if following is None or fusion_table.role(following) is not Role.ABSORBED or following.inputs[0] is not value:
            return value
        if any(constants.constant_tensor(bound) is None for bound in following.inputs[1:] if bound is not None):
            return value
        value = following.outputs[0]


def _with_glue(
    model: ir.Model, kernels: set[ir.Node], chosen: Collection[str], biases: dict[ir.Node, ir.Node]
) -> set[ir.Node]:
    """``kernels`` and the glue that joins them: all that might, less whatever does not hold, until all do."""
    taken = set(biases.values())
    glue = {node for node in model.graph if node not in taken and _may_be_glue(node, chosen)}
    members = kernels | glue
    dropped = True
    while dropped:
        produced = {tail(node, biases) for node in members}
        reading = {value for node in members for value in activations(node)}
        out = {
            node
            for node in glue & members
            if not all(value in produced for value in activations(node)) or tail(node, biases) not in reading
        }
        members -= out
        dropped = bool(out)
    return members


def _may_be_glue(node: ir.Node, chosen: Collection[str]) -> bool:
    role = fusion_table.role(node)
    if role is Role.ELEMENTWISE:
        return node.outputs[0].name in chosen
    if role is not Role.SAME_SCALE or len(node.outputs) != 1:
        return False
    return constants.constant_tensor(node.inputs[0]) is None


def activations(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of ``node`` that need a pair and are no constants."""
    for index in fusion_table.quantized_inputs(node):
        value = node.inputs[index]
        if value is not None and constants.constant_tensor(value) is None:
            yield value


def _needs_pair(node: ir.Node, value: ir.Value, members: set[ir.Node]) -> bool:
    row = fusion_table.row(node)
    if row is None or not row.without_q or row.role is not Role.KERNEL:
        return True
    return any(use.node in members for use in value.uses())


def _bias_add(node: ir.Node) -> ir.Node | None:
    """The Add of a constant vector that alone reads the MatMul ``node``."""
    if node.op_type != "MatMul" or constants.constant_tensor(node.inputs[1]) is None:
        return None
    bias = linear_nodes.bias_input(node)
    tensor = None if bias is None else constants.constant_tensor(bias.value)
    weight = constants.constant_tensor(node.inputs[1])
    if bias is None or tensor is None or weight is None or weight.shape.rank() != 2:
        return None
    columns = weight.shape.numpy()[1]
    return bias.node if tensor.shape.numpy() == (columns,) else None


def _ties(placement: Placement) -> dict[ir.Value, ir.Value]:
    leaders = {value: value for value in placement.pairs}

    def leader(value: ir.Value) -> ir.Value:
        while leaders[value] is not value:
            value = leaders[value]
        return value

    for node in placement.nodes:
        behind = placement.tails[node]
        if fusion_table.role(node) is Role.SAME_SCALE and node.inputs[0] in leaders and behind in leaders:
            leaders[leader(behind)] = leader(node.inputs[0])
    return {value: leader(value) for value in placement.pairs}
