"""Constants that a rewrite wants in the place of others: which go by it, what it costs, what it saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph import file_size
from optimizer.graph.constants import constant_bytes, constant_tensor, is_only_read_by, set_array

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter


def constants_only_read_by(nodes: Collection[ir.Node]) -> list[ir.Value]:
    """The constants that have no uses any more once ``nodes`` are gone.

    They come shortest name first, so that what takes one over is small, and the same whatever order ``nodes`` are in.
    """
    read = {value: None for node in nodes for value in node.inputs if value is not None}
    found = [value for value in read if constant_tensor(value) is not None and is_only_read_by(value, nodes)]
    return sorted(found, key=lambda value: (len(value.name or ""), value.name or ""))


@dataclass(frozen=True)
class ReplacementConstant:
    """A constant that a rewrite wants: new data, in the place of a dying constant where there is one.

    Attributes:
        array: The data.
        hint: The name of a new initializer, if no constant can be taken over.
        spare: A dying initializer that is taken over, name and all.
    """

    array: NDArray[np.generic]
    hint: str
    reusable: ir.Value | None = None

    def grows(self) -> int:
        """By how many bytes the file grows, dying constants other than ``reusable`` not counted."""
        tensor = ir.tensor(self.array)
        if self.reusable is None:
            return file_size.tensor_bytes(tensor, self.hint)
        return file_size.tensor_bytes(tensor, self.reusable.name) - constant_bytes(self.reusable)

    def put(self, node: ir.Node, rewriter: Rewriter) -> ir.Value:
        """Make the constant, so that ``node`` can read it."""
        if self.reusable is None:
            return rewriter.constant(node, self.array, self.hint)
        set_array(self.reusable, self.array)
        return self.reusable


def replacement_for(array: NDArray[np.generic], hint: str, spares: Iterable[ir.Value]) -> ReplacementConstant:
    """A constant with the data ``array`` that takes over the first initializer among the dying ``spares``."""
    return ReplacementConstant(array, hint, next((value for value in spares if value.is_initializer()), None))


def bytes_saved(
    nodes: Iterable[ir.Node], constants: Iterable[ir.Value], swaps: Iterable[ReplacementConstant] = ()
) -> int:
    """By how many bytes the file shrinks when ``nodes`` and ``constants`` go and ``swaps`` come."""
    wanted = list(swaps)
    taken = {item.reusable for item in wanted}
    gone = sum(constant_bytes(value) for value in constants if value not in taken)
    return gone + sum(file_size.node_bytes(node) for node in nodes) - sum(item.grows() for item in wanted)
