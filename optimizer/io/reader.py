"""From ``ModelProto`` to ``ir.Model``, so that nothing is lost on the way.

onnx-ir reads a proto in which placeholders take the place of what it does not know or would open unchecked: tensors in
files, sparse tensors, map types. They are replaced afterwards by tensors of our own. Then the model is written once,
without weights, and compared with what came in: whatever else a version of onnx-ir drops is found here, and the model
is refused instead of changed. So onnx-ir need not warn of text attributes that are not UTF-8: they stay as they are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.graph.sparse import SparseTensor
from optimizer.io.checker.checker import check_examined, examine, utf8_expected
from optimizer.io.checker.tensors import is_external, make_placeholder
from optimizer.io.external_data import DataFolder
from optimizer.io.protos import preserved
from optimizer.io.protos.ir_places import ir_places_of, replace_tensor
from optimizer.io.protos.proto_diff import difference
from optimizer.io.protos.proto_places import ProtoPlaces, described, proto_places_of
from optimizer.io.protos.skeleton import PLACEHOLDER_LOCATION, draft, finish, root_cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.io.protos.ir_places import IrPlaces


# How both of onnx-ir's warnings end, at reading and at each writing
_BYTES_WARNING = "use the bytes as attribute value"
logging.getLogger(ir.serde.__name__).addFilter(lambda record: not str(record.msg).endswith(_BYTES_WARNING))


def read_model(proto: onnx.ModelProto, label: str, folder: str | None = None) -> ir.Model:
    """The model in ``proto``, whose weights it shares.

    Args:
        proto: Belongs to the model from now on.
        label: What messages call the model.
        folder: Where external data may be; ``None``: nowhere.

    Raises:
        ModelError: If the model is not well formed, its data is not there, or something of it would be lost.
    """
    with utf8_expected(label):
        return _read(proto, label, folder)


def _read(proto: onnx.ModelProto, label: str, folder: str | None) -> ir.Model:
    places = examine(proto, label)
    tensors = _map_files(proto, places, DataFolder(folder, label) if folder is not None else None, label)
    check_examined(proto, label)
    readable = _readable(proto, places, tensors, label)
    try:
        model = ir.from_proto(readable)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        raise ModelError(f"{label}: cannot be read: {root_cause(error)}; export the model again") from error
    if tensors:
        _replace_placeholders(ir_places_of(model), tensors)
    _check_nothing_is_lost(model, proto, places, label)
    return model


def _map_files(
    proto: onnx.ModelProto, places: ProtoPlaces, folder: DataFolder | None, label: str
) -> list[ir.TensorProtocol]:
    """Open the files of external tensors, and turn these into numbered placeholders; the tensors by number."""
    tensors: list[ir.TensorProtocol] = []
    for tensor in places.all_tensors():
        if not is_external(tensor):
            continue
        if folder is None:
            raise ModelError(
                f"{label}: tensor {tensor.name!r} keeps its data in a file, and of which folder is not known; "
                "give the path of the model instead"
            )
        mapped = folder.checked(tensor)
        make_placeholder(tensor, len(tensors))
        tensors.append(mapped)
    for info in proto.training_info:
        if any(is_external(tensor) for graph in (info.initialization, info.algorithm) for tensor in graph.initializer):
            raise ModelError(f"{label}: the training part keeps data in a file; remove training_info first")
    return tensors


def _readable(
    proto: onnx.ModelProto, places: ProtoPlaces, tensors: list[ir.TensorProtocol], label: str
) -> onnx.ModelProto:
    """``proto`` if onnx-ir can read it, else a copy in which placeholders take the place of what it cannot."""
    for node, attribute in places.types:
        if any(_is_unknown(type_proto) for type_proto in (attribute.tp, *attribute.type_protos)):
            raise ModelError(f"{label}: {described(node)} has a map or opaque type; such attributes cannot be kept")
    has_sparse = places.sparse or any(graph.sparse_initializer for graph in places.graphs())
    if not has_sparse and not any(_is_unknown(info.type) for graph in places.scopes for info in _infos(graph)):
        return proto
    # The original is what the model is compared with at the end, so only a copy is changed
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copied_places = proto_places_of(copy, label)
    # 1. Types that onnx-ir does not know, 2. sparse initializers, 3. sparse tensors in attributes
    for info in (info for graph in copied_places.scopes for info in _infos(graph)):
        if _is_unknown(info.type):
            info.ClearField("type")
    for graph in copied_places.graphs():
        for sparse in graph.sparse_initializer:
            _add_sparse_placeholder(graph.initializer.add(), sparse, tensors)
        del graph.sparse_initializer[:]
    for node, attribute in copied_places.sparse:
        _replace_sparse(node, attribute, tensors)
    return copy


def _replace_sparse(node: onnx.NodeProto, attribute: onnx.AttributeProto, tensors: list[ir.TensorProtocol]) -> None:
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        _add_sparse_placeholder(attribute.t, attribute.sparse_tensor, tensors)
        attribute.type = onnx.AttributeProto.TENSOR
        attribute.ClearField("sparse_tensor")
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
            attribute.name = "value"
        return
    for sparse in attribute.sparse_tensors:
        _add_sparse_placeholder(attribute.tensors.add(), sparse, tensors)
    attribute.type = onnx.AttributeProto.TENSORS
    attribute.ClearField("sparse_tensors")


def _add_sparse_placeholder(
    message: onnx.TensorProto, sparse: onnx.SparseTensorProto, tensors: list[ir.TensorProtocol]
) -> None:
    original = onnx.SparseTensorProto()
    original.CopyFrom(sparse)
    message.dims.extend(sparse.dims)
    message.data_type, message.name = sparse.values.data_type, sparse.values.name
    make_placeholder(message, len(tensors))
    tensors.append(SparseTensor(original))


def _infos(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.value_info
    if isinstance(graph, onnx.GraphProto):
        yield from graph.input
        yield from graph.output


def _is_unknown(type_proto: onnx.TypeProto) -> bool:
    """Whether onnx-ir knows no such type: a map, an opaque type, or something that holds one."""
    match type_proto.WhichOneof("value"):
        case "map_type" | "opaque_type":
            return True
        case "sequence_type":
            return _is_unknown(type_proto.sequence_type.elem_type)
        case "optional_type":
            return _is_unknown(type_proto.optional_type.elem_type)
    return False


def _replace_placeholders(places: IrPlaces, tensors: list[ir.TensorProtocol]) -> None:
    """Put the tensors where their placeholders are."""
    for graph in places.scopes:
        for value in graph.initializers.data.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _placed_tensor(value.const_value, tensors)
    for place, node, name, tensor in places.tensors:
        if isinstance(tensor, ir.ExternalTensor):
            replace_tensor(node, name, place.element, _placed_tensor(tensor, tensors))


def _placed_tensor(tensor: ir.ExternalTensor, tensors: list[ir.TensorProtocol]) -> ir.TensorProtocol:
    return tensors[int(str(tensor.location).removeprefix(PLACEHOLDER_LOCATION))]


def _check_nothing_is_lost(model: ir.Model, proto: onnx.ModelProto, places: ProtoPlaces, label: str) -> None:
    """Write ``model`` without weights and compare it with ``proto``; what can be preserved is, on the way.

    Raises:
        ModelError: With the first field that would be lost.
    """
    try:
        drafted = draft(model)
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error
    preserved.preserve(places.scopes, drafted.scopes, drafted.places)
    preserved.preserve_training(model, proto)
    written = finish(model, drafted).proto
    lost = difference(proto, written)
    if lost is not None:
        raise ModelError(f"{label}: {lost} cannot be kept by onnx-ir {ir.__version__}; remove it from the file first")
