"""Siblings: kernels that read one value in the same way, and may so be one kernel with the channels of all.

Conv without groups, MatMul and Gemm with constant weights and biases are siblings if all else is equal: operator,
window, strides, padding, factors, type. Behind them go on, together, operators that act on each number alone (``tail``)
and, behind MatMul, the Add of a bias, as long as every sibling has the same one there and nobody else reads between.

Groups of siblings that read the same weights (an unrolled loop, a filter bank over several octaves) are one
``WidthGroup``: their wide weight is stored once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from optimizer.graph import queries
from optimizer.graph.constants import FLOATS
from optimizer.graph.linear_nodes import LinearNode, as_linear
from optimizer.graph.operators import attributes_key
from optimizer.graph.queries import only_consumer
from optimizer.graph.weight_sources import ConstantOrigin, origin_of, readers

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.contract.node_filter import NodeFilter
    from optimizer.contract.skipped import SkippedNodes

ELEMENTWISE = frozenset(
    {
        *("Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg"),
        *("Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
    }
)
_OPS = ("Conv", "Gemm", "MatMul")
_SAID_ELSEWHERE = frozenset({"kernel_shape"})  # by the weight
_DEFAULTS = {"auto_pad": "NOTSET", "group": 1, "alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


@dataclass(frozen=True)
class Sibling:
    """One kernel of a group.

    Attributes:
        item: The kernel.
        weight: Where its weight comes from.
        bias: Where its bias comes from, ``None`` if it has none.
        tail: The nodes behind it that go on alike behind all siblings.
        added: What the Adds of ``tail`` add, in order.
        place: The position of the kernel in its graph.
    """

    item: LinearNode
    weight: ConstantOrigin
    bias: ConstantOrigin | None = None
    tail: tuple[ir.Node, ...] = ()
    added: tuple[ConstantOrigin, ...] = ()
    place: int = 0

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All nodes of it in order."""
        return (self.item.node, *self.tail)

    @property
    def output(self) -> ir.Value:
        """What its last node makes."""
        return self.nodes[-1].outputs[0]

    @property
    def constants(self) -> tuple[ConstantOrigin, ...]:
        """Everything constant that it has for itself."""
        return (self.weight, *(() if self.bias is None else (self.bias,)), *self.added)


Group: TypeAlias = "tuple[Sibling, ...]"
Family: TypeAlias = "list[Group]"


def families(graph: ir.Graph, choice: NodeFilter, left: SkippedNodes) -> list[Family]:
    """All groups of at least two siblings in ``graph`` itself, those with the same constants together."""
    by_reader: dict[Hashable, list[Sibling]] = defaultdict(list)
    seen: dict[ir.Value, int] = {}
    read_with: dict[ir.Value, frozenset[ir.Value | None]] = {}
    for place, node in enumerate(graph):
        if queries.is_standard(node, *_OPS) and (found := _sibling(node, choice, left)) is not None:
            seen.setdefault(found.weight.root, len(seen))
            key = node.inputs[0], _key(found), _read_with(found.weight.root, read_with)
            by_reader[key].append(replace(found, place=place))
    by_constants: dict[Hashable, Family] = defaultdict(list)
    for one in by_reader.values():
        distinct = {sibling.weight.root: sibling for sibling in reversed(one)}  # equal ones are no business of ours
        if len(distinct) > 1:
            ordered = sorted(distinct.values(), key=lambda sibling: seen[sibling.weight.root])
            group = with_tails(ordered)
            by_constants[family_key(group)].append(group)
    return list(by_constants.values())


def _read_with(root: ir.Value, known: dict[ir.Value, frozenset[ir.Value | None]]) -> frozenset[ir.Value | None]:
    """What the nodes that read the constant ``root`` read before it: those with equal sets can be shared together."""
    if root not in known:
        known[root] = frozenset(node.inputs[0] for node, _ in readers(root))
    return known[root]


def family_key(group: Group) -> Hashable:
    """Equal for groups that can read the same wide constants; strides and what follows may differ."""
    first = group[0].item
    constants = tuple(tuple(part.root for part in sibling.constants) for sibling in group)
    return first.node.op_type, first.output_axis, constants, tuple(sibling.bias is None for sibling in group)


def parts(family: Family) -> Iterator[Family]:
    """``family``, and then those with a bias and those without one for themselves, where it has both."""
    yield family
    for has_bias in (True, False):
        chosen = [tuple(one for one in group if (one.bias is not None) is has_bias) for group in family]
        if 1 < len(chosen[0]) < len(family[0]):
            bare = [tuple(replace(one, tail=(), added=()) for one in group) for group in chosen]
            longer = [with_tails(group) for group in bare]
            yield longer if len(set(map(family_key, longer))) == 1 else bare


