"""Node rules and the sweep that applies them until nothing changes.

A rule is anchored at one node of one of its op types and rewrites it in place. One sweep visits every node of the
main graph, of all subgraphs and of all functions once, in order, and tries the rules of its op type only: the cost
is linear in the number of nodes. Sweeps are repeated until none changes anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer import graph
from optimizer.pass_base import Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from optimizer.pass_base import Sites


class Scope:
    """What rules know and need of the whole model while a sweep runs: opsets, free names, permissions."""

    def __init__(self, model: ir.Model, sites: Sites) -> None:
        self.model = model
        self.sites = sites
        self._names = graph.names_in_use(model)
        self._function_opsets = {
            inner: graph.opset_version(function.graph)
            for function in model.functions.values()
            for inner in graph.with_subgraphs(function.graph)
        }
        self._opset = graph.opset_version(model)

    def unique_name(self, hint: str) -> str:
        """A name that is used nowhere in the model: ``hint``, or ``hint_1``, ``hint_2`` …; it is taken by the call."""
        name, number = hint, 0
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name

    def opset(self, node: ir.Node) -> int:
        """The version of the standard operator set that holds for ``node``."""
        return self._function_opsets.get(owner(node), self._opset)

    def constant(self, node: ir.Node, array: NDArray[np.generic] | ir.TensorProtocol, hint: str) -> ir.Value:
        """A new constant that ``node`` may read: an initializer of the main graph, in functions a Constant node.

        Args:
            node: The reader; the constant becomes visible in its graph.
            array: The data.
            hint: What to call it, if the name is free.
        """
        name = self.unique_name(hint)
        tensor = array if isinstance(array, ir.TensorProtocol) else ir.tensor(array, name=name)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        if owner(node) not in self._function_opsets:
            value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
            self.model.graph.register_initializer(value)
            return value
        constant = ir.node("Constant", [], {"value": tensor})
        constant.outputs[0].name = name
        constant.outputs[0].type, constant.outputs[0].shape = kind, shape
        owner(node).insert_before(node, constant)
        return constant.outputs[0]


def owner(node: ir.Node) -> ir.Graph:
    """The graph that ``node`` is in.

    Raises:
        ValueError: If it was removed.
    """
    if node.graph is None:
        raise ValueError(f"{graph.site(node)} belongs to no graph")
    return node.graph


class Rule(ABC):
    """One rewrite, anchored at a node. ``rewrite`` guards first, asks ``permits`` last, then changes the graph."""

    name: ClassVar[str]
    summary: ClassVar[str]
    ops: ClassVar[frozenset[str]]

    @abstractmethod
    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Rewrite at ``node`` if the rule applies there; returns whether the graph was changed.

        Nodes that the rewrite leaves unused are removed by the sweep, if they are ``node`` or feed it.
        """

    def permits(self, node: ir.Node, scope: Scope) -> bool:
        """Whether the manager lets this rule change ``node``; ask it only where the change would be made."""
        return scope.sites.permits(self.name, graph.site(node))

    @classmethod
    def step(cls) -> Step:
        """The rule as a step of its pass."""
        return Step(cls.name, cls.summary)


def sweep(model: ir.Model, rules: Sequence[Rule], sites: Sites) -> Mapping[str, int]:
    """Visit every node once and apply the rules of its op type; returns the changes by rule name."""
    scope = Scope(model, sites)
    by_op: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        if sites.allows_step(rule.name):
            for op in rule.ops:
                by_op[op].append(rule)
    changes: Counter[str] = Counter()
    for scope_graph in list(graph.graphs(model)):
        for node in scope_graph:
            if node.domain in graph.STANDARD_DOMAINS and node.op_type in by_op:
                _apply(node, by_op[node.op_type], scope, changes)
    return changes


def _apply(node: ir.Node, rules: Sequence[Rule], scope: Scope, changes: Counter[str]) -> None:
    for rule in rules:
        if node.graph is None:
            return
        before = [value.producer() for value in node.inputs if value is not None]
        if rule.rewrite(node, scope):
            changes[rule.name] += 1
            graph.remove_unused([node, *(producer for producer in before if producer is not None)])
