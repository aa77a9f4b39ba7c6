"""Put one wide kernel and a Split in the place of sibling kernels, where the file does not grow by it.

::

    x -> kernel W_1 -> tail -> y_1                                             -> y_1
    x -> kernel W_2 -> tail -> y_2      becomes    x -> kernel [W_1 W_2] -> tail -> Split -> y_2

Weights are joined along their output channels, biases too, with zeros for those that are missing. Every output channel
is computed from the same numbers as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.horizontal_fusion.siblings import bias_of
from optimizer.algorithms.horizontal_fusion.split import give_input, split
from optimizer.algorithms.rewriting import replacement
from optimizer.graph import editing, file_size, tensors
from optimizer.graph.constants import constant_bytes
from optimizer.graph.editing import copy_of_node, replace_under_its_name
from optimizer.graph.weight_sources import discard, is_given_out, readers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from optimizer.algorithms.horizontal_fusion.siblings import Family, Group, Sibling
    from optimizer.algorithms.rewriting.rewriter import Rewriter


@dataclass(frozen=True)
class Widening:
    """A family that can be widened: all that would be new, made but in no graph yet.

    Attributes:
        family: What it takes the place of.
        nodes: The new nodes of each group; the last one is the Split.
        wanted: The constants that they read by stand-ins: their data, and the initializers that they take over.
        grows: By how many bytes the file grows; negative if it shrinks.
    """

    family: Family
    nodes: list[list[ir.Node]]
    wanted: dict[ir.Value, replacement.ReplacementConstant]
    grows: int

    def abandon(self) -> None:
        """Leave everything as it is."""
        for node in (node for made in self.nodes for node in made):
            editing.set_inputs(node, [None] * len(node.inputs))

    def put(self, rewriter: Rewriter) -> None:
        """Put the new nodes in the place of the old ones, which go with all that was there for them alone."""
        for group, made in zip(self.family, self.nodes, strict=True):
            anchor = min(group, key=lambda sibling: sibling.place).item.node
            for node in made:
                anchor.prepend(node)
        first = self.nodes[0][0]
        editing.replace_values({stand_in: swap.put(first, rewriter) for stand_in, swap in self.wanted.items()})
        for group, made in zip(self.family, self.nodes, strict=True):
            for sibling, output in zip(group, made[-1].outputs, strict=True):
                replace_under_its_name(output, sibling.output)
        discard(_old_nodes(self.family))


def plan(family: Family, rewriter: Rewriter) -> Widening:
    """What widening ``family`` would make and cost."""
    constants = _dying(family)
    spares = [value for value in constants if value.is_initializer()]
    wanted: dict[ir.Value, replacement.ReplacementConstant] = {}
    reads = []
    for number, (array, hint) in enumerate(_joined(family[0])):
        swap = replacement.ReplacementConstant(array, hint, spares[number] if number < len(spares) else None)
        reads.append(_want(wanted, swap))
    nodes = [_made(group, reads, rewriter) for group in family]
    _give_sizes(family, nodes, wanted, rewriter)
    grows = sum(file_size.node_bytes(node) for made in nodes for node in made)
    grows += sum(_constant_bytes(swap, stand_in, family[0][0].item.node, rewriter) for stand_in, swap in wanted.items())
    grows -= sum(map(file_size.node_bytes, {*_old_nodes(family), *_dying_paths(family, constants)}))
    grows -= sum(map(constant_bytes, constants))
    return Widening(family, nodes, wanted, grows)


def _old_nodes(family: Family) -> Iterator[ir.Node]:
    return (node for group in family for sibling in group for node in sibling.nodes)


def _dying(family: Family) -> list[ir.Value]:
    """The constants that nobody else reads, through Identity nodes or not; the shortest names first."""
    gone = set(_old_nodes(family))
    roots = {part.root: None for sibling in family[0] for part in sibling.constants}
    dying = [root for root in roots if not is_given_out(root) and all(node in gone for node, _ in readers(root))]
    return sorted(dying, key=lambda value: len(value.name or ""))


def _dying_paths(family: Family, constants: list[ir.Value]) -> Iterator[ir.Node]:
    """The Identity nodes between ``constants`` that nobody else reads and ``family``."""
    for sibling in (sibling for group in family for sibling in group):
        for part in sibling.constants:
            if part.root in constants:
                yield from part.path


def _joined(group: Group) -> list[tuple[NDArray[np.floating], str]]:
    """The wide weight, the wide bias if any sibling has one, and what Adds add, with names for them."""
    first = group[0].item
    found = [(np.concatenate([one.weight.tensor.numpy() for one in group], first.output_axis), "wide_weight")]
    if any(one.bias is not None for one in group):
        found.append((np.concatenate([_bias(one) for one in group]), "wide_bias"))
    added = zip(*(one.added for one in group), strict=True)
    return [*found, *((np.concatenate([part.tensor.numpy() for part in each]), "wide_bias") for each in added)]


def _bias(one: Sibling) -> NDArray[np.floating]:
    array = None if one.bias is None else bias_of(one.item, one.bias)
    return np.zeros(one.item.outputs, one.weight.tensor.dtype.numpy()) if array is None else array


def _want(wanted: dict[ir.Value, replacement.ReplacementConstant], swap: replacement.ReplacementConstant) -> ir.Value:
    """A stand-in for the constant that ``swap`` will put, with a name at least as long."""
    stand_in = ir.Value(name=f"{swap.hint}_999" if swap.reusable is None else swap.reusable.name)
    wanted[stand_in] = swap
    return stand_in


def _made(group: Group, reads: list[ir.Value], rewriter: Rewriter) -> list[ir.Node]:
    """The wide kernel, its tail, and a Split."""
    first = min(group, key=lambda sibling: sibling.place)
    old, waiting = first.item.node, list(reads)
    inputs = [old.inputs[0], waiting.pop(0)]
    if any(one.bias is not None for one in group):
        inputs.append(waiting.pop(0))
    made = [copy_of_node(old, inputs, rewriter.unique_name("wide"))]
    for node in first.tail:
        added = waiting.pop(0) if node.op_type == "Add" else None
        rest = node.inputs[1:] if added is None else [added]
        made.append(copy_of_node(node, [made[-1].outputs[0], *rest], rewriter.unique_name("wide")))
    axis = first.item.axis % first.item.rank if first.item.rank else first.item.axis
    cut, _ = split(made[-1].outputs[0], _sizes(group), axis, rewriter.opset(old))
    for output, sibling in zip(cut.outputs, group, strict=True):
        output.name = sibling.output.name
    return [*made, cut]


def _sizes(group: Group) -> list[int]:
    return [sibling.item.outputs for sibling in group]


def _give_sizes(
    family: Family,
    nodes: list[list[ir.Node]],
    wanted: dict[ir.Value, replacement.ReplacementConstant],
    rewriter: Rewriter,
) -> None:
    """Let the Splits read their sizes where they have to."""
    sizes = _sizes(family[0])
    if not split(ir.Value(), sizes, 1, rewriter.opset(family[0][0].item.node))[1]:
        return
    stand_in = _want(wanted, replacement.ReplacementConstant(np.array(sizes, np.int64), "sizes"))
    for made in nodes:
        give_input(made[-1], stand_in)


def _constant_bytes(
    swap: replacement.ReplacementConstant, stand_in: ir.Value, node: ir.Node, rewriter: Rewriter
) -> int:
    name = stand_in.name or ""
    tensor = ir.tensor(swap.array) if swap.reusable is not None else tensors.compact(swap.array, name)
    if swap.reusable is None and not rewriter.may_lift(node):
        return file_size.constant_node_bytes(tensor, name)
    return file_size.tensor_bytes(tensor, name)
