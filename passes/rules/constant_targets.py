"""Give Reshape and Expand a constant target where the shape arithmetic says all but what they find out themselves.

Reshape keeps a dimension by 0 and finds one by -1 (``optimizer.analysis.symbolic.reshape_targets``); Expand keeps a
dimension by 1. No dynamic dimension is frozen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.analysis.symbolic.expressions import is_known
from optimizer.analysis.symbolic.nonzero import inferred_dimension
from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.reshape_targets import ReshapeTarget
from optimizer.graph import constants, file_size, queries, tensors
from optimizer.graph.file_size import bytes_removed_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter
    from optimizer.analysis.symbolic.expressions import Element

_MAX_READERS = 64


class ConstantTargets(Rule):
    """Reshape and Expand by a constant."""

    name: ClassVar[str] = "constant-targets"
    summary: ClassVar[str] = "Reshape and Expand by a constant with 0, -1 or 1 for what they find out themselves"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape", "Expand"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Replace the computed target of ``node``, and of all others who read it, if they want the same."""
        if len(node.inputs) < 2 or node.inputs[1] is None or constants.constant_tensor(node.inputs[1]) is not None:
            return False
        targets = _targets(node, rewriter)
        known = next((target for target in targets if rewriter.known_constant(node, _array(target)) is not None), None)
        if known is not None:
            return self._put(known, [node], rewriter)
        old, target = node.inputs[1], None
        if targets and not old.is_graph_output() and queries.use_count(old) <= _MAX_READERS:
            readers = list(dict.fromkeys(use.node for use in old.uses()))
            others = [_targets(reader, rewriter) for reader in readers if reader is not node]
            target = next((each for each in targets if all(each in other for other in others)), None)
        if target is None or not rewriter.may_hold(node, ir.DataType.INT64) or not _pays(old, _array(target)):
            return False
        return self._put(target, readers, rewriter)

    def _put(self, target: list[int], readers: Sequence[ir.Node], rewriter: Rewriter) -> bool:
        permitted = [reader for reader in readers if self.permits(reader, rewriter)]
        for reader in permitted:
            reader.replace_input_with(1, rewriter.constant(reader, _array(target), "s"))
            if 0 in target and reader.op_type == "Reshape":
                reader.attributes.pop("allowzero", None)  # 0 stands for the dimension that is read
        return bool(permitted)


def _array(target: list[int]) -> NDArray[np.int64]:
    return np.array(target, dtype=np.int64)


def _targets(node: ir.Node, rewriter: Rewriter) -> list[list[int]]:
    """The constants by which ``node`` comes to the same shape, the best first."""
    if not queries.is_standard(node, "Reshape", "Expand") or queries.has_references(node) or node.inputs[0] is None:
        return []
    wanted, source = rewriter.values.elements(node.inputs[1]), dims(node.inputs[0].shape)
    if wanted is None:
        return []
    if node.op_type == "Expand":
        target = _expand_target(source, wanted)
        return [] if target is None else [target]
    wish = ReshapeTarget(
        source,
        wanted,
        rewriter.nonzero(node),
        zero_copies=0 not in wanted or node.attributes.get_int("allowzero", 0) == 0,
        inferred=inferred_dimension(node, wanted),
    )
    known = dims(node.outputs[0].shape)
    if -1 not in wanted or known is None or len(known) != len(wanted):
        return wish.targets()
    plain = [known[index] if element == -1 else element for index, element in enumerate(wanted)]
    first = replace(wish, wanted=plain).targets()
    return [*first, *(target for target in wish.targets() if target not in first)]


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
    cost = file_size.tensor_bytes(tensors.compact(array, ""), "s_99999")
    return producer is not None and cost <= bytes_removed_with([producer])


RULES: tuple[Rule, ...] = (ConstantTargets(),)
