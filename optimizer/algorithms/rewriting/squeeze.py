"""Views: what only adds or drops axes of 1, as an Unsqueeze or Squeeze that needs no target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import NodeForm, form
from optimizer.algorithms.rewriting.replacement import ReplacementConstant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.analysis.symbolic.expressions import Element

_AXES_ARE_INPUTS = 13


@dataclass(frozen=True)
class View:
    """An Unsqueeze or Squeeze with its axes."""

    op_type: str
    axes: tuple[int, ...]

    def form_of(self, source: ir.Value, opset: int) -> NodeForm:
        """A node that is this view of ``source``."""
        if opset < _AXES_ARE_INPUTS:
            return form(self.op_type, [source], ir.AttrInt64s("axes", self.axes))
        return form(self.op_type, [source, ReplacementConstant(np.array(self.axes, np.int64), "axes")])


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
