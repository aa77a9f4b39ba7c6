"""From GraphSurgeon to onnx-ir, by name and scope as ONNX resolves them.

Where an object came from onnx-ir, what GraphSurgeon has no place for comes back from its record. A Constant becomes one
initializer of the graph that held it, or of the innermost graph that all its readers see.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir

from optimizer.errors import PreconditionError
from optimizer.graph.traversal import is_sorted
from optimizer.io.surgeon.attributes import attribute_of, is_shown
from optimizer.io.surgeon.constant_scopes import all_graphs, constants_by_home
from optimizer.io.surgeon.types import record_of, tensor_of
from optimizer.io.surgeon.values import ValueScope, describe, devices_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optimizer.io.surgeon.types import Record


def from_graph(graph: gs.Graph) -> ir.Model:
    """``graph`` as a model; ``graph`` is not changed, and the weights are shared.

    Raises:
        PreconditionError: If it is not an ONNX model: two tensors of one name, a cycle, or values that are not tensors.
    """
    record = record_of(graph)
    source: ir.Model | None = None if record is None else record.source[0]
    model = ir.Model(
        _Exporter(graph).main(),
        ir_version=graph.ir_version or onnx.helper.find_min_ir_version_for(_opsets(graph), ignore_unknown=True),
        producer_name=_text(record, "producer_name", graph.producer_name, _of(source, "producer_name")),
        producer_version=_text(record, "producer_version", graph.producer_version, _of(source, "producer_version")),
        functions=[_function(function) for function in graph.functions],
    )
    if source is not None:
        model.domain, model.model_version, model.doc_string = source.domain, source.model_version, source.doc_string
        model.metadata_props.update(source.metadata_props)
        model.meta.update(source.meta)
        model.device_configurations = source.device_configurations
    return model


def _text(record: Record | None, name: str, now: str | None, original: str | None) -> str | None:
    """What a text field is now: the original, which may be missing, if it still is as it was shown."""
    return original if record is not None and record.shown.get(name) == now else now


class _Exporter:
    """Turns one main graph or function, with all below it, into onnx-ir."""

    def __init__(self, root: gs.Graph) -> None:
        self._root = root
        self._owned = constants_by_home(root)

    def main(self) -> ir.Graph:
        """The main graph."""
        main_graph = self._graph(self._root, None)
        main_graph.opset_imports.update((opset.domain, opset.version) for opset in _opsets(self._root))
        return main_graph

    def body(self) -> ir.Graph:
        """The body of a function, in which Constant nodes take the place of initializers."""
        scope = ValueScope(None)
        inputs = [scope.define(tensor) for tensor in self._root.inputs]
        constants = [self._constant_node(constant, scope) for constant in self._owned.get(id(self._root), [])]
        nodes = self._nodes(self._root, scope)
        body = self._assembled(self._root, scope, inputs, [*constants, *nodes], [])
        body.opset_imports.update((opset.domain, opset.version) for opset in _opsets(self._root))
        return body

    def _constant_node(self, constant: gs.Constant, scope: ValueScope) -> ir.Node:
        value, tensor = scope.define(constant), tensor_of(constant)
        return ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value])

    def _graph(self, graph: gs.Graph, outer: ValueScope | None) -> ir.Graph:
        scope = ValueScope(outer)
        all_inputs = _inputs(graph)
        inputs = [scope.define(tensor) for tensor in all_inputs]
        overridable = {id(tensor) for tensor in all_inputs}
        initializers = [
            scope.values[constant.name] if id(constant) in overridable else scope.define(constant)
            for constant in self._owned.get(id(graph), [])
        ]
        return self._assembled(graph, scope, inputs, self._nodes(graph, scope), initializers)

    def _assembled(
        self,
        graph: gs.Graph,
        scope: ValueScope,
        inputs: list[ir.Value],
        nodes: list[ir.Node],
        initializers: list[ir.Value],
    ) -> ir.Graph:
        record = record_of(graph)
        source: ir.Graph | None = None if record is None else record.source[1]
        is_function = isinstance(graph, gs.Function)
        new_graph = ir.Graph(
            inputs,
            [scope.own(tensor) for tensor in graph.outputs],
            nodes=nodes,
            initializers=initializers,
            name=_of(source, "name") if is_function else _text(record, "name", graph.name, _of(source, "name")),
            doc_string=_text(record, "doc_string", graph.doc_string, _of(source, "doc_string")),
        )
        describe(new_graph, source)
        if record is None or not _are_same(record.shown["nodes"], graph.nodes):
            _sort(new_graph)
        return new_graph

    def _nodes(self, graph: gs.Graph, scope: ValueScope) -> list[ir.Node]:
        # All outputs first, so that a reader finds them in whatever order the nodes are
        outputs = [[scope.define(tensor) for tensor in node.outputs] for node in graph.nodes]
        return [self._node(node, values, scope) for node, values in zip(graph.nodes, outputs, strict=True)]

    def _node(self, node: gs.Node, outputs: list[ir.Value], scope: ValueScope) -> ir.Node:
        record = record_of(node)
        source: ir.Node | None = None if record is None else record.source
        is_same_op = record is not None and record.shown["op"] == node.op and record.shown["domain"] == node.domain
        original = source if is_same_op else None
        new_node = ir.Node(
            node.domain or "",
            node.op,
            [scope.read(tensor) for tensor in node.inputs],
            list(self._attributes(node, original, scope)),
            overload="" if original is None else original.overload,
            outputs=outputs,
            version=None if original is None else original.version,
            name=_text(record, "name", node.name, _of(source, "name")) or "",
            doc_string=source.doc_string if source is not None else None,
        )
        describe(new_node, source)
        if source is not None and source.device_configurations:
            new_node.device_configurations = devices_of(source, scope)
        return new_node

    def _attributes(self, node: gs.Node, source: ir.Node | None, scope: ValueScope) -> Iterator[ir.Attr]:
        """The attributes in their original order, those that were not shown among them, then the new ones."""
        originals = {} if source is None else dict(source.attributes.items())
        for name, original in originals.items():
            if name in node.attrs:
                yield self._attribute(name, node.attrs[name], original, node, scope)
            elif not is_shown(original):
                yield original
        for name, value in node.attrs.items():
            if name not in originals:
                yield self._attribute(name, value, None, node, scope)

    def _attribute(self, name: str, value: Any, original: ir.Attr | None, node: gs.Node, scope: ValueScope) -> ir.Attr:
        if isinstance(value, gs.Graph):
            return ir.AttrGraph(name, self._graph(value, scope), doc_string=original.doc_string if original else None)
        return attribute_of(name, value, original, node.op, node.domain or "")


def _of(source: Any, name: str) -> Any:
    return None if source is None else getattr(source, name)


def _function(function: gs.Function) -> ir.Function:
    record = record_of(function)
    source: ir.Function | None = None if record is None else record.source[0]
    return ir.Function(
        function.domain or "",
        function.name,
        source.overload if source is not None else "",
        graph=_Exporter(function).body(),
        attributes=list(_defaults(function, source)),
    )


def _defaults(function: gs.Function, source: ir.Function | None) -> Iterator[ir.Attr]:
    originals = {} if source is None else dict(source.attributes.items())
    for name in {**originals, **function.attrs}:
        original, value = originals.get(name), function.attrs.get(name)
        if name in originals and name not in function.attrs:
            continue
        if value is None:
            yield original if original is not None else ir.Attr(name, ir.AttributeType.UNDEFINED, None)
        else:
            yield attribute_of(name, value, original, function.name, function.domain or "")


def _inputs(graph: gs.Graph) -> list[gs.Tensor]:
    """The inputs with the initializers that a caller may override, which are not shown among them."""
    # The original list, if the user did not change what was shown of it; else what is there now, then the hidden ones
    record, now = record_of(graph), list(graph.inputs)
    if record is None:
        return now
    original = record.shown["inputs"]
    shown = [tensor for tensor in original if isinstance(tensor, gs.Variable)]
    hidden = [tensor for tensor in original if isinstance(tensor, gs.Constant)]
    shown_now = set(map(id, now))
    return (
        list(original)
        if _are_same(shown, now)
        else [*now, *(tensor for tensor in hidden if id(tensor) not in shown_now)]
    )


def _are_same(shown: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether both hold the same objects; GraphSurgeon's own equality goes by name."""
    return len(shown) == len(now) and all(map(operator.is_, shown, now))


def _opsets(graph: gs.Graph) -> list[onnx.OperatorSetIdProto]:
    """The operator sets that ``graph`` imports, and, as GraphSurgeon does it, version 1 of others that it uses."""
    imported = list(graph.import_domains or [onnx.helper.make_opsetid("", graph.opset)])
    present = {opset.domain for opset in imported} | {""}
    used = dict.fromkeys(node.domain for graph_below in all_graphs(graph) for node in graph_below.nodes if node.domain)
    return imported + [onnx.helper.make_opsetid(domain, 1) for domain in used if domain not in present]


def _sort(graph: ir.Graph) -> None:
    if is_sorted(graph):
        return
    try:
        graph.sort()
    except ValueError as error:
        raise PreconditionError(f"the nodes of graph '{graph.name}' form a cycle") from error
