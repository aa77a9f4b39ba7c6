"""Node rules and the sweep that applies them.

A rule is anchored at one node of one of its op types and rewrites it in place. One sweep visits every node of the
main graph, of all subgraphs and of all functions once, in order, and tries the rules of its op type only: the cost
is linear in the number of nodes. Whoever sweeps repeats it until nothing changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Step
from optimizer.graph import editing, queries, traversal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Sites


class Rule(ABC):
    """One rewrite, anchored at a node. ``rewrite`` guards first, asks ``permits`` last, then changes the graph."""

    name: ClassVar[str]
    summary: ClassVar[str]
    ops: ClassVar[frozenset[str]]

    @abstractmethod
    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Rewrite at ``node`` if the rule applies there; returns whether the graph was changed.

        Nodes that the rewrite leaves unused are removed by the sweep, if they are ``node`` or feed it.
        """

    def permits(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Whether the manager lets this rule change ``node``; ask it only where the change would be made."""
        return rewriter.sites.permits(self.name, queries.site(node))

    @classmethod
    def step(cls) -> Step:
        """The rule as a step of its pass."""
        return Step(cls.name, cls.summary)


def sweep(model: ir.Model, rules: Sequence[Rule], sites: Sites, rewriter: Rewriter | None = None) -> Mapping[str, int]:
    """Visit every node once and apply the rules of its op type; returns the changes by rule name.

    Args:
        model: Changed in place.
        rules: Tried in order at each node.
        sites: What the manager allows.
        rewriter: What is known of the model, if it was looked at before and has not changed since.
    """
    rewriter = rewriter or Rewriter(model, sites)
    by_op: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for op in rule.ops if sites.allows_step(rule.name) else ():
            by_op[op].append(rule)
    changes: Counter[str] = Counter()
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        for node in _in_turn(root):
            fitting = by_op.get(node.op_type)
            if fitting and node.domain in queries.STANDARD_DOMAINS and not queries.has_references(node):
                _apply(node, fitting, rewriter, changes)
    return changes


def _in_turn(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of ``graph`` and of the subgraphs of those that are still there after their turn."""
    for node in graph:
        yield node
        if node.attributes.data and node.graph is graph:
            for inner in traversal.subgraphs_of(node):
                yield from _in_turn(inner)


def _apply(node: ir.Node, rules: Sequence[Rule], rewriter: Rewriter, changes: Counter[str]) -> None:
    op_type, before = node.op_type, node.predecessors()
    for rule in rules:
        if rule.rewrite(node, rewriter):
            changes[rule.name] += 1
            editing.remove_unused([node, *before])
            if node.graph is None or node.op_type != op_type:
                return
            before = node.predecessors()
