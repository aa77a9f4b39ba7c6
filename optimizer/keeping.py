"""What onnx-ir would lose of a model: taken out before it sees the proto, kept aside, put back when it is written.

Sparse initializers and constants become ``SparseTensor``; training information hangs on the main graph, map types hang
on their values, so that they survive clones; trailing outputs without a name and the metadata of initializers, which
onnx-ir writes twice, are mended in the written proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.anatomy import anatomy, replace_tensor
from optimizer.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.anatomy import Anatomy, ScopeProto

TRAINING = "onnxhone.training"
TYPE = "onnxhone.type"
INFO = "onnxhone.info"


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model of ``proto``, which is used up by it (its tensors' bytes stay shared).

    Raises:
        ir.serde.SerdeError: If onnx-ir cannot hold it.
    """
    types: dict[str, bytes] = {}
    for scope in graph_protos(proto):
        _stand_in_for_sparse(scope)
        types.update(_take_map_types(scope))
    training = [info.SerializeToString() for info in proto.training_info]
    del proto.training_info[:]
    model = ir.from_proto(proto)
    if training:
        model.graph.meta[TRAINING] = training
    found = anatomy(model)
    _put_sparse(found, proto)
    _mark_described(found, proto)
    if types:
        _hang_types(found, types)
    return model


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The proto of ``model`` with everything put back."""
    proto = ir.to_proto(model)
    found = anatomy(model)
    scopes = found.protos(proto)
    for scope, written in zip(found.scopes, scopes, strict=True):
        if isinstance(written, onnx.GraphProto):
            _mend_initializers(scope, written)
            _drop_descriptions(scope, written)
            _write_types(scope, written)
    for number, position in found.open_ended:
        node = found.scopes[number][position]
        missing = len(node.outputs) - len(scopes[number].node[position].output)
        scopes[number].node[position].output.extend([""] * missing)
    _write_sparse_constants(found, scopes)
    for opset in proto.opset_import:
        if not opset.domain:
            opset.ClearField("domain")
    del proto.metadata_props[:]
    for key, value in model.metadata_props.items():
        proto.metadata_props.add(key=key, value=value)
    for info in model.graph.meta.get(TRAINING, ()):
        proto.training_info.add().ParseFromString(info)
    return proto


def graph_protos(proto: onnx.ModelProto) -> Iterator[ScopeProto]:
    """The main graph, all functions, and every subgraph, outer ones first."""
    stack: list[ScopeProto] = [proto.graph, *proto.functions]
    for scope in stack:  # grows while it is walked over
        yield scope
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)


def _stand_in_for_sparse(scope: ScopeProto) -> None:
    if isinstance(scope, onnx.GraphProto):
        for sparse in scope.sparse_initializer:
            scope.initializer.append(_stand_in(sparse))
    for node in scope.node:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(_stand_in(attribute.sparse_tensor))


def _stand_in(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    return onnx.TensorProto(name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims)


def _put_sparse(found: Anatomy, proto: onnx.ModelProto) -> None:
    scopes = found.protos(proto)
    for scope, written in zip(found.scopes, scopes, strict=True):
        if isinstance(written, onnx.GraphProto):
            for sparse in written.sparse_initializer:
                scope.initializers[sparse.values.name].const_value = SparseTensor(sparse)
    for place, node, name, _ in found.tensors:
        attribute = scopes[place.scope].node[place.node].attribute[place.attribute]
        if attribute.HasField("sparse_tensor"):
            replace_tensor(node, name, place.item, SparseTensor(attribute.sparse_tensor))


def _write_sparse_constants(found: Anatomy, scopes: list[ScopeProto]) -> None:
    for place, _, _, tensor in found.tensors:
        if isinstance(tensor, SparseTensor):
            attribute = scopes[place.scope].node[place.node].attribute[place.attribute]
            attribute.ClearField("t")
            attribute.name, attribute.type = "sparse_value", onnx.AttributeProto.SPARSE_TENSOR
            attribute.sparse_tensor.CopyFrom(tensor.proto)


def _mend_initializers(scope: ir.Graph, written: onnx.GraphProto) -> None:
    sparse = {
        name: value.const_value
        for name, value in scope.initializers.items()
        if isinstance(value.const_value, SparseTensor)
    }
    if sparse:
        dense = [tensor for tensor in written.initializer if tensor.name not in sparse]
        del written.initializer[:]
        written.initializer.extend(dense)
        for name, tensor in sparse.items():
            proto = written.sparse_initializer.add()
            proto.CopyFrom(tensor.proto)
            proto.values.name = name
    for tensor_proto in written.initializer:
        if len(tensor_proto.metadata_props) > 1:
            entries = {entry.key: entry.value for entry in tensor_proto.metadata_props}
            del tensor_proto.metadata_props[:]
            for key, value in entries.items():
                tensor_proto.metadata_props.add(key=key, value=value)


def _mark_described(found: Anatomy, proto: onnx.ModelProto) -> None:
    """Remember which initializers the file describes in ``value_info``; onnx-ir would describe them all."""
    for scope, written in zip(found.scopes, found.protos(proto), strict=True):
        for info in written.value_info:
            value = scope.initializers.get(info.name)
            if value is not None:
                value.meta[INFO] = True


def _drop_descriptions(scope: ir.Graph, written: onnx.GraphProto) -> None:
    surplus = {name for name, value in scope.initializers.items() if INFO not in value.meta and not value.doc_string}
    kept = [info for info in written.value_info if info.name not in surplus]
    if len(kept) < len(written.value_info):
        del written.value_info[:]
        written.value_info.extend(kept)


def _take_map_types(scope: ScopeProto) -> dict[str, bytes]:
    """Types that onnx-ir raises on, by value name; they are cleared in the proto."""
    lists = [scope.value_info]
    if isinstance(scope, onnx.GraphProto):
        lists += [scope.input, scope.output]
    taken = {}
    for info in (info for infos in lists for info in infos):
        if _holds_map(info.type):
            taken[info.name] = info.type.SerializeToString()
            info.ClearField("type")
    return taken


def _holds_map(kind: onnx.TypeProto) -> bool:
    match kind.WhichOneof("value"):
        case "map_type" | "opaque_type":
            return True
        case "sequence_type":
            return _holds_map(kind.sequence_type.elem_type)
        case "optional_type":
            return _holds_map(kind.optional_type.elem_type)
    return False


def _hang_types(found: Anatomy, types: dict[str, bytes]) -> None:
    for scope in found.scopes:
        for value in [*scope.inputs, *scope.outputs]:
            if value.name in types:
                value.meta[TYPE] = types[value.name]


def _write_types(scope: ir.Graph, written: onnx.GraphProto) -> None:
    for values, infos in ((scope.inputs, written.input), (scope.outputs, written.output)):
        for value, info in zip(values, infos, strict=True):
            if TYPE in value.meta:
                info.type.ParseFromString(value.meta[TYPE])