def _sibling(node: ir.Node, choice: NodeFilter, left: SkippedNodes) -> Sibling | None:
    item = as_linear(node)
    if item is None or item.node.inputs[0] is None or attributes_key(node) is None:
        return None
    if not choice.matches(node):
        left.note(node, "is left out by include= or exclude=")
        return None
    if item.groups > 1:
        left.note(node, "has groups of channels")
        return None
    weight, bias = _constant(item.weight), _constant(item.bias)
    if weight is None or (item.bias is not None and bias is None):
        return None
    if bias is not None and bias_of(item, bias) is None:
        left.note(node, "has a bias that is not one number for each channel")
        return None
    return Sibling(item, weight, bias)


def _constant(value: ir.Value | None) -> ConstantOrigin | None:
    """The float constant behind ``value``, through nothing but Identity nodes: what is packed stays packed."""
    found = origin_of(value)
    if found is None or any(node.op_type != "Identity" for node in found.path):
        return None
    return found if found.tensor.dtype in FLOATS else None


def bias_of(item: LinearNode, bias: ConstantOrigin) -> NDArray[np.floating] | None:
    """The bias of ``item``, one number for each output channel, in its own type; ``None`` if it is more than that."""
    array: NDArray[np.floating] = bias.tensor.numpy()
    wide = item.node.op_type == "Gemm" and array.ndim <= 2 and array.size in {1, item.outputs}
    if wide and array.shape[-1:] in {(), (1,), (item.outputs,)}:
        return np.broadcast_to(array.reshape(-1), (item.outputs,))
    return array if array.shape == (item.outputs,) else None


def _key(sibling: Sibling) -> Hashable:
    """What siblings of one reader have in common."""
    item = sibling.item
    window = item.shape[2:]
    said = {
        name: value
        for name, value in attributes_key(item.node) or ()
        if name not in _SAID_ELSEWHERE and not _is_default(item.node.attributes[name], len(window))
    }
    return item.node.op_type, window, tuple(said.items()), int(sibling.weight.tensor.dtype)


def _is_default(attribute: ir.Attr, window: int) -> bool:
    defaults = {**_DEFAULTS, "strides": (1,) * window, "dilations": (1,) * window, "pads": (0,) * 2 * window}
    value = tuple(attribute.value) if isinstance(attribute.value, (list, tuple)) else attribute.value
    return attribute.name in defaults and value == defaults[attribute.name]


def with_tails(group: Sequence[Sibling]) -> Group:
    """``group`` with all the nodes behind it that go on alike."""
    grown = tuple(group)
    while (longer := _longer(grown)) is not None:
        grown = longer
    return grown


def _longer(group: Group) -> Group | None:
    """``group`` with one more node behind each, ``None`` if those are not alike."""
    readers = [only_consumer(sibling.output) for sibling in group]
    nodes = [node for node in readers if node is not None and node.graph is group[0].item.node.graph]
    if len(set(nodes)) < len(group):
        return None
    pairs = list(zip(group, nodes, strict=True))
    if all(_is_elementwise(one, node) for one, node in pairs) and len(set(map(_tail_key, nodes))) == 1:
        return tuple(replace(one, tail=(*one.tail, node)) for one, node in pairs)
    added = [(one, node, _added(one, node)) for one, node in pairs]
    found = [replace(one, tail=(*one.tail, node), added=(*one.added, new)) for one, node, new in added if new]
    return tuple(found) if len(found) == len(group) else None


def _is_elementwise(one: Sibling, node: ir.Node) -> bool:
    return queries.is_standard(node, *ELEMENTWISE) and node.inputs[0] is one.output and len(node.outputs) == 1


def _tail_key(node: ir.Node) -> Hashable:
    """Equal for nodes that do the same to their first input; the node itself if that cannot be said."""
    if queries.is_standard(node, "Add"):
        return "Add"
    key = attributes_key(node)
    return node if key is None else (node.domain, node.op_type, key, node.inputs[1:])


def _added(one: Sibling, node: ir.Node) -> ConstantOrigin | None:
    """What the Add ``node`` adds to the output of the MatMul ``one``, if it is one number for each channel."""
    others = [value for value in node.inputs if value is not one.output]
    if one.item.node.op_type != "MatMul" or not queries.is_standard(node, "Add") or len(others) != 1:
        return None
    found = _constant(others[0])
    return found if found is not None and tuple(found.tensor.shape.numpy()) == (one.item.outputs,) else None
