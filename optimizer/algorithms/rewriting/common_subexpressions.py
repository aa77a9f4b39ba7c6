"""Merge nodes that compute the same from the same: common subexpressions, in each graph and from outer to inner ones.

Constants count by content up to ``sweep.MAX_SHARED_BYTES``, above that one constant is not another. Never merged are
random nodes, those with subgraphs, and calls of functions and of operators that are not in the standard.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.graph import constants, editing, queries, traversal
from optimizer.graph.operators import Trait, attributes_key, having
from optimizer.graph.tensors import content_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Sites, Step


_DOMAINS = frozenset({*queries.STANDARD_DOMAINS, "ai.onnx.ml"})
_SEES_OUTSIDE = having(Trait.SEES_OUTSIDE)
_NEVER = having(Trait.RANDOM) | {"Dropout", "Constant", "SequenceEmpty", "BatchNormalization"}


def merge_equal(model: ir.Model, step: Step, sites: Sites) -> int:
    """Let one of several equal nodes stand for all; returns how many others were removed."""
    roots = [model.graph, *(function.graph for function in model.functions.values())]
    return sum(_merge_in(root, [], step, sites) for root in roots)


@dataclass
class _Seen:
    """The nodes of a graph so far. Keys with the contents of constants are made only where nodes look alike."""

    alike: dict[Hashable, ir.Node | None] = field(default_factory=dict)  # the only node of its looks, else None
    known: dict[Hashable, ir.Node] = field(default_factory=dict)

    def find(self, looks: Hashable, node: ir.Node) -> ir.Node | None:
        """A node that computes what ``node`` does."""
        if looks not in self.alike:
            return None
        self._open(looks)
        return self.known.get(_key(node))

    def add(self, looks: Hashable, node: ir.Node) -> None:
        """Remember ``node``."""
        if looks not in self.alike:
            self.alike[looks] = node
        else:
            self._open(looks)
            self.known[_key(node)] = node

    def _open(self, looks: Hashable) -> None:
        first = self.alike[looks]
        if first is not None:
            self.alike[looks] = None
            self.known.setdefault(_key(first), first)


def _merge_in(graph: ir.Graph, outside: Sequence[_Seen], step: Step, sites: Sites) -> int:
    merged, seen = 0, _Seen()
    for node in list(graph):
        if node.graph is not graph:
            continue
        for inner in traversal.subgraphs_of(node):
            sees = [*outside, seen] if queries.is_standard(node, *_SEES_OUTSIDE) else []
            merged += _merge_in(inner, sees, step, sites)
        looks = _looks(node)
        if looks is None:
            continue
        kept = next((found for each in (seen, *outside) if (found := each.find(looks, node)) is not None), None)
        if kept is None or not _can_merge(kept, node):
            seen.add(looks, node)
        elif sites.permits(step.name, queries.site(node)):
            for old, new in zip(node.outputs, kept.outputs, strict=True):
                if queries.has_uses(old):
                    editing.bypass(node, new, old)
            merged += editing.remove_unused([node])
    return merged


def _can_merge(kept: ir.Node, node: ir.Node) -> bool:
    """Whether all readers can move."""
    pairs = [(old, new) for old, new in zip(node.outputs, kept.outputs, strict=True) if queries.has_uses(old)]
    return kept.graph is not None and all(new.name and editing.may_bypass(new, old) for old, new in pairs)


def _looks(node: ir.Node) -> Hashable | None:
    """What equal nodes have in common and is quickly found; ``None`` if ``node`` is never merged."""
    if node.domain not in _DOMAINS or node.op_type in _NEVER or not node.inputs:
        return None
    moving = tuple(None if value is None or value.is_initializer() else id(value) for value in node.inputs)
    return node.domain, node.op_type, len(node.outputs), moving


def _key(node: ir.Node) -> Hashable:
    """What only equal nodes have in common; the node itself if that cannot be said."""
    attributes = attributes_key(node)
    if attributes is None:
        return node
    inputs = tuple(map(_input_key, node.inputs))
    return node.domain, node.op_type, len(node.outputs), inputs, attributes


def _input_key(value: ir.Value | None) -> Hashable:
    if value is None:
        return None
    tensor = constants.constant_tensor(value)
    key = None if tensor is None else content_key(tensor)
    return id(value) if key is None else key
