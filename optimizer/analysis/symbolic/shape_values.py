"""What is known of small integer tensors before any run: the arithmetic of shapes, with symbols for what is dynamic.

Tensors are object arrays of the elements of ``optimizer.analysis.symbolic.expressions``, so that Gather, Slice, Concat
… are those of numpy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optimizer.analysis.symbolic.expressions import Element, UnknownElementError, is_known
from optimizer.analysis.symbolic.operators import (
    EVALUATORS,
    INTEGERS,
    KNOWN_TYPES,
    MAX_ELEMENTS,
    Array,
    ShapeReader,
    array_of,
)
from optimizer.graph import constants, queries, traversal

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_UNKNOWN_ELEMENTS = 16


class ShapeValues:
    """The known integer tensors of a model, in the state in which it was when this was made."""

    def __init__(self, model: ir.Model) -> None:
        self._arrays: dict[ir.Value, Array | None] = {}
        self._walk(model.graph, queries.opset_version(model))
        for function in model.functions.values():
            self._walk(function.graph, queries.opset_version(function.graph))

    def of(self, value: ir.Value | None) -> Array | None:
        """The elements of ``value`` in its shape; ``None`` if it is not a small integer tensor of known shape."""
        if value is None:
            return None
        # Values that no evaluated node produced: constants, or elements of which nothing is known
        if value not in self._arrays:
            constant = _constant(value)
            self._arrays[value] = _opaque(value) if constant is None else constant
        return self._arrays[value]

    def elements(self, value: ir.Value | None) -> list[Element] | None:
        """The elements of ``value``, flat."""
        array = self.of(value)
        return None if array is None else list(array.flat)

    def ints(self, value: ir.Value | None) -> list[int] | None:
        """The elements of ``value``, flat, if all are numbers."""
        elements = self.elements(value)
        return elements if elements is not None and all(map(is_known, elements)) else None

    def computed(self, value: ir.Value) -> Array | None:
        """The elements of ``value`` if they follow from what its node reads."""
        array = self._arrays.get(value)
        return None if value.producer() is None or array is None or _is_opaque(array, value) else array

    def _walk(self, graph: ir.Graph, opset: int) -> None:
        for node in traversal.in_order(graph):
            for inner in traversal.subgraphs_of(node):
                self._walk(inner, opset)
            if (
                node.domain in queries.STANDARD_DOMAINS
                and node.op_type in EVALUATORS
                and not queries.has_references(node)
            ):
                self._evaluate(node, opset)

    def _evaluate(self, node: ir.Node, opset: int) -> None:
        reader = ShapeReader(node, self, opset)
        try:
            results = EVALUATORS[node.op_type](reader)
        except (UnknownElementError, ValueError, IndexError, TypeError, KeyError, ZeroDivisionError):
            return  # an odd or unknown input: nothing is known of the outputs
        for value, result in zip(node.outputs, results, strict=False):
            if result.size <= MAX_ELEMENTS:
                self._arrays[value] = result


def _constant(value: ir.Value) -> Array | None:
    tensor = constants.constant_tensor(value)
    if tensor is None or tensor.size > MAX_ELEMENTS or tensor.dtype not in KNOWN_TYPES:
        return None
    return tensor.numpy().astype(object)


def _opaque(value: ir.Value) -> Array | None:
    """Elements of which nothing is known but their places: the pairs of ``value`` and an index."""
    shape = queries.static_shape(value)
    if shape is None or value.dtype not in INTEGERS:
        return None
    size = math.prod(shape)
    return None if size > MAX_UNKNOWN_ELEMENTS else array_of([(value, index) for index in range(size)]).reshape(shape)


def _is_opaque(array: Array, value: ir.Value) -> bool:
    return array.size > 0 and array.flat[0] == (value, 0)
