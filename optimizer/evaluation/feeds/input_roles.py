"""What a graph tells about the values that an input may take.

Users of the input are followed through operators that only move or retype elements, into subgraphs too. Each consumer
that is reached says something: an index into a table of so many rows, a comparison with a constant, a shape, an axis.
The narrowest bound of all consumers holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import queries, traversal
from optimizer.graph.constants import constant_array, constant_tensor
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

ShapeOf = Callable[["ir.Value"], "ir.Shape | None"]

# Besides what moves elements: what retypes them, bounds them, or passes on those that it does not replace.
_MOVING = having(Trait.MOVING) | {
    *("Cast", "CastLike", "Clip", "Max", "Min", "Where", "Pad"),
    *("SequenceConstruct", "Optional"),
}
_MOVED_INDEX = {"Where": (1, 2), "Concat": None, "Max": None, "Min": None, "SequenceConstruct": None}  # else input 0
_COMPARING = frozenset({"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"})
_INDEX_OPS = {"Gather": 1, "GatherElements": 1, "ScatterElements": 1, "Scatter": 1}
_MOST_VALUES = 200  # values that are visited from one input
_MOST_CONSTANT_ELEMENTS = 64


@dataclass(frozen=True)
class Consumer:
    """A node that reads elements of an input unchanged, and as which of its own inputs."""

    node: ir.Node
    index: int

    @property
    def operand(self) -> tuple[str, int]:
        """Operator type and input number."""
        return self.node.op_type, self.index


def declared_shape(value: ir.Value) -> ir.Shape | None:
    """The shape that the model declares for ``value``."""
    return value.shape


@dataclass(frozen=True)
class Clues:
    """What the graph says about an input.

    Attributes:
        consumers: Nodes that it reaches, nearest first.
        id_limit: Indices stay below this; ``None`` if nothing bounds them.
        compared: Constants that it is compared with.
        equal: Those among them that it is tested for equality with.
        shape_of: The declared or inferred shape of any value of the graph.
    """

    consumers: tuple[Consumer, ...] = ()
    id_limit: int | None = None
    compared: tuple[float, ...] = ()
    equal: tuple[float, ...] = ()
    shape_of: ShapeOf = declared_shape


def clues(value: ir.Value, shape_of: ShapeOf = declared_shape) -> Clues:
    """Follow the users of ``value``.

    Args:
        value: An input of the graph.
        shape_of: Shapes of values, for the rows of tables that are computed.
    """
    consumers = tuple(_consumers(value))
    bounds = [rows for consumer in consumers if (rows := _rows(consumer, shape_of)) is not None]
    compared, equal = [], []
    for consumer in consumers:
        if consumer.node.op_type in _COMPARING and len(consumer.node.inputs) == 2:
            constants = _constants(consumer.node.inputs[1 - consumer.index])
            compared += constants
            equal += constants if consumer.node.op_type == "Equal" else []
    return Clues(
        consumers, min(bounds, default=None), tuple(dict.fromkeys(compared)), tuple(dict.fromkeys(equal)), shape_of
    )


def _consumers(start: ir.Value) -> Iterator[Consumer]:
    queue, seen = [start], {id(start)}
    for value in queue:
        for use in value.uses():
            yield Consumer(use.node, use.idx)
            for following in _moved_to(use.node, use.idx):
                if id(following) not in seen and len(seen) < _MOST_VALUES:
                    seen.add(id(following))
                    queue.append(following)


def _moved_to(node: ir.Node, index: int) -> list[ir.Value]:
    """Values that hold elements of input ``index`` of ``node``."""
    if node.op_type in {"Loop", "Scan", "If"}:
        return _body_inputs(node, index)
    if not queries.is_standard(node) or node.op_type not in _MOVING:
        return []
    moved = _MOVED_INDEX.get(node.op_type, (0,))
    return list(node.outputs) if moved is None or index in moved else []


def _body_inputs(node: ir.Node, index: int) -> list[ir.Value]:
    if node.op_type == "If":
        return []
    body = next(traversal.subgraphs_of(node), None)
    return [body.inputs[index]] if body is not None and index < len(body.inputs) else []


def _rows(consumer: Consumer, shape_of: ShapeOf) -> int | None:
    """The size of the table that ``consumer`` takes the input as an index into; ``None`` if it does not."""
    node, index = consumer.node, consumer.index
    if _INDEX_OPS.get(node.op_type) == index:
        return _dim(node.inputs[0], node.attributes.get_int("axis", 0), shape_of)
    match consumer.operand:
        case (("GatherND" | "ScatterND"), 1):
            depth = _dim(node.inputs[1], -1, shape_of) or 1
            sizes = [_dim(node.inputs[0], axis, shape_of) for axis in range(depth)]
            return min((size for size in sizes if size is not None), default=None)
        case "OneHot", 0:
            classes = _constants(node.inputs[1])
            return int(classes[0]) if classes else None
        case "EmbedLayerNormalization", 0:
            return _dim(node.inputs[2], 0, shape_of)
        case "EmbedLayerNormalization", 1:
            return _dim(node.inputs[4], 0, shape_of)
    return None


def _dim(value: ir.Value | None, axis: int, shape_of: ShapeOf) -> int | None:
    if value is None:
        return None
    tensor = constant_tensor(value)
    shape = tensor.shape if tensor is not None else shape_of(value)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _constants(value: ir.Value | None) -> list[float]:
    """The numbers of a small constant, seen through operators that only move or retype elements."""
    for _ in range(8):
        array = constant_array(value, _MOST_CONSTANT_ELEMENTS)
        if array is not None:
            return [float(element) for element in array.ravel()] if np.issubdtype(array.dtype, np.number) else []
        producer = None if value is None else value.producer()
        if producer is None or producer.op_type not in _MOVING or not producer.inputs:
            return []
        value = producer.inputs[0]
    return []
