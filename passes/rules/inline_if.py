"""Put the branch that an If on a constant takes in the place of the If."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer import graph
from optimizer.algorithms.scopes import ScopeTree
from optimizer.algorithms.sweep import Rule, Scope, owner

if TYPE_CHECKING:
    import onnx_ir as ir


class InlineIf(Rule):
    """An If on a constant becomes its branch."""

    name: ClassVar[str] = "inline-if"
    summary: ClassVar[str] = "an If on a constant becomes the branch that it takes"
    ops: ClassVar[frozenset[str]] = frozenset({"If"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Inline the branch of ``node``."""
        condition = graph.constant_array(node.inputs[0], 1)
        if condition is None or condition.size != 1:
            return False
        attribute = node.attributes.get("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        branch = None if attribute is None else attribute.as_graph()
        if branch is None or not _may_inline(node, branch, scope) or not self.permits(node, scope):
            return False
        _inline(node, branch, scope)
        return True


def _may_inline(node: ir.Node, branch: ir.Graph, scope: Scope) -> bool:
    """Whether the outputs can take the places of those of ``node``."""
    if branch.initializers and scope.in_function(node):
        return False
    computed = [value for value in branch.outputs if value.producer() is not None and value.graph is branch]
    for output, inner in zip(node.outputs, branch.outputs, strict=True):
        if output.is_graph_output() and (inner not in computed or branch.outputs.count(inner) > 1):
            return False
    return True


def _inline(node: ir.Node, branch: ir.Graph, scope: Scope) -> None:
    target, results = owner(node), list(branch.outputs)
    names = ScopeTree.of(scope.model).names
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        _rename(value, names[value.name or ""], scope)
        target.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    for inner in nodes:
        for value in inner.outputs:
            _rename(value, names[value.name or ""], scope)
    target.insert_before(node, nodes)
    for output, result in zip(list(node.outputs), results, strict=True):
        if graph.has_uses(output):
            graph.bypass(node, result, output)


def _rename(value: ir.Value, count: int, scope: Scope) -> None:
    """Give ``value`` a name of its own, if others in the model have its name."""
    if value.name and count > 1:
        value.name = scope.unique_name("v")


RULES: tuple[Rule, ...] = (InlineIf(),)
