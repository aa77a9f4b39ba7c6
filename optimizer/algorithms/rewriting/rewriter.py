"""What rules know and need of the whole model while they rewrite it: opsets, shapes, free names, permissions."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.analysis.symbolic.nonzero import nonzero_symbols
from optimizer.analysis.symbolic.shape_values import ShapeValues
from optimizer.graph import constants, editing, file_size, queries, tensors, traversal
from optimizer.graph.graph_tree import GraphTree
from optimizer.graph.names import NameGenerator, names_in_use
from optimizer.graph.tensors import ContentKey, content_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy.typing import NDArray

    from optimizer.contract.passes import Sites
    from optimizer.contract.refusal import Refusal


_FIRST_IR_VERSION = 4  # with initializers that are no inputs


_ANY_CONSTANT = 9  # first opset in which Constant nodes hold any type


_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})


class Rewriter:
    """What rules know and need of the whole model while a sweep runs: opsets, shapes, free names, permissions."""

    def __init__(self, model: ir.Model, sites: Sites, values: ShapeValues | None = None) -> None:
        self.model = model
        self.sites = sites
        self.settled: dict[object, Refusal] = {}  # what rules looked at and refused, so that they look once a sweep
        self._values = values
        self._function_opsets = {
            inner: queries.opset_version(function.graph)
            for function in model.functions.values()
            for inner in traversal.with_subgraphs(function.graph)
        }
        self._opset = queries.opset_version(model)
        self._firsts: dict[Hashable, ir.Value] = {}
        self._has_initializers = (model.ir_version or _FIRST_IR_VERSION) >= _FIRST_IR_VERSION

    @property
    def values(self) -> ShapeValues:
        """What is known of small integer tensors."""
        if self._values is None:
            self._values = ShapeValues(self.model)
        return self._values

    def nonzero(self, node: ir.Node) -> frozenset[str]:
        """The symbols of dimensions that are not 0 where ``node`` is, at any run that succeeds."""
        return self._nonzero.get(owner(node), frozenset())

    @cached_property
    def _nonzero(self) -> Mapping[ir.Graph, frozenset[str]]:
        return nonzero_symbols(self.model.graph, self.values)

    @cached_property
    def names(self) -> NameGenerator:
        """The names of all values and nodes of the model."""
        return NameGenerator(names_in_use(self.model))

    @cached_property
    def _small_constants(self) -> dict[ContentKey, ir.Value]:
        by_content: dict[ContentKey, ir.Value] = {}
        for value in self.model.graph.initializers.values():
            key = None if value.is_graph_input() or value.is_graph_output() else content_key(value.const_value)
            if key is not None:
                by_content.setdefault(key, value)
        return by_content

    def opset(self, node: ir.Node) -> int:
        """The version of the standard operator set that holds for ``node``."""
        return self._function_opsets.get(owner(node), self._opset)

    def in_function(self, node: ir.Node) -> bool:
        """Whether ``node`` is in a function."""
        return owner(node) in self._function_opsets

    def may_lift(self, node: ir.Node) -> bool:
        """Whether constants that ``node`` reads may be initializers.

        Functions have none, and before IR version 4 each would have to be an input of the graph.
        """
        return self._has_initializers and not self.in_function(node)

    def home_of_constants(self, node: ir.Node) -> ir.Graph:
        """The graph that gets the constants that are made for ``node``."""
        return self.model.graph if self.may_lift(node) else owner(node)

    def may_hold(self, node: ir.Node, dtype: ir.DataType) -> bool:
        """Whether there can be a new constant of type ``dtype`` that ``node`` reads.

        Before opset 9, Constant nodes hold floats only.
        """
        return self.may_lift(node) or self.opset(node) >= _ANY_CONSTANT or dtype in _FLOATS

    def depth(self, graph: ir.Graph) -> int:
        """In how many other graphs ``graph`` is; at most, since what was inlined is not looked at again."""
        return self._depths.get(graph, 0)

    @cached_property
    def _depths(self) -> Mapping[ir.Graph, int]:
        depths: dict[ir.Graph, int] = {}
        for root in traversal.roots(self.model):
            depths[root] = 0
            for graph in traversal.with_subgraphs(root):
                depths.update((inner, depths[graph] + 1) for node in graph for inner in traversal.subgraphs_of(node))
        return depths

    @cached_property
    def _tree(self) -> GraphTree:
        return GraphTree.of(self.model)

    def sees(self, node: ir.Node, value: ir.Value) -> bool:
        """Whether ``node`` may read ``value``, if it is computed before."""
        return value.graph is not None and self._tree.encloses(value.graph, owner(node))

    def own_name(self, value: ir.Value) -> None:
        """Give ``value`` another name if a second one in the model has its name too."""
        values = self._tree.names
        if value.name and values.count(value.name) > 1:
            values.release(value.name)
            value.name = self.names.fresh("v")

    def first_like(self, key: Hashable, value: ir.Value) -> ir.Value:
        """The first value of this sweep that came with ``key`` and is still there; else ``value`` is it."""
        first = self._firsts.get(key)
        producer = None if first is None else first.producer()
        if first is None or producer is None or producer.graph is None:
            first = self._firsts[key] = value
        return first

    def known_constant(self, node: ir.Node, array: NDArray[np.generic] | ir.TensorProtocol) -> ir.Value | None:
        """A small initializer of the main graph that is equal to ``array`` and that ``node`` may read, if there is."""
        if not self.may_lift(node):
            return None
        key = content_key(ir.Tensor(array) if isinstance(array, np.ndarray) else array)
        value = None if key is None else self._small_constants.get(key)
        is_as_it_was = value is not None and value.is_initializer() and content_key(value.const_value) == key
        return value if is_as_it_was else None

    def constant(self, node: ir.Node, array: NDArray[np.generic] | ir.TensorProtocol, hint: str) -> ir.Value:
        """A constant that ``node`` may read: an initializer of the main graph, where there can be none a Constant node.

        Args:
            node: The reader; the constant becomes visible in its graph.
            array: The data; a small array that is a constant already is not stored again.
            hint: What to call it, if the name is free.
        """
        stored = self.known_constant(node, array)
        if stored is not None:
            return stored
        name = self.names.fresh(hint)
        tensor = tensors.compact(array, name) if isinstance(array, np.ndarray) else array
        if not self.may_lift(node):
            return self._constant_node(node, tensor, name)
        return self._initializer(self.model.graph, tensor, name)

    def cheaper_constant(self, output: ir.Value, array: NDArray[np.generic] | ir.TensorProtocol) -> ir.Value | None:
        """The known constant equal to ``array``, if it costs no more than a new one under the name of ``output``.

        It costs its longer name at each use, and what it takes itself if it would go for want of uses.
        """
        node = output.producer()
        stored = None if node is None else self.known_constant(node, array)
        if stored is None or stored.const_value is None:
            return None
        cost = queries.use_count(output) * (len(stored.name or "") - len(output.name or ""))
        if not queries.has_uses(stored):
            cost += file_size.tensor_bytes(stored.const_value, stored.name)
        return stored if cost <= file_size.tensor_bytes(stored.const_value, output.name) else None

    def replace_by_constant(self, output: ir.Value, array: NDArray[np.generic] | ir.TensorProtocol) -> None:
        """Let all readers of ``output``, which is no graph output, read a constant instead, under its name.

        The node that computes ``output`` stays, unused.

        Raises:
            ValueError: If ``output`` is not computed by a node.
        """
        node = output.producer()
        if node is None:
            raise ValueError(f"{output.name} is no output of a node")
        value = self.cheaper_constant(output, array)
        if value is None:
            name, output.name = output.name or self.names.fresh("constant"), None
            tensor = tensors.compact(array, name) if isinstance(array, np.ndarray) else tensors.renamed(array, name)
            if self.may_lift(node):
                value = self._initializer(owner(node), tensor, name)
            else:
                value = self._constant_node(node, tensor, name)
        editing.replace_values({output: value})

    def _initializer(self, target: ir.Graph, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        value = constants.add_initializer(target, name, tensor)
        key = content_key(tensor)
        if key is not None and target is self.model.graph:
            self._small_constants.setdefault(key, value)
        return value

    @staticmethod
    def _constant_node(node: ir.Node, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        constant = ir.node("Constant", [], {"value": tensor}, name="")
        output = constant.outputs[0]
        output.name = name
        output.type, output.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        owner(node).insert_before(node, constant)
        return output


def owner(node: ir.Node) -> ir.Graph:
    """The graph that ``node`` is in.

    Raises:
        ValueError: If it was removed.
    """
    if node.graph is None:
        raise ValueError(f"{queries.site(node)} belongs to no graph")
    return node.graph
