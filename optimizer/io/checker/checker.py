"""Whether a model is well formed: what onnx-ir and the passes rely on.

``onnx.checker`` does most of it, on a copy without large weights. Mended in that copy is what it asks for and ONNX
Runtime does not: topological order, names of graphs, shapes of inputs and outputs and types of outputs, initializers
listed as inputs before IR version 4, no operators that are deprecated though defined. Looked at here is what it lets
pass: tensors that are longer than their shape says, unknown types, operator sets from the future, functions that blow
up when they are inlined.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from optimizer.errors import ModelError
from optimizer.io.checker.deprecated_ops import put_aside
from optimizer.io.checker.messages import explained
from optimizer.io.checker.tensors import KNOWN_TYPES, check_sparse, check_tensor, is_external, make_placeholder
from optimizer.io.checker.topological_order import sort_nodes
from optimizer.io.external_data import byte_count
from optimizer.io.protos.proto_places import described, proto_places_of
from optimizer.io.protos.skeleton import SMALL, skeleton_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.io.protos.proto_places import ProtoPlaces

EXPANDED_LIMIT = 10_000_000  # nodes, when all functions are inlined
_INITIALIZERS_ALONE, _FUNCTIONS = 4, 8  # first IR versions: initializers that are not inputs; functions
_MENDABLE = ("topologically sorted", "is deprecated in domain_version")  # what the checker says
_NEWEST = {domain: newest for domain, (_, newest) in onnx.defs.C.schema_version_map().items()}

_FunctionKey = tuple[str, str, str]


def check_structure(model: ir.Model | onnx.ModelProto, label: str = "the model") -> None:
    """Check that ``model`` is well formed; large weights are neither copied nor read.

    Raises:
        ModelError: With one line: ``label``, what was found, what to do.
    """
    with utf8_expected(label):
        proto = skeleton_of(model).proto if isinstance(model, ir.Model) else model
        examine(proto, label)
        check_examined(proto, label)


def complaint_of_checker(model: ir.Model) -> str | None:
    """What ``onnx.checker`` says about ``model`` as it is, nothing mended; ``None`` if it accepts it."""
    return _complaint(skeleton_of(model).proto)


@contextlib.contextmanager
def utf8_expected(label: str) -> Iterator[None]:
    """Say in one line that a name or text of a model is not UTF-8: protobuf finds that out only when it is used."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ModelError(f"{label}: a name or text is not UTF-8, {error.object[:40]!r}; export it as UTF-8") from error


def examine(model: onnx.ModelProto, label: str) -> ProtoPlaces:
    """Check what the checker lets pass.

    Raises:
        ModelError: At the first finding.
    """
    _check_header(model, label)
    places = proto_places_of(model, label)
    for graph in places.graphs():
        _check_data(graph, label)
    for node, tensor in places.tensors:
        check_tensor(tensor, f"{label}: tensor of {described(node)}")
    for node, attribute in places.sparse:
        for sparse in (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else attribute.sparse_tensors:
            check_sparse(sparse, f"{label}: sparse tensor of {described(node)}")
    return places


def _check_header(model: onnx.ModelProto, label: str) -> None:
    if not model.HasField("graph"):
        raise ModelError(f"{label}: holds no graph, so it is no ONNX model; name the right file")
    if not 0 < model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{label}: has IR version {model.ir_version}, known are 1 to {onnx.IR_VERSION}; "
            f"{'install a newer onnx' if model.ir_version > 0 else 'export the model again'}"
        )
    _check_opsets(model.opset_import, label)
    for info in model.graph.input:
        if info.type.WhichOneof("value") is None:
            raise ModelError(f"{label}: input {info.name!r} has no type; export the model again")
    for function in model.functions:
        _check_opsets(function.opset_import, f"{label}: function {function.name!r}")
        defined = {*function.input, *(name for node in function.node for name in node.output)}
        if not defined.issuperset(function.output):
            raise ModelError(
                f"{label}: an output of function {function.name!r} is produced by no node; export it again"
            )


def _check_opsets(opsets: Iterable[onnx.OperatorSetIdProto], label: str) -> None:
    versions: dict[str, int] = {}
    for opset in opsets:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if versions.setdefault(domain, opset.version) != opset.version:
            raise ModelError(f"{label}: imports operator set {opset.domain!r} in two versions; remove one")
        newest = _NEWEST.get(domain, 2**31 - 1)
        if not 0 < opset.version <= newest:
            remedy = "install a newer onnx" if opset.version > newest else "correct it"
            raise ModelError(
                f"{label}: imports operator set {opset.domain!r} in version {opset.version}, "
                f"known are 1 to {newest}; {remedy}"
            )
    if not versions:
        raise ModelError(f"{label}: imports no operator set; add opset_import, or fetch the file again")


