"""Operators on small integer tensors whose elements may be symbols: one function each, over object arrays.

Each takes a reader of its node and gives the arrays of the outputs; what it cannot say raises ``UnknownElementError``
(or whatever numpy raises on an odd node).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import onnx_ir as ir

from optimizer.analysis.symbolic.expressions import (
    Element,
    UnknownElementError,
    choose,
    combine,
    is_known,
    never_negative,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.object_]"
MAX_ELEMENTS = 64
INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32})
KNOWN_TYPES = INTEGERS | {ir.DataType.BOOL}


def array_of(elements: Sequence[Element]) -> Array:
    """A vector of ``elements``; numpy would take tuples apart."""
    array = np.empty(len(elements), dtype=object)
    for index, element in enumerate(elements):
        array[index] = element
    return array


def dims(shape: ir.Shape | None) -> list[Element] | None:
    """The dimensions of ``shape`` as elements; ``None`` if one has neither number nor symbol."""
    if shape is None:
        return None
    sizes = [dim if isinstance(dim, int) else dim.value for dim in shape]
    return None if None in sizes else sizes


class ShapeSource(Protocol):
    """Where the elements of a value are looked up."""

    def of(self, value: ir.Value | None) -> Array | None:
        """The elements of ``value``, if known."""


class ShapeReader:
    """What an evaluator may ask of its node."""

    def __init__(self, node: ir.Node, values: ShapeSource, opset: int) -> None:
        self.node = node
        self.opset = opset
        self._values = values

    def has(self, index: int) -> bool:
        """Whether the node has input ``index``."""
        return len(self.node.inputs) > index and self.node.inputs[index] is not None

    def array(self, index: int) -> Array:
        """The elements of input ``index``; raises ``UnknownElementError`` if they are not tracked."""
        array = self._values.of(self.node.inputs[index])
        if array is None:
            raise UnknownElementError(str(index))
        return array

    def arrays(self) -> list[Array]:
        """The elements of all inputs."""
        return [self.array(index) for index in range(len(self.node.inputs))]

    def ints(self, index: int) -> list[int]:
        """The elements of input ``index`` as numbers; raises ``UnknownElementError`` if one is not a number."""
        elements = list(self.array(index).flat)
        if not all(map(is_known, elements)):
            raise UnknownElementError(str(index))
        return [int(element) for element in elements]

    def axes(self) -> list[int] | None:
        """``axes`` of Squeeze, Unsqueeze and reductions: an attribute, or the second input since opset 13."""
        if self.has(1):
            return self.ints(1)
        axes = self.node.attributes.get_ints("axes")
        return None if axes is None else list(axes)

    def integer(self, name: str, default: int) -> int:
        """The attribute ``name``."""
        return self.node.attributes.get_int(name, default)


Results: TypeAlias = "list[Array]"


def _shape(read: ShapeReader) -> Results:
    source = read.node.inputs[0]
    sizes = dims(source.shape if source is not None else None)
    if sizes is None:
        raise UnknownElementError("Shape")
    return [array_of(sizes[read.integer("start", 0) : read.integer("end", len(sizes))])]


def _size(read: ShapeReader) -> Results:
    source = read.node.inputs[0]
    sizes = dims(source.shape if source is not None else None)
    if sizes is None:
        raise UnknownElementError("Size")
    return [array_of([_fold("Mul", sizes, 1)]).reshape(())]


def _same(read: ShapeReader) -> Results:
    return [read.array(0)]


def _cast(read: ShapeReader) -> Results:
    array, to = read.array(0), ir.DataType(read.integer("to", 0))
    source = read.node.inputs[0]
    if source is None or to not in INTEGERS or source.dtype not in INTEGERS:
        raise UnknownElementError("Cast")
    # Numbers that do not fit would wrap; symbols are sizes, and taken to fit
    if to == ir.DataType.INT32 and any(is_known(e) and abs(int(e)) > np.iinfo(np.int32).max for e in array.flat):
        raise UnknownElementError("Cast")
    return [array]


def _gather(read: ShapeReader) -> Results:
    indices = np.array(read.ints(1), dtype=np.int64).reshape(read.array(1).shape)
    return [_as_array(np.take(read.array(0), indices, axis=read.integer("axis", 0)))]


def _as_array(elements: object) -> Array:
    """``elements`` as an array: numpy gives the bare element where an array of rank 0 is meant."""
    return elements if isinstance(elements, np.ndarray) else array_of([elements]).reshape(())


def _slice(read: ShapeReader) -> Results:
    data, starts, ends = read.array(0), read.ints(1), read.ints(2)
    axes = read.ints(3) if read.has(3) else list(range(len(starts)))
    steps = read.ints(4) if read.has(4) else [1] * len(starts)
    index: list[slice] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Python counts a negative end from behind; one before the first element can only be left out
        size = data.shape[axis]
        if step < 0 and end < -size:
            index[axis] = slice(start, None, step)
        else:
            index[axis] = slice(start, end, step)
    return [data[tuple(index)]]


def _concat(read: ShapeReader) -> Results:
    return [np.concatenate(read.arrays(), axis=read.integer("axis", 0))]


def _unsqueeze(read: ShapeReader) -> Results:
    return [np.expand_dims(read.array(0), tuple(read.axes() or ()))]


def _squeeze(read: ShapeReader) -> Results:
    axes = read.axes()
    return [_as_array(np.squeeze(read.array(0), axis=None if axes is None else tuple(axes)))]


def _reshape(read: ShapeReader) -> Results:
    shape, data = read.ints(1), read.array(0)
    # A 0 keeps the dimension of the data
    if 0 in shape and not read.integer("allowzero", 0):
        shape = [data.shape[index] if size == 0 else size for index, size in enumerate(shape)]
    return [data.reshape(shape)]


def _transpose(read: ShapeReader) -> Results:
    return [np.transpose(read.array(0), read.node.attributes.get_ints("perm"))]


def _expand(read: ShapeReader) -> Results:
    data = read.array(0)
    return [np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(read.ints(1)))).copy()]


def _tile(read: ShapeReader) -> Results:
    return [np.tile(read.array(0), read.ints(1))]


def _split(read: ShapeReader) -> Results:
    data, axis, count = read.array(0), read.integer("axis", 0), len(read.node.outputs)
    sizes: Sequence[int] | None = read.ints(1) if read.has(1) else read.node.attributes.get_ints("split")
    if sizes is None:  # equal parts; what becomes of a remainder depends on the operator set
        if data.shape[axis] % count:
            raise UnknownElementError("Split")
        sizes = [data.shape[axis] // count] * count
    return list(np.split(data, np.cumsum(sizes)[:-1], axis=axis))


def _range(read: ShapeReader) -> Results:
    # The three inputs are scalars
    (start,), (limit,), (delta,) = read.ints(0), read.ints(1), read.ints(2)
    numbers = range(start, limit, delta)
    if len(numbers) > MAX_ELEMENTS:
        raise UnknownElementError("Range")
    return [array_of(list(numbers))]


def _constant_of_shape(read: ShapeReader) -> Results:
    shape, tensor = read.ints(0), read.node.attributes.get_tensor("value")
    if tensor is None or tensor.dtype not in KNOWN_TYPES or np.prod(shape, dtype=np.int64) > MAX_ELEMENTS:
        raise UnknownElementError("ConstantOfShape")
    return [np.full(shape, tensor.numpy().item(), dtype=object)]


def _binary(name: str, read: ShapeReader) -> Results:
    first, *others = read.arrays()
    for right in others:
        first = _as_array(np.frompyfunc(partial(combine, name), 2, 1)(first, right))
    return [first]


def _not(read: ShapeReader) -> Results:
    if not all(map(is_known, read.array(0).flat)):
        raise UnknownElementError("Not")
    return [_as_array(np.frompyfunc(lambda element: not element, 1, 1)(read.array(0)))]


def _abs(read: ShapeReader) -> Results:
    if not all(map(never_negative, read.array(0).flat)):
        raise UnknownElementError("Abs")
    return [read.array(0)]


def _where(read: ShapeReader) -> Results:
    return [_as_array(np.frompyfunc(choose, 3, 1)(*read.arrays()))]


def _reduce(name: str, read: ShapeReader) -> Results:
    data, axes = read.array(0), read.axes()
    # Over the only axis of a vector; ``noop_with_empty_axes`` would leave it as it is
    if data.ndim != 1 or axes not in (None, [], [0], [-1]) or read.integer("noop_with_empty_axes", 0):
        raise UnknownElementError("reduction")
    result = array_of([_fold(name, list(data))])
    return [result if read.integer("keepdims", 1) else result.reshape(())]


def _fold(name: str, elements: list[Element], start: Element | None = None) -> Element:
    """``elements`` combined from the first to the last; without ``start`` there has to be one."""
    operands = elements if start is None else [start, *elements]
    result = operands[0]
    for element in operands[1:]:
        result = combine(name, result, element)
    return result


EVALUATORS: dict[str, Callable[[ShapeReader], Results]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _same,
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Split": _split,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Not": _not,
    "Abs": _abs,
    "Where": _where,
    "ReduceProd": partial(_reduce, "Mul"),
    "ReduceSum": partial(_reduce, "Add"),
    "ReduceMin": partial(_reduce, "Min"),
    "ReduceMax": partial(_reduce, "Max"),
    **{name: partial(_binary, name) for name in ("Add", "Sub", "Mul", "Div", "Min", "Max", "And", "Or")},
    **{name: partial(_binary, name) for name in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")},
}
