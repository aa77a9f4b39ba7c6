"""From ``ModelProto`` to ``ir.Model``, so that nothing is lost on the way.

onnx-ir reads a proto in which stand-ins take the place of what it does not know or would open unchecked: tensors in
files, sparse tensors, map types. They are replaced afterwards by tensors of our own. Then the model is written once,
without weights, and compared with what came in: whatever else a version of onnx-ir drops is found here, and the model
is refused instead of changed. So onnx-ir need not warn of text attributes that are no UTF-8: they stay as they are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.graph.sparse import SparseTensor
from optimizer.io.checker.checker import check_examined, examine, utf8_expected
from optimizer.io.checker.tensors import is_external, stand_in
from optimizer.io.external_data import DataFolder
from optimizer.io.protos import preserved
from optimizer.io.protos.ir_places import anatomy, replace_tensor
from optimizer.io.protos.proto_diff import difference
from optimizer.io.protos.proto_places import ProtoPlaces, described, survey
from optimizer.io.protos.skeleton import STAND_IN, draft, finish, root_cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.io.protos.ir_places import IrPlaces


_KEPT_BYTES = "use the bytes as attribute value"  # how both of onnx-ir's warnings end, at reading and at each writing
logging.getLogger(ir.serde.__name__).addFilter(lambda record: not str(record.msg).endswith(_KEPT_BYTES))


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
    found = examine(proto, label)
    tensors = _map_files(proto, found, DataFolder(folder, label) if folder is not None else None, label)
    check_examined(proto, label)
    readable = _readable(proto, found, tensors, label)
    try:
        model = ir.from_proto(readable)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        raise ModelError(f"{label}: cannot be read: {root_cause(error)}; export the model again") from error
    if tensors:
        _settle(anatomy(model), tensors)
    _check_nothing_is_lost(model, proto, found, label)
    return model


def _map_files(
    proto: onnx.ModelProto, found: ProtoPlaces, folder: DataFolder | None, label: str
) -> list[ir.TensorProtocol]:
    """Open the files of external tensors, and put numbered stand-ins into ``proto``; the tensors by number."""
    tensors: list[ir.TensorProtocol] = []
    for tensor in found.all_tensors():
        if not is_external(tensor):
            continue
        if folder is None:
            raise ModelError(
                f"{label}: tensor {tensor.name!r} keeps its data in a file, and of which folder is not known; "
                "give the path of the model instead"
            )
        mapped = folder.checked(tensor)
        stand_in(tensor, len(tensors))
        tensors.append(mapped)
    for info in proto.training_info:
        if any(is_external(tensor) for graph in (info.initialization, info.algorithm) for tensor in graph.initializer):
            raise ModelError(f"{label}: the training part keeps data in a file; remove training_info first")
    return tensors


def _readable(
    proto: onnx.ModelProto, found: ProtoPlaces, tensors: list[ir.TensorProtocol], label: str
) -> onnx.ModelProto:
    """``proto`` if onnx-ir can read it, else a copy in which stand-ins take the place of what it cannot."""
    for node, attribute in found.types:
        if any(_is_unknown(kind) for kind in (attribute.tp, *attribute.type_protos)):
            raise ModelError(f"{label}: {described(node)} has a map or opaque type; such attributes cannot be kept")
    has_sparse = found.sparse or any(graph.sparse_initializer for graph in found.graphs())
    if not has_sparse and not any(_is_unknown(info.type) for graph in found.scopes for info in _infos(graph)):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copied = survey(copy, label)
    for info in (info for graph in copied.scopes for info in _infos(graph)):
        if _is_unknown(info.type):
            info.ClearField("type")
    for graph in copied.graphs():
        for sparse in graph.sparse_initializer:
            _stand_in_for(graph.initializer.add(), sparse, tensors)
        del graph.sparse_initializer[:]
    for node, attribute in copied.sparse:
        _replace_sparse(node, attribute, tensors)
    return copy


def _replace_sparse(node: onnx.NodeProto, attribute: onnx.AttributeProto, tensors: list[ir.TensorProtocol]) -> None:
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        _stand_in_for(attribute.t, attribute.sparse_tensor, tensors)
        attribute.type = onnx.AttributeProto.TENSOR
        attribute.ClearField("sparse_tensor")
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
            attribute.name = "value"
        return
    for sparse in attribute.sparse_tensors:
        _stand_in_for(attribute.tensors.add(), sparse, tensors)
    attribute.type = onnx.AttributeProto.TENSORS
    attribute.ClearField("sparse_tensors")


def _stand_in_for(message: onnx.TensorProto, sparse: onnx.SparseTensorProto, tensors: list[ir.TensorProtocol]) -> None:
    kept = onnx.SparseTensorProto()
    kept.CopyFrom(sparse)
    message.dims.extend(sparse.dims)
    message.data_type, message.name = sparse.values.data_type, sparse.values.name
    stand_in(message, len(tensors))
    tensors.append(SparseTensor(kept))


def _infos(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.value_info
    if isinstance(graph, onnx.GraphProto):
        yield from graph.input
        yield from graph.output


def _is_unknown(kind: onnx.TypeProto) -> bool:
    """Whether onnx-ir knows no such type: a map, an opaque type, or something that holds one."""
    match kind.WhichOneof("value"):
        case "map_type" | "opaque_type":
            return True
        case "sequence_type":
            return _is_unknown(kind.sequence_type.elem_type)
        case "optional_type":
            return _is_unknown(kind.optional_type.elem_type)
    return False


def _settle(parts: IrPlaces, tensors: list[ir.TensorProtocol]) -> None:
    """Put the tensors where their stand-ins are."""
    for graph in parts.scopes:
        for value in graph.initializers.data.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _stood_for(value.const_value, tensors)
    for place, node, name, tensor in parts.tensors:
        if isinstance(tensor, ir.ExternalTensor):
            replace_tensor(node, name, place.item, _stood_for(tensor, tensors))


def _stood_for(tensor: ir.ExternalTensor, tensors: list[ir.TensorProtocol]) -> ir.TensorProtocol:
    return tensors[int(str(tensor.location).removeprefix(STAND_IN))]


def _check_nothing_is_lost(model: ir.Model, proto: onnx.ModelProto, found: ProtoPlaces, label: str) -> None:
    try:
        drafted = draft(model)
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error
    preserved.preserve(found.scopes, drafted.scopes, drafted.parts)
    preserved.preserve_training(model, proto)
    written = finish(model, drafted).proto
    lost = difference(proto, written)
    if lost is not None:
        raise ModelError(f"{label}: {lost} cannot be kept by onnx-ir {ir.__version__}; remove it from the file first")
