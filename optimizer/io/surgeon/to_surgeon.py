"""From onnx-ir to GraphSurgeon: ordinary ``gs`` objects, each with a record of what it was made from.

Built from onnx-ir's objects directly, since GraphSurgeon's own importer drops or rejects part of what a model may
hold. Values of types that GraphSurgeon does not know are Variables without a dtype; attributes that it does not know
(TENSORS, SPARSE_TENSOR, TYPE_PROTO, bytes that are not text) are not shown, and come back with their node.
"""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any

import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
from onnx_graphsurgeon.util import misc

from optimizer.errors import PreconditionError
from optimizer.io.surgeon.attributes import is_shown
from optimizer.io.surgeon.types import RECORD, Record, TensorValues, shown_shape, shown_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tensors = ChainMap[ir.Value, gs.Tensor]


def to_graph(model: ir.Model) -> gs.Graph:
    """``model`` as a GraphSurgeon graph that ``from_graph`` turns back without loss; the weights are shared.

    Raises:
        PreconditionError: If GraphSurgeon could not hold it.
    """
    functions = [_function(function) for function in model.functions.values()]
    opset, domains = _opsets(model.opset_imports)
    graph = _graph(model.graph, ChainMap(), opset, domains, functions=functions)
    graph.producer_name = model.producer_name or ""
    graph.producer_version = model.producer_version or ""
    graph.ir_version = model.ir_version
    shown = {"producer_name": graph.producer_name, "producer_version": graph.producer_version}
    _record(graph, Record((model, model.graph), {**graph.__dict__[RECORD].shown, **shown}))
    return graph


def _opsets(imports: Mapping[str, int]) -> tuple[int | None, list[onnx.OperatorSetIdProto]]:
    domains = [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()]
    return imports.get("", imports.get("ai.onnx")), domains


def _graph(
    source: ir.Graph,
    outer: Tensors,
    opset: int | None,
    domains: Sequence[onnx.OperatorSetIdProto],
    functions: list[gs.Function] | None = None,
) -> gs.Graph:
    tensors = outer.new_child()
    graph = gs.Graph(name=source.name or "", doc_string=source.doc_string or "", opset=opset, import_domains=domains)
    initializers = [_constant(value, graph) for value in source.initializers.values()]
    tensors.update(zip(source.initializers.values(), initializers, strict=True))
    all_inputs = [_tensor(value, tensors) for value in source.inputs]
    graph.nodes = _nodes(source, tensors, opset, domains)
    # An initializer that is an input too is a Constant, and GraphSurgeon's inputs are Variables
    graph.inputs = [tensor for tensor in all_inputs if isinstance(tensor, gs.Variable)]
    graph.outputs = [_tensor(value, tensors) for value in source.outputs]
    used = {id(tensor) for tensor in graph.outputs}
    idle = [tensor for tensor in initializers if not tensor.outputs and id(tensor) not in used]
    shown = {"inputs": all_inputs, "initializers": initializers, "idle": idle, **_shown_of(graph)}
    _record(graph, Record((None, source), shown))
    if functions is not None:
        graph.functions = functions
        graph._merge_subgraph_functions()  # noqa: SLF001 - GraphSurgeon shares one list; its constructor does this
    return graph


def _function(function: ir.Function) -> gs.Function:
    opset, domains = _opsets(function.opset_imports)
    tensors: Tensors = ChainMap()
    inputs = [_tensor(value, tensors) for value in function.inputs]
    nodes = _nodes(function.graph, tensors, opset, domains)
    gs_function = gs.Function(
        function.name,
        function.domain,
        nodes=nodes,
        inputs=inputs,
        outputs=[_tensor(value, tensors) for value in function.outputs],
        doc_string=function.doc_string or "",
        opset=opset,
        import_domains=domains,
        attrs={name: _default(attribute, tensors, opset, domains) for name, attribute in function.attributes.items()},
    )
    shown = {"inputs": inputs, "initializers": [], "idle": [], **_shown_of(gs_function)}
    _record(gs_function, Record((function, function.graph), shown))
    return gs_function


def _shown_of(graph: gs.Graph) -> dict[str, Any]:
    return {"name": graph.name, "doc_string": graph.doc_string, "nodes": list(graph.nodes)}


def _default(
    attribute: ir.Attr, tensors: Tensors, opset: int | None, domains: Sequence[onnx.OperatorSetIdProto]
) -> Any:
    """The default of a function's attribute; ``None`` if it has none, or one that GraphSurgeon does not know."""
    return _shown(attribute, tensors, opset, domains) if is_shown(attribute) else None


def _nodes(
    source: ir.Graph, tensors: Tensors, opset: int | None, domains: Sequence[onnx.OperatorSetIdProto]
) -> list[gs.Node]:
    # All outputs first: a subgraph may read a value of a node that comes later, and then has to find it here
    for node in source:
        for value in node.outputs:
            if value.name:
                _tensor(value, tensors)
    return [_node(node, tensors, opset, domains) for node in source]


def _node(node: ir.Node, tensors: Tensors, opset: int | None, domains: Sequence[onnx.OperatorSetIdProto]) -> gs.Node:
    attributes = {}
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPHS:
            raise PreconditionError(
                f"{node.op_type} '{node.name}' has a list of graphs, which GraphSurgeon cannot hold"
            )
        if is_shown(attribute):
            attributes[name] = _shown(attribute, tensors, opset, domains)
    gs_node = gs.Node(
        op=node.op_type,
        name=node.name or "",
        attrs=attributes,
        inputs=[gs.Variable.empty() if value is None else _tensor(value, tensors) for value in node.inputs],
        outputs=[_tensor(value, tensors) if value.name else gs.Variable.empty() for value in node.outputs],
        domain=node.domain or None,
    )
    _record(gs_node, Record(node, {"op": gs_node.op, "domain": gs_node.domain, "name": gs_node.name}))
    return gs_node


def _shown(attribute: ir.Attr, tensors: Tensors, opset: int | None, domains: Sequence[onnx.OperatorSetIdProto]) -> Any:
    if attribute.is_ref():
        return gs.Node.AttributeRef(attribute.ref_attr_name, misc.convert_from_onnx_attr_type(int(attribute.type)))
    if attribute.type == ir.AttributeType.GRAPH:
        return _graph(attribute.as_graph(), tensors, opset, domains)
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        constant = gs.Constant(tensor.name or "", TensorValues(tensor))
        _record(constant, Record(None, {"tensor": tensor}))
        return constant
    return list(attribute.value) if isinstance(attribute.value, tuple | list) else attribute.value


def _tensor(value: ir.Value, tensors: Tensors) -> gs.Tensor:
    variable = tensors.get(value)
    if variable is None:
        dtype, type_name = shown_type(value.type)
        shape = shown_shape(value.shape) if isinstance(value.type, ir.TensorType | ir.SparseTensorType) else None
        variable = gs.Variable(value.name or "", dtype=dtype, shape=shape, type=type_name)
        shown = {"dtype": dtype, "shape": None if shape is None else list(shape), "type": type_name}
        _record(variable, Record(value, shown))
        tensors[value] = variable
    return variable


def _constant(value: ir.Value, home: gs.Graph) -> gs.Constant:
    if value.const_value is None:
        raise PreconditionError(f"initializer '{value.name}' has no values")
    constant = gs.Constant(value.name or "", TensorValues(value.const_value))
    _record(constant, Record(value, {"tensor": value.const_value}, home))
    return constant


def _record(target: Any, record: Record) -> None:
    target.__dict__[RECORD] = record
