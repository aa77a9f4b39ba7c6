"""Symbols of dimensions that stay the same from one shape inference to the next.

A symbol that inference made up stands for the dimension at which it came up first, its *anchor*. What is to be written
down for the next inference gets a mark, so that nothing new has its name. That inference may have another name for the
anchor, or a number: then the symbol is replaced by it wherever it was written down.

A product of symbols is written ``6*N``, factors in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, overload

import onnx_ir as ir

from optimizer.graph import traversal

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

Anchors: TypeAlias = "dict[str, tuple[ir.Value, int]]"
Names: TypeAlias = "Mapping[str, int | str]"


def product(number: int, symbols: Iterable[str]) -> int | str:
    """The dimension that is ``number`` times ``symbols``."""
    ordered = sorted(symbols)
    if not ordered:
        return number
    return "*".join([*([str(number)] if number != 1 else []), *ordered])


def factors(dim: str) -> tuple[int, list[str]]:
    """The number and the symbols in ``dim``."""
    number, symbols = 1, list[str]()
    for factor in dim.split("*"):
        if factor.isdecimal():
            number *= int(factor)
        else:
            symbols.append(factor)
    return number, symbols


def made_up(model: ir.Model, written: Iterable[ir.Shape]) -> set[str]:
    """The symbols of the shapes ``written`` down that are not those of the model's inputs."""
    symbols = {symbol for shape in written for symbol in _symbols(shape)}
    return symbols - {symbol for value in model.graph.inputs for symbol in _symbols(value.shape)}


def anchors(model: ir.Model, wanted: Container[str]) -> Anchors:
    """Where the ``wanted`` symbols come up first."""
    by_symbol: Anchors = {}
    for node in traversal.nodes(model):
        for value in node.outputs:
            for axis, dim in enumerate(value.shape or ()):
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None and dim.value in wanted:
                    by_symbol.setdefault(dim.value, (value, axis))
    return by_symbol


def marked(symbol: str) -> str:
    """A name that inference does not make up."""
    return f"{symbol}'"


def renaming(anchors: Anchors, shapes: Mapping[ir.Value, ir.Shape | None]) -> dict[str, int | str]:
    """What the marked symbols that are anchored are called in ``shapes``, as far as they changed."""
    names: dict[str, int | str] = {}
    for symbol, (value, axis) in anchors.items():
        # The dimension at the anchor, as the new inference calls it
        shape = shapes.get(value)
        dim = None if shape is None or axis >= len(shape) else shape[axis]
        name = dim.value if isinstance(dim, ir.SymbolicDim) else dim
        if name is not None and name != marked(symbol):
            names[marked(symbol)] = name
    return names


@overload
def renamed(shape: ir.Shape, names: Names) -> ir.Shape: ...
@overload
def renamed(shape: None, names: Names) -> None: ...
def renamed(shape: ir.Shape | None, names: Names) -> ir.Shape | None:
    """``shape`` with the new ``names``."""
    if shape is None or not names or shape.is_static():
        return shape
    return ir.Shape([dim if isinstance(dim, int) else _renamed(dim.value, names) for dim in shape])


def _renamed(dim: str | None, names: Names) -> int | str | None:
    return None if dim is None else product(*_resolved(dim, names, frozenset()))


def _resolved(dim: str, names: Names, above: frozenset[str]) -> tuple[int, list[str]]:
    """The factors of ``dim`` under their new names, which may have new names again; circles are cut."""
    number, symbols = factors(dim)
    resolved: list[str] = []
    for symbol in symbols:
        name = symbol if symbol in above else names.get(symbol, symbol)
        if isinstance(name, int):
            number *= name
        elif name == symbol:
            resolved.append(symbol)
        else:
            factor, inner = _resolved(name, names, above | {symbol})
            number *= factor
            resolved += inner
    return number, resolved


def _symbols(shape: ir.Shape | None) -> Iterable[str]:
    for dim in shape or ():
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
            yield from factors(dim.value)[1]
