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
    from optimizer.algorithms.channels.dependency.removal import Replacements
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
        changes: How many units went, by reason: ``dead``, ``shared`` and ``unused``.
        notes: What could go and stays, with the reasons.
    """

    changes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def fold(graph: ir.Graph, opset: int, options: FoldOptions, rewriter: Rewriter) -> Folded:
    """Remove the redundant channels of ``graph``; shapes have to be inferred already.

    Args:
        graph: A graph, whose nodes are in order.
        opset: The version of the standard operators that holds for it.
        options: What may go.
        rewriter: Makes constants, and permits.
    """
    groups = channel_groups(graph, opset)
    if not groups.consumers:
        return Folded()
    redundancies = redundancy(groups, ChannelAnalysis(graph, groups, options.tolerance), options.multiple)
    producers = _producers_of_units(groups)
    notes = _notes(redundancies, producers)
    _ask_permission(producers, redundancies, rewriter)
    if not redundancies.gone:
        return Folded(notes=notes)
    # Weights are changed while channels have their old positions; biases, which are as wide as what stays, afterwards
    shifts = merge(redundancies)
    removed = np.array(sorted(redundancies.gone), np.int64)
    masks = [~np.isin(groups.roots(shift.consumer.produced), removed) for shift in shifts]
    remove(groups, redundancies.gone, rewriter)
    replacements: Replacements = {}
    for shift, mask in zip(shifts, masks, strict=True):
        add_to_bias(
            shift.consumer.node, shift.added.compress(mask) if mask.size else shift.added, rewriter, replacements
        )
    return Folded(Counter(redundancies.gone.values()), notes)


def _producers_of_units(groups: ChannelGroups) -> dict[int, str]:
    """The site of the first kernel that produces each unit, by root."""
    producers: dict[int, str] = {}
    for node, channel_ids in groups.producers.items():
        name = queries.site(node)
        for root in groups.roots(channel_ids).tolist():
            producers.setdefault(root, name)
    return producers


def _notes(redundancies: Redundancy, producers: Mapping[int, str]) -> tuple[Note, ...]:
    counts = Counter((producers.get(root, "?"), reason) for root, reason in redundancies.staying.items())
    return tuple(
        Note(site, f"{count} channel{'s' if count > 1 else ''} that could go stay: {reason}")
        for (site, reason), count in counts.items()
    )


def _ask_permission(producers: Mapping[int, str], redundancies: Redundancy, rewriter: Rewriter) -> None:
    """Leave what the rewriter does not permit; asked once for each kernel and reason."""
    permitted: dict[tuple[str, str], bool] = {}
    for root, reason in list(redundancies.gone.items()):
        site_and_reason = reason, producers.get(root, "")
        if site_and_reason not in permitted:
            permitted[site_and_reason] = rewriter.sites.permits(*site_and_reason)
        if not permitted[site_and_reason]:
            del redundancies.gone[root]
