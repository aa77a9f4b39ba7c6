"""Merge nodes that compute the same from the same: common subexpressions, in each graph and from outer to inner ones.

Constants count by content up to ``optimizer.graph.tensors.MAX_SHARED_BYTES``, above that one constant is not another.

Counterparts elsewhere: ``CommonSubexpressionEliminationPass`` of onnx-ir, which looks at each graph alone; the pass
``cse`` of xDSL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.algorithms.rewriting.edit import Edit
from optimizer.algorithms.rewriting.edit_bytes import grows
from optimizer.algorithms.rewriting.rules import KEEPS_NAME, NO_MATCH, NOT_PERMITTED, WOULD_GROW
from optimizer.graph import constants, editing, queries, traversal
from optimizer.graph.operators import Trait, attributes_key, having
from optimizer.graph.tensors import content_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter
    from optimizer.contract.passes import Step
    from optimizer.contract.refusal import Refusal


_DOMAINS = frozenset({*queries.STANDARD_DOMAINS, "ai.onnx.ml"})
_SEES_OUTSIDE = having(Trait.SEES_OUTSIDE)
_NEVER = having(Trait.RANDOM) | {"Dropout", "Constant", "SequenceEmpty", "BatchNormalization"}


def merge_equal(rewriter: Rewriter, step: Step) -> int:
    """Let one of several equal nodes stand for all; returns how many others were removed.

    Case 1: an equal node stands earlier in the same graph. Its outputs are read instead.
    Case 2: it stands in a graph around, before the node that the graph belongs to, and is seen from inside.
    Case 3: random nodes, those with subgraphs, calls of functions and of operators that are not in the standard are
    never merged.
    """
    return sum(_merge_in(root, [], step, rewriter) for root in traversal.roots(rewriter.model))


@dataclass
class _SeenNodes:
    """The nodes of a graph so far. Keys with the contents of constants are made only where nodes look alike.

    Attributes:
        alike: By what is quickly told of a node: the only one of its kind, ``None`` where there are several.
        by_key: By all that is told of a node, those of whose kind there are several.
    """

    alike: dict[Hashable, ir.Node | None] = field(default_factory=dict)
    by_key: dict[Hashable, ir.Node] = field(default_factory=dict)

    def find(self, quick_key: Hashable, node: ir.Node) -> ir.Node | None:
        """A node that computes what ``node`` does."""
        if quick_key not in self.alike:
            return None
        self._open(quick_key)
        return self.by_key.get(_key(node))

    def add(self, quick_key: Hashable, node: ir.Node) -> None:
        """Remember ``node``."""
        if quick_key not in self.alike:
            self.alike[quick_key] = node
        else:
            self._open(quick_key)
            self.by_key[_key(node)] = node

    def _open(self, quick_key: Hashable) -> None:
        first = self.alike[quick_key]
        if first is not None:
            self.alike[quick_key] = None
            self.by_key.setdefault(_key(first), first)


def _merge_in(graph: ir.Graph, outside: Sequence[_SeenNodes], step: Step, rewriter: Rewriter) -> int:
    merged, seen = 0, _SeenNodes()
    for node in list(graph):
        if node.graph is not graph:
            continue
        for inner in traversal.subgraphs_of(node):
            visible = [*outside, seen] if queries.is_standard(node, *_SEES_OUTSIDE) else []
            merged += _merge_in(inner, visible, step, rewriter)
        quick_key = _quick_key(node)
        if quick_key is None:
            continue  # case 3
        # Case 1 is the first of these, case 2 the others
        candidates = (nodes.find(quick_key, node) for nodes in (seen, *outside))
        kept = next((candidate for candidate in candidates if candidate is not None), None)
        refusal = NO_MATCH if kept is None else _obstacle(kept, node, step, rewriter)
        if kept is not None and refusal is None:
            for old, new in _pairs(kept, node):
                editing.bypass(node, new, old)
            merged += editing.remove_unused([node])
        elif refusal is not NOT_PERMITTED:
            seen.add(quick_key, node)
        if refusal is not None and refusal is not NO_MATCH and rewriter.sites.refusals is not None:
            rewriter.sites.refusals.add(step.name, refusal, node)
    return merged


def _pairs(kept: ir.Node, node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """Each output of ``node`` that has uses, with that of ``kept``."""
    return [(old, new) for old, new in zip(node.outputs, kept.outputs, strict=True) if queries.has_uses(old)]


def _obstacle(kept: ir.Node, node: ir.Node, step: Step, rewriter: Rewriter) -> Refusal | None:
    """Why ``kept`` cannot stand for ``node``; ``None`` if it can."""
    pairs = _pairs(kept, node)
    if kept.graph is None:
        return NO_MATCH
    if not all(new.name and editing.may_bypass(new, old) for old, new in pairs):
        return KEEPS_NAME
    if grows(Edit(bypassed=dict(pairs)), rewriter):
        return WOULD_GROW
    return None if rewriter.sites.permits(step.name, queries.site(node)) else NOT_PERMITTED


def _quick_key(node: ir.Node) -> Hashable | None:
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
