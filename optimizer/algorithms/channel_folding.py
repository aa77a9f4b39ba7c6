"""One round of folding shared channels in one graph: analyse, choose, merge, remove."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer import graph
from optimizer.algorithms.channel_analysis import ChannelAnalysis
from optimizer.algorithms.channel_cuts import remove
from optimizer.algorithms.channel_flow import flow
from optimizer.algorithms.channel_merging import add_to_bias, merge
from optimizer.algorithms.shared_channels import redundancy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from optimizer.algorithms.channel_groups import ChannelGroups
    from optimizer.algorithms.shared_channels import Redundancy
    from optimizer.algorithms.sweep import Scope


@dataclass(frozen=True)
class Wish:
    """How channels are to be folded.

    Attributes:
        multiple: What the widths of kernels stay multiples of; 1 for all that can go.
        tolerance: See ``kernel_facts``.
    """

    multiple: int
    tolerance: float = 0.0


def fold(part: ir.Graph, opset: int, wish: Wish, scope: Scope) -> Mapping[str, int]:
    """Remove what channels of ``part`` can be missed; shapes have to be inferred already.

    Args:
        part: A graph, whose nodes are in order.
        opset: The version of the standard operators that holds for it.
        wish: What may go.
        scope: Makes constants, and permits.

    Returns:
        How many units went, by kind: ``dead``, ``shared`` and ``unused``.
    """
    groups = flow(part, opset)
    if not groups.sinks:
        return {}
    found = redundancy(groups, ChannelAnalysis(part, groups, wish.tolerance), wish.multiple)
    _ask(groups, found, scope)
    if not found.gone:
        return {}
    shifts = merge(found)
    removed = np.array(sorted(found.gone), np.int64)
    kept = [~np.isin(groups.roots(shift.sink.produced), removed) for shift in shifts]
    remove(groups, found.gone, scope)
    for shift, left in zip(shifts, kept, strict=True):
        add_to_bias(shift.sink.node, shift.added.compress(left) if left.size else shift.added, scope)
    return Counter(found.gone.values())


def _ask(groups: ChannelGroups, found: Redundancy, scope: Scope) -> None:
    """Leave what the scope does not permit; asked once for each kernel and kind."""
    answers: dict[tuple[str, str], bool] = {}
    makers: dict[int, str] = {}
    for node, atoms in groups.makers.items():
        for root in groups.roots(atoms).tolist():
            makers.setdefault(root, graph.site(node))
    for root, kind in list(found.gone.items()):
        question = kind, makers.get(root, "")
        if question not in answers:
            answers[question] = scope.sites.permits(*question)
        if not answers[question]:
            del found.gone[root]
