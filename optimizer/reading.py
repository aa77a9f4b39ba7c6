"""Reading a model file that may be anything: what it is, whether it is whole, whether its tensors hold their data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from optimizer.errors import ModelError
from optimizer.external import byte_count, location_of
from optimizer.keeping import graph_protos

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from optimizer.anatomy import ScopeProto

MOST_BYTES = 2**31 - 1  # what one protobuf message can hold
DEEPEST = 64
_LOOKS = (
    (b"PK\x03\x04", "a zip archive (a torch checkpoint or an npz?)"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<", "text or HTML"),
    (b"{", "JSON"),
    (b"version https://git-lfs", "a Git LFS pointer; run git lfs pull"),
)
_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def read_file(path: Path) -> bytes:
    """The bytes of a model file.

    Raises:
        ModelError: If it is missing, a folder, unreadable, or larger than a model file can be.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path}: is a folder; name the .onnx file in it")
        if not path.is_file():
            raise ModelError(f"{path}: there is no such file; check the path")
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(
                f"{path}: is larger than 2 GB, which no ONNX file can be; store its weights as external data"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}); check it") from error


def parse(content: bytes, label: str) -> onnx.ModelProto:
    """The proto in ``content``.

    Raises:
        ModelError: If it is no whole ONNX model.
    """
    if not content:
        raise ModelError(f"{label}: is empty; export or copy the model again")
    looks = next((what for magic, what in _LOOKS if content.startswith(magic)), None)
    if looks is None and content[4:8] == b"TFL3":
        looks = "a TFLite model; convert it to ONNX first"
    try:
        proto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        found = f"is {looks}" if looks else "is no ONNX model, or cut off"
        raise ModelError(f"{label}: {found}; export or copy the model again") from error
    if not proto.HasField("graph") or not proto.opset_import:
        found = f"is {looks}" if looks else "has no graph" if not proto.HasField("graph") else "imports no opset"
        raise ModelError(f"{label}: {found}; export or copy the model again")
    return proto


def check_proto(proto: onnx.ModelProto, label: str) -> None:
    """Check what must hold before onnx-ir may see ``proto``: versions, nesting, unique names, sizes of tensors.

    Raises:
        ModelError: With the first finding.
    """
    if proto.ir_version < 1:
        raise ModelError(f"{label}: has no ir_version; export the model again")
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(f"{label}: has IR version {proto.ir_version}, known are up to {onnx.IR_VERSION}; update onnx")
    _check_opsets(proto, label)
    _check_depth(proto, label)
    functions = [(function.domain, function.name, function.overload) for function in proto.functions]
    if len(set(functions)) < len(functions):
        raise ModelError(f"{label}: defines a function twice; export the model again")
    for scope in graph_protos(proto):
        _check_names(scope, label)
        for tensor in _tensors(scope):
            check_tensor(tensor, f"{label}: tensor {tensor.name!r}")


def _check_opsets(proto: onnx.ModelProto, label: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.version < 1:
            raise ModelError(
                f"{label}: imports version {opset.version} of {opset.domain or 'ai.onnx'}; export it again"
            )
        if opset.domain in {"", "ai.onnx"} and opset.version > newest:
            raise ModelError(f"{label}: needs opset {opset.version}, known are up to {newest}; update onnx")


def _check_depth(proto: onnx.ModelProto, label: str) -> None:
    level: list[ScopeProto] = [proto.graph, *proto.functions]
    for _ in range(DEEPEST):
        level = [
            inner
            for scope in level
            for node in scope.node
            for attribute in node.attribute
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
        ]
        if not level:
            return
    raise ModelError(f"{label}: nests more than {DEEPEST} subgraphs in one another; export the model flatter")


def _check_names(scope: ScopeProto, label: str) -> None:
    defined: set[str] = set()
    if isinstance(scope, onnx.GraphProto):
        _each_once([info.name for info in scope.input], defined, "input", label)
        initializers = [tensor.name for tensor in scope.initializer]
        initializers += [sparse.values.name for sparse in scope.sparse_initializer]
        _each_once(initializers, set(), "initializer", label)
        defined.update(initializers)
    else:
        defined.update(scope.input)
    _each_once([name for node in scope.node for name in node.output if name], defined, "value", label)


def _each_once(names: list[str], defined: set[str], kind: str, label: str) -> None:
    for name in names:
        if name in defined:
            raise ModelError(f"{label}: defines the {kind} {name!r} twice; give each its own name")
        defined.add(name)


def _tensors(scope: ScopeProto) -> Iterator[onnx.TensorProto]:
    if isinstance(scope, onnx.GraphProto):
        yield from scope.initializer
        for sparse in scope.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in scope.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor.values
                yield attribute.sparse_tensor.indices


def check_tensor(tensor: onnx.TensorProto, label: str) -> None:
    """Check that ``tensor`` holds, or its file should hold, as many elements as its shape says.

    Raises:
        ModelError: With what was found.
    """
    try:
        kind = ir.DataType(tensor.data_type)
    except ValueError:
        raise ModelError(f"{label} has the unknown data type {tensor.data_type}; update onnx") from None
    if kind == ir.DataType.UNDEFINED:
        raise ModelError(f"{label} has no data type; export the model again")
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{label} has a negative dimension, {list(tensor.dims)}; export the model again")
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        location_of(tensor, label)
        return
    if kind == ir.DataType.STRING:
        found, needed, unit = len(tensor.string_data), count, "strings"
    elif tensor.HasField("raw_data"):
        found, needed, unit = len(tensor.raw_data), byte_count(tensor), "bytes"
    else:
        found, needed, unit = _typed(tensor, kind), _typed_count(kind, count), "values"
    if found != needed:
        raise ModelError(f"{label} of shape {list(tensor.dims)} needs {needed} {unit}, it has {found}; export it again")


def _typed(tensor: onnx.TensorProto, kind: ir.DataType) -> int:
    field = onnx.helper.tensor_dtype_to_field(int(kind))
    others = [name for name in _TYPED_FIELDS if name != field and len(getattr(tensor, name))]
    return -1 if others else len(getattr(tensor, field))


def _typed_count(kind: ir.DataType, count: int) -> int:
    if kind in {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}:
        return 2 * count
    return -(-count * kind.bitwidth // 8) if kind.bitwidth < 8 else count
