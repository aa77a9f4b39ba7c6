"""Put the branch that an If on a constant takes in the place of the If.

Values of the branch keep their names unless another graph of the model has one of the same name; the outputs have those
of the If's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rewriter import Rewriter, owner
from optimizer.algorithms.rewriting.rules import APPLIED, NO_MATCH, NOT_PERMITTED, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    import onnx_ir as ir


class InlineIf(Rule):
    """An If on a constant becomes its branch; the other branch goes, so the file gets smaller."""

    name: ClassVar[str] = "inline-if"
    summary: ClassVar[str] = "an If on a constant becomes the branch that it takes"
    ops: ClassVar[frozenset[str]] = frozenset({"If"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Inline the branch of ``node``."""
        condition = constants.constant_array(node.inputs[0], 1)
        if condition is None or condition.size != 1:
            return NO_MATCH
        attribute = node.attributes.get("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        branch = None if attribute is None else attribute.as_graph()
        if branch is None:
            return NO_MATCH
        obstacle = _obstacle(node, branch, rewriter)
        if obstacle is not None:
            return obstacle
        if not self.permits(node, rewriter):
            return NOT_PERMITTED
        _inline(node, branch, rewriter)
        return APPLIED


def _obstacle(node: ir.Node, branch: ir.Graph, rewriter: Rewriter) -> Refusal | None:
    """Why the outputs of ``branch`` cannot take the places of those of ``node``; ``None`` if they can."""
    if len(branch.outputs) != len(node.outputs):
        return Refusal("the branch has another number of outputs than the If")
    if branch.initializers and not rewriter.may_lift(node):
        return Refusal("the branch has initializers, and the graph around it may have none")
    for output, inner in zip(node.outputs, branch.outputs, strict=True):
        producer = inner.producer()
        is_computed = producer is not None and producer.graph is branch
        if not is_computed and (not inner.is_initializer() or inner.graph is not branch):
            return Refusal("an output of the branch is a value of the graph around it")
        if output.is_graph_output() and (not is_computed or branch.outputs.count(inner) > 1):
            return Refusal("a graph output would be no value of its own")
    return None


def _inline(node: ir.Node, branch: ir.Graph, rewriter: Rewriter) -> None:
    target, results = owner(node), list(branch.outputs)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        rewriter.own_name(value)
        target.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    for inner in nodes:
        for value in inner.outputs:
            rewriter.own_name(value)
    target.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        if queries.has_uses(output):
            editing.bypass(node, result, output)


RULES: tuple[Rule, ...] = (InlineIf(),)
