"""What a Reshape infers for its -1, which shape inference leaves open where a dimension is dynamic.

    Reshape([N, 400, 384], [N, -1, 6, 64]) has the shape [N, 400, 6, 64]: what cancels, cancels.

A product that is left over gets a symbol of its own, ``6*N``, the same wherever the same factors meet.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

import onnx_ir as ir

from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.symbols import factors, product
from optimizer.graph import queries, traversal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.analysis.symbolic.expressions import Element
    from optimizer.analysis.symbolic.shape_values import ShapeValues

Factors: TypeAlias = "tuple[int, Counter[str]]"


def reshape_hints(model: ir.Model, values: ShapeValues) -> dict[ir.Value, ir.Shape]:
    """The shapes of what Reshape nodes give out, where they say more than those that are on the values."""
    hints: dict[ir.Value, ir.Shape] = {}
    for graph in traversal.graphs(model):
        for node in graph:
            if not queries.is_standard(node, "Reshape") or queries.has_references(node) or len(node.inputs) != 2:
                continue
            source, wanted, output = node.inputs[0], values.elements(node.inputs[1]), node.outputs[0]
            source_dims = None if source is None or output.type is None else dims(source.shape)
            if source_dims is None or wanted is None or (0 in wanted and node.attributes.get_int("allowzero", 0) != 0):
                continue
            shape = _reshaped(source_dims, wanted)
            if shape is not None and shape != dims(output.shape):
                hints[output] = ir.Shape(shape)
    return hints


def _reshaped(source: list[Element], wanted: list[Element]) -> list[int | str] | None:
    """The shape that a Reshape by ``wanted`` gives to ``source``."""
    # 1. A 0 copies the dimension of the source
    target = [source[i] if size == 0 and i < len(source) else size for i, size in enumerate(wanted)]
    if target.count(-1) > 1 or not all(isinstance(size, int | str) for size in target):
        return None
    # 2. -1 is what is left of the source's elements: factors of symbols cancel, numbers divide
    if -1 in target:
        total, others = _factors(source), _factors(size for size in target if size != -1)
        if total is None or others is None:
            return None
        quotient = _quotient(total, others)
        if quotient is None:
            return None
        target[target.index(-1)] = quotient
    return target


def _factors(sizes: Iterable[Element]) -> Factors | None:
    """The product of ``sizes`` as a number and a multiset of symbols; ``None`` if one is an expression."""
    number, symbols = 1, Counter[str]()
    for size in sizes:
        if isinstance(size, int):
            number *= size
        elif isinstance(size, str):
            factor, names = factors(size)
            number *= factor
            symbols.update(names)
        else:
            return None
    return number, symbols


def _quotient(whole: Factors, share: Factors) -> int | str | None:
    """``whole`` / ``share`` if the division leaves nothing over, for whatever values of the symbols."""
    (number, symbols), (divisor, cancelled) = whole, share
    if divisor <= 0 or number % divisor or cancelled - symbols:
        return None
    return product(number // divisor, (symbols - cancelled).elements())