def _check_data(graph: onnx.GraphProto, label: str) -> None:
    for tensor in graph.initializer:
        check_tensor(tensor, f"{label}: initializer {tensor.name!r}")
    for sparse in graph.sparse_initializer:
        check_sparse(sparse, f"{label}: sparse initializer {sparse.values.name!r}")
    for info in (*graph.input, *graph.output, *graph.value_info):
        elem_type = info.type.tensor_type.elem_type
        if elem_type and elem_type not in KNOWN_TYPES:
            raise ModelError(
                f"{label}: value {info.name!r} has type number {elem_type}, which is unknown; install a newer onnx"
            )


def check_examined(model: onnx.ModelProto, label: str) -> None:
    """Let the checker look at a mended copy of ``model``, which ``examine`` has accepted.

    Raises:
        ModelError: With what it says.
    """
    try:
        lean = _without_weights(model)
    except DecodeError as error:  # only a model that was made in memory can be that deep
        raise ModelError(f"{label}: is nested deeper than protobuf's 100 levels; flatten its subgraphs") from error
    # 1. As it is. 2. If it complains of what ONNX Runtime does not mind, sorted. 3. Without deprecated operators
    _mend(lean, label)
    complaint = _complaint(lean)
    if complaint is not None and any(text in complaint for text in _MENDABLE):
        for graph in (lean.graph, *lean.functions):
            sort_nodes(graph, label)
        complaint = put_aside(lean) or _complaint(lean)
    if complaint is not None:
        raise ModelError(f"{label}: {explained(complaint)}")
    if lean.functions and _expanded_size(lean) > EXPANDED_LIMIT:
        raise ModelError(
            f"{label}: its functions call each other so often that they stand for more than {EXPANDED_LIMIT:,} nodes; "
            "export the model again"
        )


def _complaint(lean: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(lean.SerializeToString())
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return str(error) or type(error).__name__
    return None


def _mend(lean: onnx.ModelProto, label: str) -> None:
    """Give ``lean`` what the checker asks for and ONNX Runtime does not; see the module."""
    lean.ir_version = max(lean.ir_version, _FUNCTIONS if lean.functions else _INITIALIZERS_ALONE)
    for info in (*lean.graph.input, *lean.graph.output):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.shape.SetInParent()
    for info in lean.graph.output:
        if info.type.WhichOneof("value") is None or (
            info.type.HasField("tensor_type") and not info.type.tensor_type.elem_type
        ):
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            info.type.tensor_type.shape.SetInParent()
    places = proto_places_of(lean, label)
    for graph in places.graphs():
        graph.name = graph.name or "graph"
    for tensor in places.all_tensors():
        if is_external(tensor):  # in a subgraph or attribute: the checker would look for the file
            make_placeholder(tensor)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which placeholders stand for large initializers; ``value_info`` and annotations are not checked."""
    lean = onnx.ModelProto(ir_version=model.ir_version)
    lean.opset_import.extend(model.opset_import)
    lean.metadata_props.extend(model.metadata_props)
    lean.functions.extend(model.functions)
    graph, old = lean.graph, model.graph
    graph.name = old.name
    graph.node.extend(old.node)
    graph.input.extend(old.input)
    graph.output.extend(old.output)
    graph.sparse_initializer.extend(old.sparse_initializer)
    for tensor in old.initializer:
        if tensor.HasField("raw_data") and byte_count(tensor) > SMALL:
            make_placeholder(graph.initializer.add(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name))
        else:
            graph.initializer.append(tensor)
    return lean


def _expanded_size(model: onnx.ModelProto) -> int:
    """How many nodes ``model`` has when all functions are inlined; the checker has made sure that none is recursive."""
    functions = {(function.domain, function.name, function.overload): function.node for function in model.functions}
    sizes: dict[_FunctionKey, int] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(node_size(node) for node in nodes)

    def node_size(node: onnx.NodeProto) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key in functions and key not in sizes:
            sizes[key] = size(functions[key])
        inner = (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs))
        return sizes.get(key, 1) + sum(size(graph.node) for graph in inner)

    return size(model.graph.node)
