"""Models in and out: whatever a user holds goes in, and nothing of it is lost on the way out.

A path, bytes, a ``ModelProto``, an ``ir.Model``, a ``gs.Graph`` or something that has a model becomes an ``ir.Model``.
It is well formed, its weights stay in their files, and writing it gives back what came in (``optimizer.io.reader``,
``optimizer.io.writer``).
"""

from __future__ import annotations

import contextlib
import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.graph import traversal
from optimizer.io import file_diagnosis, file_layout
from optimizer.io.checker.checker import check_structure, complaint_of_checker
from optimizer.io.external_data import DataFolder, MappedTensor
from optimizer.io.protos.ir_places import ir_places_of, replace_tensor
from optimizer.io.protos.skeleton import SMALL, skeleton_of
from optimizer.io.reader import read_model
from optimizer.io.writer import FILE, byte_size, compressed_size, save

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LoadedModel",
    "byte_size",
    "check_structure",
    "clone",
    "complaint_of_checker",
    "compressed_size",
    "give_back",
    "ingest",
    "load",
    "save",
    "skeleton",
    "to_proto",
]

SourceForm = Literal["path", "bytes", "proto", "ir", "surgeon", "holder"]


@dataclass(frozen=True)
class LoadedModel:
    """A model and where it came from.

    Attributes:
        model: The model; nothing that the caller holds changes with it.
        form: What was given; ``"holder"`` is an object with an attribute ``model`` or ``model_proto``.
        path: The file, if it was one.
        label: What messages call it.
    """

    model: ir.Model
    form: SourceForm
    path: Path | None
    label: str


def load(source: Any) -> ir.Model:
    """The model of a path, bytes, ``ModelProto``, ``ir.Model``, ``gs.Graph``, or of what has ``.model(_proto)``.

    Raises:
        ModelError: If there is no well-formed model in it, or something of it would be lost.
    """
    return ingest(source).model


def ingest(source: Any) -> LoadedModel:
    """The model of ``source``, see ``load``, and what it was."""
    with _collecting_later():
        return _ingest(source)


def _ingest(source: Any) -> LoadedModel:
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        label = "the given bytes"
        return LoadedModel(
            _with_storage_noted(read_model(file_diagnosis.parse(bytes(source), label), label)), "bytes", None, label
        )
    if isinstance(source, onnx.ModelProto):
        label, copy = "the given ModelProto", onnx.ModelProto()
        copy.CopyFrom(source)  # onnx-ir renames tensors inside the proto that they came from
        return LoadedModel(_with_storage_noted(read_model(copy, label)), "proto", None, label)
    if isinstance(source, ir.Model):
        return LoadedModel(_from_ir(source, "the given ir.Model"), "ir", None, "the given ir.Model")
    if type(source).__module__.split(".")[0] == "onnx_graphsurgeon":
        from optimizer.io import surgeon  # noqa: PLC0415 - GraphSurgeon is loaded only where it is used

        return LoadedModel(
            _from_ir(surgeon.from_graph(source), "the given gs.Graph"), "surgeon", None, "the given gs.Graph"
        )
    for name in ("model", "model_proto"):
        inner = getattr(source, name, None)
        if isinstance(inner, ir.Model | onnx.ModelProto):
            return LoadedModel(ingest(inner).model, "holder", None, f"the model of the given {type(source).__name__}")
    raise ModelError(f"a {type(source).__name__} is no model; give a path, bytes, ModelProto, ir.Model or gs.Graph")


def give_back(model: ir.Model, source: LoadedModel) -> Any:
    """``model`` as the kind of thing that ``source`` was: an ``ir.Model`` for a path and for what has a model."""
    if source.form == "bytes":
        return to_proto(model).SerializeToString(deterministic=True)
    if source.form == "proto":
        return to_proto(model)
    if source.form == "surgeon":
        from optimizer.io import surgeon  # noqa: PLC0415 - GraphSurgeon is loaded only where it is used

        return surgeon.to_graph(model)
    return model


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """``model`` as one proto, data from files included.

    Raises:
        ModelError: If it is larger than a proto can be.
    """
    skeleton = skeleton_of(model)
    size = skeleton.proto.ByteSize() + sum(placeholder.tensor.nbytes for placeholder in skeleton.placeholders)
    if size > file_layout.PROTO_LIMIT:
        raise ModelError(f"the model has {size:,} bytes, a ModelProto ends at 2 GB; save it to a path instead")
    for placeholder in skeleton.placeholders:
        placeholder.fill()
    return skeleton.proto


def skeleton(model: ir.Model, limit: int = SMALL) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """``model`` as a proto without large weights.

    Args:
        model: Not changed; no large weight is read.
        limit: Initializers of the main graph of more bytes are left out.

    Returns:
        The proto, in which they are external tensors without a usable location, and the tensors by name.
    """
    model_skeleton = skeleton_of(model, limit)
    large: dict[str, ir.TensorProtocol] = {}
    for placeholder in model_skeleton.placeholders:
        if placeholder.is_main_initializer and placeholder.tensor.nbytes > limit:
            large[placeholder.message.name] = placeholder.tensor
        else:
            placeholder.fill()
    return model_skeleton.proto, large


def clone(model: ir.Model) -> ir.Model:
    """A copy that shares tensors with ``model``; its nodes are in topological order, whatever theirs was."""
    with _collecting_later():
        try:
            copy = model.clone()
        except RuntimeError:  # onnx-ir copies nodes in topological order only
            with _sorted(model):
                copy = model.clone()
    copy.meta.update(model.meta)
    return copy


def _from_path(path: Path) -> LoadedModel:
    label = str(path)
    model = read_model(file_diagnosis.read_file(path, label), label, str(path.parent))
    model.graph.meta[FILE] = path.name
    return LoadedModel(_with_storage_noted(model), "path", path, label)


def _from_ir(source: ir.Model, label: str) -> ir.Model:
    """A copy of the caller's model whose external tensors are mapped safely."""
    check_structure(source, label)
    model = clone(source)
    folders: dict[str, DataFolder] = {}
    places = ir_places_of(model)

    def mapped(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
        folder = os.fspath(tensor.base_dir) or "."
        proto = onnx.TensorProto()
        ir.serde.serialize_tensor_into(proto, tensor)
        return folders.setdefault(folder, DataFolder(folder, label)).checked(proto)

    # 1. Initializers of all graphs, 2. tensors in attributes: the same check for both
    for graph in places.scopes:
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and not isinstance(tensor, MappedTensor):
                value.const_value = mapped(tensor)
    for place, node, name, tensor in places.tensors:
        if isinstance(tensor, ir.ExternalTensor) and not isinstance(tensor, MappedTensor):
            replace_tensor(node, name, place.element, mapped(tensor))
    return _with_storage_noted(model)


def _with_storage_noted(model: ir.Model) -> ir.Model:
    """``model``, with a note of where its weights are: passes will have moved them when it is written."""
    file_layout.storage(model)
    return model


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """Switch the cyclic garbage collector off while objects are only made: its passes take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _sorted(model: ir.Model) -> Iterator[None]:
    """Sort the nodes of ``model`` for a moment.

    Raises:
        ModelError: If they depend on each other in a circle.
    """
    scopes = ir_places_of(model).scopes
    order = [list(graph) for graph in scopes]
    try:
        for graph in traversal.roots(model):
            graph.sort()
        yield
    except ValueError as error:
        raise ModelError("the nodes of the model depend on each other in a circle; undo the last change") from error
    finally:
        for graph, nodes in zip(scopes, order, strict=True):
            graph.extend(nodes)
