"""Node rules and the sweep that applies them.

A rule is anchored at one node of one of its op types and rewrites it in place, or says why it refuses to. One sweep
visits every node of the main graph, of all subgraphs and of all functions once, in order, and tries the rules of its
op type only: the cost is linear in the number of nodes. A pass sweeps again until nothing changes.

Counterparts elsewhere: ``RewriteRule`` of onnxscript's rewriter, whose ``MatchResult.fail`` gives the reason;
``RewritePattern`` of xDSL.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, ClassVar, Final

from optimizer.algorithms.rewriting import edit
from optimizer.algorithms.rewriting.edit_bytes import grows
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Step
from optimizer.contract.refusal import Refusal
from optimizer.graph import editing, queries, traversal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.rewriting.edit import Edit
    from optimizer.contract.passes import Sites


class Applied(enum.Enum):
    """What a rule says that has changed the graph."""

    APPLIED = enum.auto()


APPLIED: Final = Applied.APPLIED
NO_MATCH: Final = Refusal("the pattern of the rule is not here")
WOULD_GROW: Final = Refusal("the file would grow")
KEEPS_NAME: Final = Refusal("its output is a graph output, whose name its input cannot take")
NOT_PERMITTED: Final = Refusal("is left out, since a check failed with it")


class Rule(ABC):
    """One rewrite, anchored at a node. ``rewrite`` guards first, then says what it wants as an ``Edit`` and applies it.

    ``apply`` counts the bytes that the edit saves, exactly, asks the manager last, and changes the graph: so no rule
    lets the file grow. A rule whose change is no ``Edit`` does the three itself, in that order.

    A guard that fails is one of two things:

    - ``NO_MATCH``: the node is none of the rule's business, as a Conv that no BatchNormalization follows is none of
      ``fuse-batch-norm``. It is told apart by its identity, costs nothing, and is never listed.
    - A ``Refusal``: the pattern is there, a reader of the graph would expect the rewrite, and it is not done *because*
      of something: the weight has other users, the file would grow. ``onnxhone optimize --verbose`` lists these.

    Reasons are constants, since they are counted by their text: no names, no numbers.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    ops: ClassVar[frozenset[str]]

    @abstractmethod
    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Rewrite at ``node`` if the rule applies there.

        Nodes that the rewrite leaves unused are removed by the sweep, if they are ``node`` or feed it.

        Returns:
            ``APPLIED`` if the graph was changed; else why not, ``NO_MATCH`` where the pattern is not there at all.
        """

    def apply(self, wanted: Edit, rewriter: Rewriter, *sites: ir.Node) -> Applied | Refusal:
        """Change the graph as ``wanted``, if the file does not grow by it and the manager permits it at ``sites``."""
        if grows(wanted, rewriter):
            return WOULD_GROW
        if not all(self.permits(node, rewriter) for node in sites):
            return NOT_PERMITTED
        edit.apply(wanted, rewriter)
        return APPLIED

    def bypass(self, node: ir.Node, source: ir.Value, rewriter: Rewriter) -> Applied | Refusal:
        """Let the users of ``node`` read ``source`` instead."""
        if not editing.may_bypass(source, node.outputs[0]):
            return KEEPS_NAME
        return self.apply(edit.bypass(node, source), rewriter, node)

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
        sites: What the manager allows; its ``refusals``, if there are any, are filled.
        rewriter: What is known of the model, if it was looked at before and has not changed since.
    """
    rewriter = rewriter or Rewriter(model, sites)
    by_op: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for op in rule.ops if sites.allows_step(rule.name) else ():
            by_op[op].append(rule)
    changes: Counter[str] = Counter()
    for root in traversal.roots(model):
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
        result = rule.rewrite(node, rewriter)
        if isinstance(result, Refusal):
            if result is not NO_MATCH and rewriter.sites.refusals is not None:
                rewriter.sites.refusals.add(rule.name, result, node)
            continue
        changes[rule.name] += 1
        editing.remove_unused([node, *before])
        if node.graph is None or node.op_type != op_type:
            return
        before = node.predecessors()
