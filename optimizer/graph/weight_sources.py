"""The constant that a weight comes from, through nodes that only rename, retype or reorder it.

Exporters leave weights behind Identity, Cast, Transpose and Reshape nodes. ``source`` follows them back, and computes
what the reader sees without touching the graph. ``readers`` goes the other way: whoever in the end reads a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.graph import editing, queries
from optimizer.graph.constants import constant_ints, constant_tensor

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from numpy.typing import NDArray

_VIEWS = frozenset({"Identity", "Cast", "Transpose", "Reshape"})


@dataclass(frozen=True)
class ConstantOrigin:
    """Where a weight comes from.

    Attributes:
        root: The constant.
        path: The nodes between it and the reader, the first one reads ``root``.
    """

    root: ir.Value
    path: tuple[ir.Node, ...] = ()

    @property
    def tensor(self) -> ir.TensorProtocol:
        """What ``root`` holds."""
        tensor = constant_tensor(self.root)
        if tensor is None:
            raise ValueError(f"{self.root.name} is no constant any more")
        return tensor

    @property
    def dtype(self) -> ir.DataType:
        """The type that the reader sees."""
        casts = [node.attributes.get_int("to", 0) for node in self.path if node.op_type == "Cast"]
        return ir.DataType(casts[-1]) if casts else self.tensor.dtype

    @property
    def is_float_throughout(self) -> bool:
        """Whether it is made of floats: one that is cast from integers is quantized already."""
        return self.tensor.dtype.is_floating_point() and self.dtype.is_floating_point()

    @property
    def key(self) -> Hashable:
        """Equal for readers that see the same numbers in the same shape."""
        return self.root, self.steps

    @property
    def steps(self) -> tuple[Hashable, ...]:
        """What ``path`` does, in terms that hold for every copy of the model."""
        return tuple(_step(node) for node in self.path if node.op_type != "Identity")

    def array(self) -> NDArray[Any]:
        """The weight as the reader sees it; not to be written to."""
        return self.applied_to(self.tensor.numpy())

    def applied_to(self, array: NDArray[Any]) -> NDArray[Any]:
        """What ``path`` makes of ``array``."""
        for node in self.path:
            array = _applied(node, array)
        return array


def origin_of(value: ir.Value | None) -> ConstantOrigin | None:
    """The constant behind ``value``; ``None`` if it is computed from more, or a caller may override it."""
    path: list[ir.Node] = []
    while value is not None and constant_tensor(value) is None:
        node = value.producer()
        if node is None or not _is_view(node):
            return None
        path.append(node)
        value = node.inputs[0]
    return None if value is None else ConstantOrigin(value, tuple(reversed(path)))


def readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Every node that reads the constant ``value``, through views or not, with the position of the input."""
    stack = [value]
    while stack:
        for use in stack.pop().uses():
            if use.idx == 0 and _is_view(use.node):
                stack.append(use.node.outputs[0])
            else:
                yield use.node, use.idx


def is_given_out(value: ir.Value) -> bool:
    """Whether ``value``, or a view of it, is an output of a graph."""
    if value.is_graph_output():
        return True
    return any(is_given_out(use.node.outputs[0]) for use in value.uses() if use.idx == 0 and _is_view(use.node))


def discard(nodes: Iterable[ir.Node]) -> None:
    """Remove those of ``nodes`` that nobody reads, and what only they read: views and constants."""
    gone = list(nodes)
    constants = [value for node in gone for value in _constants_before(node)]
    editing.remove_unused(gone)
    for value in dict.fromkeys(constants):
        owner = value.graph
        if owner is not None and not queries.has_uses(value) and not value.is_graph_input():
            owner.initializers.pop(value.name or "", None)


def _constants_before(node: ir.Node) -> Iterator[ir.Value]:
    """The initializers that ``node`` reads, through views or not."""
    for value in node.inputs:
        if value is None:
            continue
        producer = value.producer()
        if value.is_initializer():
            yield value
        elif producer is not None and _is_view(producer):
            yield from _constants_before(producer)


def _is_view(node: ir.Node) -> bool:
    if not queries.is_standard(node, *_VIEWS) or queries.has_references(node) or not node.inputs:
        return False
    return node.op_type != "Reshape" or _target(node) is not None


def _target(node: ir.Node) -> list[int] | None:
    """The shape that a Reshape asks for, if it is a constant without zeros, which stand for several things."""
    target = constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if target is None or 0 in target else target


def _step(node: ir.Node) -> Hashable:
    match node.op_type:
        case "Cast":
            return "Cast", node.attributes.get_int("to", 0)
        case "Transpose":
            return "Transpose", tuple(node.attributes.get_ints("perm", []) or ())
    return "Reshape", tuple(_target(node) or ())


def _applied(node: ir.Node, array: NDArray[Any]) -> NDArray[Any]:
    match node.op_type:
        case "Cast":
            return array.astype(ir.DataType(node.attributes.get_int("to", 0)).numpy())
        case "Transpose":
            return np.transpose(array, node.attributes.get_ints("perm", []) or None)
        case "Reshape":
            return array.reshape(_target(node) or ())
    return array
