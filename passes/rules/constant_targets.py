"""Give Reshape and Expand a constant target where the shape arithmetic says all but what they find out themselves.

Reshape keeps a dimension by 0 and finds one by -1; Expand keeps a dimension by 1. No dynamic dimension is frozen.

A computed dimension becomes -1 only where no other is kept: if one that is kept were 0 at run time, as a batch or a
past may be, ONNX Runtime could not find the -1 out, while it could follow the computed target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from optimizer import graph
from optimizer.algorithms import record_bytes, tensors
from optimizer.algorithms.freed import freed_bytes
from optimizer.algorithms.reshape_targets import reshape_target
from optimizer.algorithms.shape_elements import is_known
from optimizer.algorithms.shape_operators import dims
from optimizer.algorithms.sweep import Rule, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.shape_elements import Element

_MAX_READERS = 64


class ConstantTargets(Rule):
    """Reshape and Expand by a constant."""

    name: ClassVar[str] = "constant-targets"
    summary: ClassVar[str] = "Reshape and Expand by a constant with 0, -1 or 1 for what they find out themselves"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape", "Expand"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Replace the computed target of ``node``, and of all others who read it, if they want the same."""
        if len(node.inputs) < 2 or node.inputs[1] is None or graph.constant_tensor(node.inputs[1]) is not None:
            return False
        old, target = node.inputs[1], _target(node, scope)
        if target is None:
            return False
        array, readers = np.array(target, dtype=np.int64), [node]
        if scope.known_constant(node, array) is None:
            if old.is_graph_output() or graph.use_count(old) > _MAX_READERS:
                return False
            readers = list(dict.fromkeys(use.node for use in old.uses()))
            if not all(_target(reader, scope) == target for reader in readers) or not _pays(old, array):
                return False
        readers = [reader for reader in readers if reader is node or self.permits(reader, scope)]
        if not self.permits(node, scope):
            return False
        constant = scope.constant(node, array, "s")
        for reader in readers:
            reader.replace_input_with(1, constant)
            if 0 in target and reader.op_type == "Reshape":
                reader.attributes.pop("allowzero", None)  # 0 stands for the dimension that is read
        return True


def _target(node: ir.Node, scope: Scope) -> list[int] | None:
    """The constant by which ``node`` comes to the same shape."""
    if not graph.is_standard(node, "Reshape", "Expand") or graph.has_references(node) or node.inputs[0] is None:
        return None
    wanted, source = scope.values.elements(node.inputs[1]), dims(node.inputs[0].shape)
    if wanted is None:
        return None
    if node.op_type == "Expand":
        return _expand_target(source, wanted)
    return reshape_target(source, wanted, zero_copies=0 not in wanted or node.attributes.get_int("allowzero", 0) == 0)


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


def _pays(old: ir.Value, array: NDArray[np.int64]) -> bool:
    """Whether the constant takes no more bytes than the node that computes ``old``."""
    producer = old.producer()
    cost = record_bytes.tensor_bytes(tensors.compact(array, ""), "s_99999")
    return producer is not None and cost <= freed_bytes([producer])


RULES: tuple[Rule, ...] = (ConstantTargets(),)
