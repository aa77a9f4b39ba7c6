"""Constants that a rewrite would make: how they would be called and how many bytes they would take.

They are those of ``Rewriter.constant``, called in the same order: a small constant that is there is not made again, and
none is made twice. Nothing is changed and no name is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.graph import constants, file_size, queries, tensors
from optimizer.graph.tensors import ContentKey, content_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter


@dataclass(frozen=True)
class PlannedConstant:
    """A constant that a node would read.

    Attributes:
        name: What it would be called.
        bytes: What it would add to the file.
        value: The constant, if it is there.
    """

    name: str
    bytes: int
    value: ir.Value | None = None


@dataclass
class PlannedConstants:
    """The constants of one rewrite.

    Attributes:
        rewriter: What is known of the model.
        changing: Constants whose data the rewrite changes first, with their new data.
    """

    rewriter: Rewriter
    changing: Mapping[ir.Value, NDArray[np.generic]] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _made: dict[ContentKey, str] = field(default_factory=dict)
    _revived: set[ir.Value] = field(default_factory=set)

    def name(self, hint: str) -> str:
        """A name that is free, and that no other constant of the rewrite will have."""
        name = self.rewriter.names.preview(hint, self._names)
        self._names.add(name)
        return name

    def constant(self, node: ir.Node, array: NDArray[np.generic], hint: str) -> PlannedConstant:
        """What ``Rewriter.constant`` would give ``node`` to read."""
        stored = self.rewriter.known_constant(node, array)
        if stored is not None and np.array_equal(self.changing.get(stored, array), array):
            return self.known(stored)
        key = content_key(ir.Tensor(array)) if self._made and self.rewriter.may_lift(node) else None
        if key is not None and key in self._made:
            return PlannedConstant(self._made[key], 0)
        return self.new(node, array, self.name(hint), is_shared=True)

    def known(self, value: ir.Value) -> PlannedConstant:
        """A constant that is there; it counts if it has no uses yet, since it would go without them."""
        is_dead = not queries.has_uses(value) and value not in self._revived
        self._revived.add(value)
        return PlannedConstant(value.name or "", constants.constant_bytes(value) if is_dead else 0, value)

    def new(self, node: ir.Node, array: NDArray[np.generic], name: str, *, is_shared: bool = False) -> PlannedConstant:
        """A constant that is not there: an initializer, or a Constant node where ``node`` cannot read one.

        Args:
            node: What reads it.
            array: The data.
            name: What it is called.
            is_shared: Whether it is in the main graph, where others of the rewrite can come to read it.
        """
        tensor = tensors.compact(array, name)
        if not self.rewriter.may_lift(node):
            return PlannedConstant(name, file_size.constant_node_bytes(tensor, name))
        key = content_key(tensor) if is_shared else None
        if key is not None:
            self._made.setdefault(key, name)
        return PlannedConstant(name, file_size.tensor_bytes(tensor, name))
