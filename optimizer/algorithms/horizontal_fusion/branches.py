"""Branches: the same nodes with the same weights on different inputs, side by side.

A branch starts at a kernel whose weight other kernels read too, on inputs of the same shape but for the length of the
batch. None of them may need what another one gives (an unrolled loop does): of the kernels of one weight those stand
side by side that have equally many of the others before them::

    level(node) = max over what it reads of level, + 1 if it is one of them

From the inputs on, ``grow`` follows what all branches do alike, as long as it acts on each element of the batch alone
(``optimizer.algorithms.horizontal_fusion.batch_operators``). Whatever it finds reads only the inputs, what is in the
branches, and what is the same for all, so no branch comes to need another one by being batched with it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.algorithms.horizontal_fusion.batch_operators import acts_alone
from optimizer.graph import linear_nodes, queries, traversal
from optimizer.graph.operators import attributes_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import onnx_ir as ir


@dataclass
class Branches:
    """Parallel branches.

    Attributes:
        graph: The graph that they are in.
        inputs: What each branch reads, in order.
        steps: Equal nodes, one of each branch, in topological order.
        bundles: The values of a step's outputs by branch, and the inputs, each by the value of the first branch.
        places: The number of the branch that a value of a bundle belongs to, and the value of the first branch.
    """

    graph: ir.Graph | None
    inputs: tuple[ir.Value, ...]
    steps: list[tuple[ir.Node, ...]] = field(default_factory=list)
    bundles: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)
    places: dict[ir.Value, tuple[int, ir.Value]] = field(default_factory=dict)

    def add(self, values: tuple[ir.Value, ...]) -> None:
        """Add a bundle."""
        self.bundles[values[0]] = values
        self.places.update({value: (number, values[0]) for number, value in enumerate(values)})

    def nodes(self) -> Iterator[ir.Node]:
        """All nodes of all branches."""
        for step in self.steps:
            yield from step

    def leaving(self) -> list[tuple[ir.Value, ...]]:
        """The bundles that somebody reads who is in no branch, but for the inputs."""
        inside = set(self.nodes())
        computed = (bundle for bundle in self.bundles.values() if bundle is not self.inputs)
        return [bundle for bundle in computed if any(_is_needed(value, inside) for value in bundle)]


def _is_needed(value: ir.Value, inside: set[ir.Node]) -> bool:
    return value.is_graph_output() or any(use.node not in inside for use in value.uses())


def seeds(graph: ir.Graph) -> list[list[ir.Node]]:
    """The kernels of ``graph`` itself that share a weight and all else but their inputs, in groups of at least two."""
    by_key: dict[Hashable, list[ir.Node]] = defaultdict(list)
    for node in traversal.in_order(graph):
        key = attributes_key(node) if queries.is_standard(node, *linear_nodes.OPS) and len(node.inputs) > 1 else None
        if key is not None and _dims(node.inputs[0]):
            by_key[node.op_type, key, node.inputs[1:], _dims(node.inputs[0])].append(node)
    return [nodes for nodes in by_key.values() if len(nodes) > 1]


def _dims(value: ir.Value | None) -> Hashable:
    """Type and shape of ``value`` but for the batch's length; ``None`` if it is not known by numbers and names."""
    if value is None or value.shape is None or len(value.shape) < 2 or value.dtype is None:
        return None
    sizes = [size if isinstance(size, int) else size.value for size in list(value.shape)[1:]]
    return None if None in sizes or 0 in sizes else (int(value.dtype), tuple(sizes))


def side_by_side(nodes: Sequence[ir.Node], graph: ir.Graph) -> list[list[ir.Node]]:
    """Those of ``nodes`` that do not need each other, in groups of at least two that read different values."""
    members = set(nodes)
    levels: dict[ir.Node, int] = {}
    groups: dict[int, dict[ir.Value | None, ir.Node]] = defaultdict(dict)
    for node in traversal.in_order(graph):
        reads = [*node.inputs, *(traversal.captured(node) if node.attributes.data else ())]
        before = (value.producer() for value in reads if value is not None)
        level = max((levels.get(producer, 0) for producer in before if producer is not None), default=0)
        levels[node] = level + (node in members)
        if node in members:
            groups[level].setdefault(node.inputs[0], node)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def grow(kernels: Sequence[ir.Node], opset: int) -> Branches:
    """The branches that begin with ``kernels``, which stand side by side."""
    inputs = tuple(node.inputs[0] for node in kernels if node.inputs[0] is not None)
    branches = Branches(kernels[0].graph, inputs)
    branches.add(inputs)
    waiting = [inputs]
    visited: set[ir.Node] = set()
    while waiting:
        bundle = waiting.pop(0)
        for use in bundle[0].uses():
            step = None if use.node in visited else _step(use.node, use.idx, branches, opset)
            if step is None or not visited.isdisjoint(step):
                continue
            visited.update(step)
            branches.steps.append(step)
            outputs = tuple(node.outputs[0] for node in step)
            branches.add(outputs)
            waiting.append(outputs)
    return branches


def _step(first: ir.Node, position: int, branches: Branches, opset: int) -> tuple[ir.Node, ...] | None:
    """The nodes of all branches that do what ``first`` does in the first one; ``None`` if there are none."""
    read, key = first.inputs[position], attributes_key(first)
    moving = [number for number, value in enumerate(first.inputs) if value in branches.places]
    is_first = all(value not in branches.places or value in branches.bundles for value in first.inputs if value)
    if read is None or key is None or not is_first or first.graph is not branches.graph:
        return None
    if not acts_alone(first, moving, opset):
        return None
    nodes = [first]
    for number, value in enumerate(branches.bundles[read][1:], start=1):
        wanted = [branches.bundles[v][number] if v is not None and v in branches.bundles else v for v in first.inputs]
        partner = next((use.node for use in value.uses() if _is_like(use.node, first, key, wanted)), None)
        if partner is None or partner in nodes:
            return None
        nodes.append(partner)
    return tuple(nodes)


def _is_like(node: ir.Node, first: ir.Node, key: Hashable, inputs: Sequence[ir.Value | None]) -> bool:
    """Whether ``node`` does to ``inputs`` what ``first`` does to its own."""
    is_same = node.op_identifier() == first.op_identifier() and node.graph is first.graph and len(node.outputs) == 1
    return is_same and list(node.inputs) == inputs and attributes_key(node) == key
