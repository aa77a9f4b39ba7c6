"""Give Reshape and Expand a constant target where the shape arithmetic says all but what they find out themselves.

Reshape keeps a dimension by 0 and finds one by -1; Expand keeps a dimension by 1. No dynamic dimension is frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from optimizer import graph
from optimizer.algorithms import record_bytes
from optimizer.algorithms.shape_elements import is_known
from optimizer.algorithms.shape_operators import dims
from optimizer.algorithms.sweep import Rule, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.algorithms.shape_elements import Element


def reshape_target(source: Sequence[Any] | None, wanted: Sequence[Element], *, zero_copies: bool) -> list[int] | None:
    """A constant target by which a Reshape of ``source`` comes to ``wanted``."""
    target: list[int] = []
    for index, element in enumerate(wanted):
        if is_known(element) and (element != 0 or zero_copies):
            target.append(int(element))
        elif is_known(element):
            return None
        elif zero_copies and source is not None and index < len(source) and source[index] == element:
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


class ConstantTargets(Rule):
    """Reshape and Expand by a constant."""

    name: ClassVar[str] = "constant-targets"
    summary: ClassVar[str] = "Reshape and Expand by a constant with 0, -1 or 1 for what they find out themselves"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape", "Expand"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Replace the computed target of ``node``."""
        if len(node.inputs) < 2 or node.inputs[1] is None or graph.constant_tensor(node.inputs[1]) is not None:
            return False
        old, source = node.inputs[1], node.inputs[0]
        wanted = scope.values.elements(old)
        known = dims(source.shape if source is not None else None)
        if wanted is None:
            return False
        if node.op_type == "Reshape":
            target = reshape_target(known, wanted, zero_copies=node.attributes.get_int("allowzero", 0) == 0)
        else:
            target = _expand_target(known, wanted)
        if target is None or graph.use_count(old) > 1 or not _pays(old, target, node, scope):
            return self._shared(old, target, node, scope)
        return self._put(target, node, scope)

    def _shared(self, old: ir.Value, target: list[int] | None, node: ir.Node, scope: Scope) -> bool:
        """Where others read the target too, only a constant that exists already costs nothing."""
        if target is None or scope.known_constant(node, np.array(target, dtype=np.int64)) is None:
            return False
        return self._put(target, node, scope)

    def _put(self, target: list[int], node: ir.Node, scope: Scope) -> bool:
        if not self.permits(node, scope):
            return False
        node.replace_input_with(1, scope.constant(node, np.array(target, dtype=np.int64), "s"))
        return True


def _expand_target(source: Sequence[Any] | None, wanted: Sequence[Element]) -> list[int] | None:
    target: list[int] = []
    offset = len(wanted) - len(source or ())
    for index, element in enumerate(wanted):
        if is_known(element):
            target.append(int(element))
        elif source is not None and index >= offset >= 0 and source[index - offset] == element:
            target.append(1)
        else:
            return None
    return target


def _pays(old: ir.Value, target: list[int], node: ir.Node, scope: Scope) -> bool:
    producer = old.producer()
    if producer is None:
        return False
    tensor = graph.compact_tensor(np.array(target, dtype=np.int64), "")
    cost = record_bytes.tensor_bytes(tensor, "s_99999")
    return scope.known_constant(node, np.array(target, dtype=np.int64)) is not None or cost <= record_bytes.node_bytes(
        producer
    )


RULES: tuple[Rule, ...] = (ConstantTargets(),)
