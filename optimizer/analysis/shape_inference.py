"""Types and shapes of every value, inferred by ``onnx.shape_inference`` on a skeleton of the model.

The skeleton has the nodes and the small constants that carry shapes, but no weights: a weight is only an input with its
shape, so that models of any size fit. Its values have names of their own (``0``, ``1`` …), so that names that are
missing, repeated or hidden by a subgraph cannot mix values up, and its nodes are in topological order. Nodes that
inference is wrong about (``optimizer.analysis.shape_inference_bugs``) are hidden from it. Declared shapes of
intermediate values are not shown to the inference, since exporters and editors leave stale ones behind; nor are those
of a subgraph's inputs, which a loop may change. Only the graph's inputs are believed.

Dimensions that are not numbers get a symbol: two dimensions with one symbol are equal at every run. A name on a graph
input is taken at its word, apart from the likes of ``?`` that exporters write for "unknown".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.analysis import shape_inference_bugs
from optimizer.graph import queries, traversal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_INLINE_ELEMENTS = {True: 256, False: 16}  # integers carry shapes, axes and indices; floats at most a few scales
NAMELESS = frozenset({"", "?", "*", "-1", "None", "none", "unk", "unknown", "dynamic"})

Info = tuple["ir.TypeProtocol | None", "ir.Shape | None"]


def infer(model: ir.Model) -> None:
    """Set the types and shapes that values of ``model`` lack, in place; what is declared stays."""
    for value, (type_, shape) in inferred(model).items():
        if value.type is None:
            value.type = type_
        if value.shape is None:
            value.shape = shape


def inferred(model: ir.Model, hints: Mapping[ir.Value, ir.Shape] | None = None) -> dict[ir.Value, Info]:
    """The type and shape of every node output of the main graph and its subgraphs that can be inferred.

    Args:
        model: Not changed.
        hints: Shapes of intermediate values that are known for sure; the inference builds on them.
    """
    # With a faulty node hidden, its users get symbols in place of wrong numbers; more of them may prove faulty then
    hidden: dict[ir.Value, Info] = {}
    while True:
        infos = _types_and_shapes(_Skeleton(hints or {}, hidden), model)
        faulty = shape_inference_bugs.faulty_nodes(model, {value: shape for value, (_, shape) in infos.items()})
        wrong = {value: infos[value] for node in faulty for value in node.outputs if value in infos}
        if wrong.keys() <= hidden.keys():
            return infos
        hidden = {value: _only_rank(info, number) for number, (value, info) in enumerate({**wrong, **hidden}.items())}


def _types_and_shapes(skeleton: _Skeleton, model: ir.Model) -> dict[ir.Value, Info]:
    """What one run of the inference says of the outputs of nodes."""
    proto = _run(skeleton.build(model))
    if proto is None:
        return {}
    infos: dict[ir.Value, Info] = {}
    for info in _infos(proto.graph, nested=skeleton.nested):
        value = skeleton.values.get(info.name)
        if value is not None and value.producer() is not None:
            infos[value] = _info(info.type)
    return infos


def _only_rank(info: Info, number: int) -> Info:
    """Type and rank of what a node gives out, with a symbol of its own for each dimension."""
    type_, shape = info
    return type_, None if shape is None else ir.Shape([f"hidden {number} axis {axis}" for axis in range(len(shape))])


def _run(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    # Data propagation computes the elements of shape tensors; where it fails, shapes are inferred without it
    for data_prop in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(proto, data_prop=data_prop)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):  # one odd node can stop it all
            continue
    return None


def _infos(proto: onnx.GraphProto, *, nested: bool) -> Iterator[onnx.ValueInfoProto]:
    yield from proto.value_info
    yield from proto.output
    if nested:
        for node in proto.node:
            for attribute in node.attribute:
                for inner in [attribute.g, *attribute.graphs]:
                    yield from _infos(inner, nested=True)


def _info(proto: onnx.TypeProto) -> Info:
    if proto.WhichOneof("value") != "tensor_type":
        return ir.serde.deserialize_type_proto_for_type(proto), ir.serde.deserialize_type_proto_for_shape(proto)
    tensor = proto.tensor_type
    type_ = ir.TensorType(ir.DataType(tensor.elem_type)) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return type_, None
    return type_, ir.Shape(
        [dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim]
    )


class _Skeleton:
    """Builds the skeleton; afterwards ``values`` maps its names back and ``nested`` says if there are subgraphs."""

    def __init__(self, hints: Mapping[ir.Value, ir.Shape], hidden: Mapping[ir.Value, Info]) -> None:
        self.values: dict[str, ir.Value] = {}
        self.nested = False
        self._names: dict[ir.Value, str] = {}
        self._hints = hints
        self._hidden = hidden  # outputs of nodes whose operators are not shown, with what is known of them
        self._functions: set[tuple[str, str, str]] = set()
        self._main = onnx.GraphProto()

    def build(self, model: ir.Model) -> onnx.ModelProto:
        self._functions = set(model.functions)
        # IR version 10 has overloads, which functions may use
        proto = onnx.ModelProto(ir_version=max(model.ir_version or 0, 10))
        for domain, version in model.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
        self._fill(self._main, model.graph, trusted=True)
        proto.graph.CopyFrom(self._main)
        return proto

    def _name(self, value: ir.Value) -> str:
        name = self._names.get(value)
        if name is None:
            name = self._names[value] = str(len(self._names))
            self.values[name] = value
        return name

    def _fill(self, proto: onnx.GraphProto, source: ir.Graph, *, trusted: bool) -> None:
        """Write ``source`` into ``proto``; ``trusted``: whether the declared shapes of its inputs hold."""
        proto.name = "g"
        for value in source.inputs:
            info = proto.input.add(name=self._name(value))
            _write_type(info.type, value.type, _input_shape(value, info.name) if trusted else None)
        for value in source.initializers.values():
            if not value.is_graph_input():
                self._add_constant(value)
        inlined: set[str] = set()
        for node in traversal.in_order(source):
            self._add_node(proto, node, inlined)
        for value in source.outputs:
            type_, shape = self._hidden.get(value, (value.type, self._hints.get(value)))
            _write_type(proto.output.add(name=self._name(value)).type, type_, shape)

    def _add_constant(self, value: ir.Value) -> None:
        """Add a constant to the main graph, where subgraphs see it too: small ones with their data."""
        tensor = value.const_value
        if tensor is None:
            return
        name, dtype, shape = self._name(value), tensor.dtype, tensor.shape.numpy()
        if _is_small(dtype, shape):
            self._main.initializer.add(name=name, data_type=int(dtype), dims=shape, raw_data=tensor.tobytes())
            return
        tensor_type = self._main.input.add(name=name).type.tensor_type
        tensor_type.elem_type = int(dtype)
        tensor_type.shape.SetInParent()
        for size in shape:
            tensor_type.shape.dim.add(dim_value=size)

    def _read(self, proto: onnx.GraphProto, value: ir.Value, inlined: set[str]) -> str:
        """The name by which a node in ``proto`` reads ``value``; inference sees no data of constants further out."""
        if proto is self._main or not value.is_initializer() or value.is_graph_input():
            return self._name(value)
        tensor = value.const_value
        if tensor is None or not _is_small(tensor.dtype, tensor.shape.numpy()):
            return self._name(value)
        # A copy in the graph that reads it, since the data of outer constants is not propagated
        name = f"{self._name(value)}_{id(proto)}"
        if name not in inlined:
            inlined.add(name)
            data, dims = tensor.tobytes(), tensor.shape.numpy()
            proto.initializer.add(name=name, data_type=int(tensor.dtype), dims=dims, raw_data=data)
        return name

    def _add_node(self, proto: onnx.GraphProto, node: ir.Node, inlined: set[str]) -> None:
        is_hidden = any(value in self._hidden for value in node.outputs)
        op_type = "Hidden" if is_hidden else node.op_type
        out = proto.node.add(op_type=op_type, domain=node.domain, overload=node.overload)
        out.input.extend("" if value is None else self._read(proto, value, inlined) for value in node.inputs)
        out.output.extend(self._name(value) if value.name else "" for value in node.outputs)
        for attribute in node.attributes.data.values():
            self._add_attribute(out, attribute)
        # What no schema or function tells inference comes from the declared type, else its users get nothing
        is_inferable = node.domain in queries.STANDARD_DOMAINS or node.op_identifier() in self._functions
        for value in node.outputs:
            type_, shape = self._hidden.get(value, (value.type, self._hints.get(value)))
            if (
                (shape is not None or is_hidden or not is_inferable)
                and type_
                and value.name
                and not value.is_graph_output()
            ):
                _write_type(proto.value_info.add(name=self._name(value)).type, type_, shape)

    def _add_attribute(self, out: onnx.NodeProto, attribute: ir.Attr) -> None:
        if attribute.is_ref():
            return
        if attribute.type not in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            ir.serde.serialize_attribute_into(out.attribute.add(), attribute)
            return
        self.nested = True
        target = out.attribute.add(name=attribute.name, type=int(attribute.type))
        if attribute.type == ir.AttributeType.GRAPH:
            self._fill(target.g, attribute.as_graph(), trusted=False)
        else:
            for inner in attribute.as_graphs():
                self._fill(target.graphs.add(), inner, trusted=False)


def _is_small(dtype: ir.DataType, shape: Sequence[int]) -> bool:
    return math.prod(shape) <= MAX_INLINE_ELEMENTS[dtype.is_integer()] and dtype != ir.DataType.STRING


def _input_shape(value: ir.Value, name: str) -> ir.Shape | None:
    """The declared shape of a graph input, with a symbol for every dimension that is not a number."""
    if value.shape is None:
        return None
    dims: list[int | str] = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            dims.append(dim)
        else:
            dims.append(f"input {name} axis {axis}" if dim.value in NAMELESS or dim.value is None else dim.value)
    return ir.Shape(dims)


def _write_type(proto: onnx.TypeProto, type_: ir.TypeProtocol | None, shape: ir.Shape | None) -> None:
    if type_ is None:
        return
    ir.serde.serialize_type_into(proto, type_)
    if shape is not None:
        ir.serde.serialize_shape_into(proto, shape)
