"""Constants that a rewrite wants in the place of others: which go by it, what it costs, what it saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph import file_size
from optimizer.graph.constants import constant_bytes, constant_tensor, is_private, rewrite

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Scope


def dying(nodes: Collection[ir.Node], but: Iterable[ir.Value | None] = ()) -> list[ir.Value]:
    """The constants that nobody reads any more once ``nodes`` are gone, without those of ``but``.

    They come shortest name first, so that what takes one over is small, and the same whatever order ``nodes`` are in.
    """
    kept = {value for value in but if value is not None}
    read = {value: None for node in nodes for value in node.inputs if value is not None and value not in kept}
    found = [value for value in read if constant_tensor(value) is not None and is_private(value, nodes)]
    return sorted(found, key=lambda value: (len(value.name or ""), value.name or ""))


@dataclass(frozen=True)
class Swap:
    """A constant that a rewrite wants: new data, in the place of a dying constant where there is one.

    Attributes:
        array: The data.
        hint: The name of a new initializer, if no constant can be taken over.
        spare: A dying initializer that is taken over, name and all.
    """

    array: NDArray[np.generic]
    hint: str
    spare: ir.Value | None = None

    def grows(self) -> int:
        """By how many bytes the file grows, dying constants other than ``spare`` not counted."""
        tensor = ir.tensor(self.array)
        if self.spare is None:
            return file_size.tensor_bytes(tensor, self.hint)
        return file_size.tensor_bytes(tensor, self.spare.name) - constant_bytes(self.spare)

    def put(self, node: ir.Node, scope: Scope) -> ir.Value:
        """Make the constant, so that ``node`` can read it."""
        if self.spare is None:
            return scope.constant(node, self.array, self.hint)
        rewrite(self.spare, self.array)
        return self.spare


def swap(array: NDArray[np.generic], hint: str, spares: Iterable[ir.Value]) -> Swap:
    """A constant with the data ``array`` that takes over the first initializer among the dying ``spares``."""
    return Swap(array, hint, next((value for value in spares if value.is_initializer()), None))


def saved(nodes: Iterable[ir.Node], constants: Iterable[ir.Value], swaps: Iterable[Swap] = ()) -> int:
    """By how many bytes the file shrinks when ``nodes`` and ``constants`` go and ``swaps`` come."""
    wanted = list(swaps)
    taken = {item.spare for item in wanted}
    gone = sum(constant_bytes(value) for value in constants if value not in taken)
    return gone + sum(file_size.node_bytes(node) for node in nodes) - sum(item.grows() for item in wanted)
