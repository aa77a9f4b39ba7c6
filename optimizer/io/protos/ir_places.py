"""Where a model's graphs and tensors are, as paths that hold in onnx-ir and in the proto alike.

A scope is a graph that holds nodes: the main graph, the functions, and every subgraph in an attribute. The scopes of
an ``ir.Model`` and of the ``ModelProto`` that it came from, or is written to, are numbered in the same way, since
both keep nodes and attributes in order. So what one of them says is found in the other without a search.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import onnx_ir as ir

from optimizer.graph import traversal

if TYPE_CHECKING:
    import onnx

ScopeProto: TypeAlias = "onnx.GraphProto | onnx.FunctionProto"

_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
_LISTS = frozenset({ir.AttributeType.GRAPHS, ir.AttributeType.TENSORS})
_HELD = _GRAPHS | _LISTS | {ir.AttributeType.TENSOR}


class IrPlace(NamedTuple):
    """A graph or tensor in an attribute: the numbers of its scope, node, attribute, and list element (-1: no list)."""

    scope: int
    node: int
    attribute: int
    element: int


@dataclass
class IrPlaces:
    """What one walk over a model finds.

    Attributes:
        scopes: The main graph, the functions' graphs, then all subgraphs.
        subgraphs: Where each of the subgraphs is.
        tensors: The tensors in attributes, with their nodes and the attributes' names.
        open_ended: Scope, number and output count of the nodes whose last output has no name.
    """

    scopes: list[ir.Graph]
    subgraphs: list[IrPlace] = field(default_factory=list)
    tensors: list[tuple[IrPlace, ir.Node, str, ir.TensorProtocol]] = field(default_factory=list)
    open_ended: list[tuple[int, int, int]] = field(default_factory=list)

    def protos(self, model: onnx.ModelProto) -> list[ScopeProto]:
        """The scopes in the proto of the same model, in the same order."""
        scopes: list[ScopeProto] = [model.graph, *model.functions]
        for place in self.subgraphs:
            attribute = scopes[place.scope].node[place.node].attribute[place.attribute]
            scopes.append(attribute.g if place.element < 0 else attribute.graphs[place.element])
        return scopes


def ir_places_of(model: ir.Model) -> IrPlaces:
    """Walk over all nodes of ``model`` once."""
    places = IrPlaces(traversal.roots(model))
    for number, scope in enumerate(places.scopes):  # grows while it is walked over
        for position, node in enumerate(scope):
            if node.outputs and not node.outputs[-1].name:
                places.open_ended.append((number, position, len(node.outputs)))
            if node.attributes:
                _look_at_attributes(places, number, position, node)
    return places


def _look_at_attributes(places: IrPlaces, scope: int, position: int, node: ir.Node) -> None:
    for index, (name, attribute) in enumerate(node.attributes.data.items()):
        if attribute.type not in _HELD or attribute.is_ref():
            continue
        elements = enumerate(attribute.value) if attribute.type in _LISTS else [(-1, attribute.value)]
        for element, value in elements:
            place = IrPlace(scope, position, index, element)
            if attribute.type in _GRAPHS:
                places.subgraphs.append(place)
                places.scopes.append(value)
            else:
                places.tensors.append((place, node, name, value))


def tensor_proto(scopes: list[ScopeProto], place: IrPlace) -> onnx.TensorProto:
    """The tensor at ``place``."""
    attribute: onnx.AttributeProto = scopes[place.scope].node[place.node].attribute[place.attribute]
    return attribute.t if place.element < 0 else attribute.tensors[place.element]


def replace_tensor(node: ir.Node, name: str, element: int, tensor: ir.TensorProtocol) -> None:
    """Put ``tensor`` into the attribute ``name`` of ``node``, into its list if ``element`` is not negative."""
    old = node.attributes[name]
    value = tensor if element < 0 else [*old.value[:element], tensor, *old.value[element + 1 :]]
    node.attributes[name] = ir.Attr(name, old.type, value, doc_string=old.doc_string)
