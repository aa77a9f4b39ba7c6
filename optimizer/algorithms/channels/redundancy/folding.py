"""One round of folding shared channels in one graph: analyse, choose, merge, remove."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.operators import channel_groups
from optimizer.algorithms.channels.dependency.removal import remove
from optimizer.algorithms.channels.redundancy.merging import add_to_bias, merge
from optimizer.algorithms.channels.redundancy.propagation import ChannelAnalysis
from optimizer.algorithms.channels.redundancy.redundant import redundancy
from optimizer.contract.passes import Note
from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.algorithms.channels.dependency.removal import Made
    from optimizer.algorithms.channels.redundancy.redundant import Redundancy
    from optimizer.algorithms.rewriting.rewriter import Rewriter


@dataclass(frozen=True)
class FoldOptions:
    """How channels are to be folded.

    Attributes:
        multiple: What the widths of kernels stay multiples of; 1 for all that can go.
        tolerance: See ``optimizer.algorithms.channels.redundancy.linear_facts``.
    """

    multiple: int
    tolerance: float = 0.0


@dataclass(frozen=True)
class Folded:
    """What was done in one graph.

    Attributes:
        changes: How many units went, by kind: ``dead``, ``shared`` and ``unused``.
        notes: What could go and stays, with the reasons.
    """

    changes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def fold(graph: ir.Graph, opset: int, wish: FoldOptions, rewriter: Rewriter) -> Folded:
    """Remove what channels of ``graph`` can be missed; shapes have to be inferred already.

    Args:
        graph: A graph, whose nodes are in order.
        opset: The version of the standard operators that holds for it.
        wish: What may go.
        rewriter: Makes constants, and permits.
    """
    groups = channel_groups(graph, opset)
    if not groups.consumers:
        return Folded()
    redundant = redundancy(groups, ChannelAnalysis(graph, groups, wish.tolerance), wish.multiple)
    producers = _makers(groups)
    notes = _notes(redundant, producers)
    _ask(producers, redundant, rewriter)
    if not redundant.gone:
        return Folded(notes=notes)
    shifts = merge(redundant)
    removed = np.array(sorted(redundant.gone), np.int64)
    kept = [~np.isin(groups.roots(shift.consumer.produced), removed) for shift in shifts]
    remove(groups, redundant.gone, rewriter)
    replaced: Made = {}
    for shift, remaining in zip(shifts, kept, strict=True):
        add_to_bias(
            shift.consumer.node, shift.added.compress(remaining) if remaining.size else shift.added, rewriter, replaced
        )
    return Folded(Counter(redundant.gone.values()), notes)


def _makers(groups: ChannelGroups) -> dict[int, str]:
    """The site of the first kernel that gives each unit out."""
    producers: dict[int, str] = {}
    for node, channel_ids in groups.producers.items():
        name = queries.site(node)
        for root in groups.roots(channel_ids).tolist():
            producers.setdefault(root, name)
    return producers


def _notes(redundant: Redundancy, producers: Mapping[int, str]) -> tuple[Note, ...]:
    counts = Counter((producers.get(root, "?"), reason) for root, reason in redundant.staying.items())
    return tuple(
        Note(site, f"{count} channel{'s' if count > 1 else ''} that could go stay: {reason}")
        for (site, reason), count in counts.items()
    )


def _ask(producers: Mapping[int, str], redundant: Redundancy, rewriter: Rewriter) -> None:
    """Leave what the scope does not permit; asked once for each kernel and kind."""
    answers: dict[tuple[str, str], bool] = {}
    for root, reason in list(redundant.gone.items()):
        question = reason, producers.get(root, "")
        if question not in answers:
            answers[question] = rewriter.sites.permits(*question)
        if not answers[question]:
            del redundant.gone[root]
