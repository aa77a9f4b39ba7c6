"""Views: what only adds or drops axes of 1, as an Unsqueeze or Squeeze that needs no target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.graph import file_size, tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter
    from optimizer.analysis.symbolic.expressions import Element

_AXES_ARE_INPUTS = 13
_ATTRIBUTE_BYTES = 20  # an attribute with a few axes, about


@dataclass(frozen=True)
class View:
    """An Unsqueeze or Squeeze with its axes."""

    op_type: str
    axes: tuple[int, ...]

    def cost(self, node: ir.Node, rewriter: Rewriter) -> int:
        """Bytes of the axes where ``node`` is, if they are not there already."""
        if rewriter.opset(node) < _AXES_ARE_INPUTS:
            return _ATTRIBUTE_BYTES + len(self.axes)
        if rewriter.known_constant(node, self._array()) is not None:
            return 0
        return file_size.tensor_bytes(tensors.compact(self._array(), ""), "axes_99")

    def put(self, node: ir.Node, source: ir.Value, rewriter: Rewriter) -> None:
        """Make ``node`` this view of ``source``."""
        node.op_type = self.op_type
        node.attributes.clear()
        if rewriter.opset(node) < _AXES_ARE_INPUTS:
            node.resize_inputs(1)
            node.attributes.add(ir.AttrInt64s("axes", self.axes))
        else:
            node.resize_inputs(2)
            node.replace_input_with(1, rewriter.constant(node, self._array(), "axes"))
        node.replace_input_with(0, source)

    def _array(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(self.axes, np.int64)


def view(before: Sequence[Element] | None, after: Sequence[Element] | None) -> View | None:
    """How what has the dimensions ``before`` gets those of ``after``, if only ones come or only ones go."""
    if before is None or after is None:
        return None
    op_type, less, more = "Squeeze", after, before
    if len(after) > len(before):
        op_type, less, more = "Unsqueeze", before, after
    axes = _ones(less, more)
    return View(op_type, axes) if axes else None


def _ones(less: Sequence[Element], more: Sequence[Element]) -> tuple[int, ...] | None:
    """Where ``more`` has ones that ``less`` has not; ``None`` if they differ in more than that."""
    axes, taken = [], 0
    for axis, element in enumerate(more):
        if taken < len(less) and less[taken] == element:
            taken += 1
        elif element == 1:
            axes.append(axis)
        else:
            return None
    return tuple(axes) if taken == len(less) else None
