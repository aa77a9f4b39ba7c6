"""Replace a node by several, so that nothing that hangs on it or on its outputs is lost.

The node itself becomes the one of the new nodes that does its work, and stays between the others: with its name, doc
string, metadata, and with its outputs and all that is known of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.graph import constants, editing
from optimizer.graph.names import NameGenerator, names_in_use

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from onnx.defs import OpSchema


@dataclass
class Splicer:
    """Puts protos of graphs in the place of nodes of one model, whose constants it shares.

    Attributes:
        version: Of the standard operator set that new nodes are of.
        holds_initializers: Whether constants may become initializers; Constant nodes else.
        names: Those that are taken.
    """

    version: int
    holds_initializers: bool
    names: NameGenerator
    _constants: dict[Hashable, ir.Value] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model, version: int) -> Splicer:
        """A splicer for ``model``."""
        return cls(version, model.ir_version >= 4, NameGenerator(names_in_use(model)))

    def splice(self, node: ir.Node, converted: onnx.GraphProto) -> None:
        """Put ``converted`` in the place of ``node``; its inputs are ``i0``, ``i1`` …, its outputs ``o0`` and so on."""
        # 1. Constants
        main_node = _main_node(converted, node)
        values: dict[str, ir.Value | None] = {f"i{number}": value for number, value in enumerate(node.inputs)} | {
            "": None
        }
        hints = _hints(converted, self.version)
        for tensor in _constants(converted):
            values[tensor.name] = self._constant(node, tensor, hints.get(tensor.name) or tensor.name)
        # 2. Nodes in front, 3. the node itself, 4. nodes behind
        new_nodes = [proto for proto in converted.node if proto.op_type != "Constant"]
        position = new_nodes.index(main_node)
        for proto in new_nodes[:position]:
            node.prepend(self._node(node, proto, values))
        self._become(node, main_node, values)
        if position + 1 < len(new_nodes):
            self._append(node, main_node, new_nodes[position + 1 :], values)

    def _become(self, node: ir.Node, main_node: onnx.NodeProto, values: dict[str, ir.Value | None]) -> None:
        """Turn ``node`` into ``main_node``; attributes that stay equal are left as they are."""
        inputs = [values[name] for name in main_node.input]
        for index in range(len(inputs), len(node.inputs)):
            node.replace_input_with(index, None)
        node.resize_inputs(len(inputs))
        editing.set_inputs(node, inputs)
        node.op_type = main_node.op_type
        attributes = {proto.name: ir.serde.deserialize_attribute(proto) for proto in main_node.attribute}
        for name in list(node.attributes):
            if name not in attributes:
                del node.attributes[name]
        for name, attribute in attributes.items():
            old = node.attributes.get(name)
            if old is None or _serialized(old) != _serialized(attribute):
                node.attributes[name] = attribute

    def _append(
        self,
        node: ir.Node,
        main_node: onnx.NodeProto,
        nodes_behind: Sequence[onnx.NodeProto],
        values: dict[str, ir.Value | None],
    ) -> None:
        """Add nodes behind ``node``; their outputs take the place of its own where ``converted`` says so."""
        users = {output: tuple(output.uses()) for output in node.outputs}
        values |= dict(zip(main_node.output, node.outputs, strict=True))
        previous = node
        for proto in nodes_behind:
            new_node = self._node(node, proto, values)
            previous.append(new_node)
            previous = new_node
        for number, output in enumerate(node.outputs):
            successor = values.get(f"o{number}")
            if successor is not None and successor is not output:
                editing.replace_under_its_name(successor, output, users[output])
                output.type, output.shape = None, None  # they were those of its successor

    def _node(self, original: ir.Node, proto: onnx.NodeProto, values: dict[str, ir.Value | None]) -> ir.Node:
        attributes = [ir.serde.deserialize_attribute(attribute) for attribute in proto.attribute]
        name = self.names.fresh(f"{original.name}_{proto.op_type}") if original.name else None
        inputs = [values[input_name] for input_name in proto.input]
        new_node = ir.Node("", proto.op_type, inputs, attributes, num_outputs=len(proto.output), name=name)
        for value, output_name in zip(new_node.outputs, proto.output, strict=True):
            value.name = self.names.fresh(f"{original.outputs[0].name}_{proto.op_type}")
            values[output_name] = value
        return new_node

    def _constant(self, node: ir.Node, proto: onnx.TensorProto, hint: str) -> ir.Value:
        tensor = ir.serde.deserialize_tensor(proto)
        graph = node.graph
        assert graph is not None, "a node of a model is in a graph"  # noqa: S101 - for the type checker
        key = (id(graph), tensor.dtype, tensor.shape.numpy(), tensor.tobytes())
        if self.holds_initializers and key in self._constants:
            return self._constants[key]
        name = self.names.fresh(hint)
        named = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
        if self.holds_initializers:
            self._constants[key] = constants.add_initializer(graph, name, named)
            return self._constants[key]
        constant = ir.node("Constant", [], {"value": named}, name=self.names.fresh(f"Constant_{name}"))
        constant.outputs[0].name = name
        node.prepend(constant)
        return constant.outputs[0]


def _main_node(converted: onnx.GraphProto, node: ir.Node) -> onnx.NodeProto:
    """The one of the new nodes that does what ``node`` did: of its operator, else the producer of its first output."""
    same_operator = [proto for proto in converted.node if proto.op_type == node.op_type]
    main_node: onnx.NodeProto = (same_operator or [proto for proto in converted.node if "o0" in proto.output])[-1]
    return main_node


def _constants(converted: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and Constant nodes of ``converted`` as tensors named after their values."""
    yield from converted.initializer
    for node in converted.node:
        if node.op_type == "Constant":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            yield tensor


def _hints(converted: onnx.GraphProto, version: int) -> dict[str, str]:
    """What the operators that read the values of ``converted`` call these inputs."""
    hints: dict[str, str] = {}
    for node in converted.node:
        schema: OpSchema = onnx.defs.get_schema(node.op_type, version, "")
        hints.update({name: slot.name for name, slot in zip(node.input, schema.inputs, strict=False)})
    return hints


def _serialized(attribute: ir.Attr) -> bytes:
    proto = ir.serde.serialize_attribute(attribute)
    proto.ClearField("doc_string")
    written: bytes = proto.SerializeToString(deterministic=True)
    return written
