"""One walk over a ``ModelProto``: its graphs, and what its attributes hold apart from numbers and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnx import AttributeProto

from optimizer.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from optimizer.io.protos.ir_places import ScopeProto

_PLAIN = frozenset(
    {AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.FLOATS, AttributeProto.INTS}
)


@dataclass
class ProtoPlaces:
    """What one walk over a model finds.

    Attributes:
        scopes: The main graph, the functions, then all subgraphs; numbered as in ``optimizer.io.protos.ir_places``.
        tensors: Tensors in attributes.
        sparse: Attributes that hold sparse tensors.
        types: Attributes that hold types.
    """

    scopes: list[ScopeProto]
    tensors: list[tuple[onnx.NodeProto, onnx.TensorProto]] = field(default_factory=list)
    sparse: list[tuple[onnx.NodeProto, onnx.AttributeProto]] = field(default_factory=list)
    types: list[tuple[onnx.NodeProto, onnx.AttributeProto]] = field(default_factory=list)

    def all_tensors(self) -> Iterator[onnx.TensorProto]:
        """Initializers of all graphs, then tensors in attributes; no sparse ones."""
        for graph in self.graphs():
            yield from graph.initializer
        for _, tensor in self.tensors:
            yield tensor

    def graphs(self) -> list[onnx.GraphProto]:
        """The scopes that are not functions."""
        return [graph for graph in self.scopes if not hasattr(graph, "opset_import")]


def proto_places_of(model: onnx.ModelProto, label: str) -> ProtoPlaces:
    """Walk over all nodes of ``model`` once, without recursion.

    Raises:
        ModelError: At a node without an operator, or text that is not UTF-8.
    """
    places = ProtoPlaces([model.graph, *model.functions])
    for graph in places.scopes:  # grows while it is walked over
        for node in graph.node:
            if not node.op_type:
                raise ModelError(f"{label}: node {node.name!r} has no operator; the file is damaged, fetch it again")
            for attribute in node.attribute:
                if attribute.type not in _PLAIN and not attribute.ref_attr_name:
                    _look_at(places, node, attribute, label)
    return places


def _look_at(places: ProtoPlaces, node: onnx.NodeProto, attribute: onnx.AttributeProto, label: str) -> None:
    match attribute.type:
        case AttributeProto.GRAPH:
            places.scopes.append(attribute.g)
        case AttributeProto.GRAPHS:
            places.scopes.extend(attribute.graphs)
        case AttributeProto.TENSOR:
            places.tensors.append((node, attribute.t))
        case AttributeProto.TENSORS:
            places.tensors.extend((node, tensor) for tensor in attribute.tensors)
        case AttributeProto.SPARSE_TENSOR | AttributeProto.SPARSE_TENSORS:
            places.sparse.append((node, attribute))
        case AttributeProto.TYPE_PROTO | AttributeProto.TYPE_PROTOS:
            places.types.append((node, attribute))
        case AttributeProto.STRINGS:
            for text in attribute.strings:
                _decode(text, f"{label}: attribute {attribute.name!r} of {described(node)}")


def _decode(text: bytes, where: str) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} holds text that is not UTF-8 ({text[:20]!r}); export it as UTF-8") from error


def described(node: onnx.NodeProto) -> str:
    """A node by its name, or by its first output."""
    name = node.name or next((output for output in node.output if output), "")
    return f"node {name!r} ({node.op_type})"
