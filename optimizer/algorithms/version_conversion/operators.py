"""One node in a newer version of the standard operator set: what ``onnx.version_converter`` makes of it, corrected.

The converter is given a model of a single node, so that nothing else of the model passes through it: it drops metadata,
doc strings, annotations, domains and names. The node's inputs are ``i0``, ``i1`` …, its outputs ``o0``, ``o1`` …

Where it is known to be wrong, ``optimizer.algorithms.version_conversion.fixes`` corrects it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from optimizer.algorithms.version_conversion.fixes import CHECKS, RULES
from optimizer.algorithms.version_conversion.single_node import Conversion
from optimizer.errors import PreconditionError
from optimizer.graph import queries

_ONLY_MORE_TYPES = frozenset({"Constant", "If", "Loop", "SequenceMap"})  # all that new versions of them brought
_KEEP_SHAPE = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_FIRST_SCAN_WITHOUT_BATCH = 9
_FIRST_BY_RANK = 7  # before it, operators were told which axes to broadcast


@dataclass
class Upgrade(Conversion):
    """Converts nodes from one version of the standard operator set to a newer one; equal nodes once."""

    _conversions: dict[bytes, onnx.GraphProto] = field(default_factory=dict)

    def concerns(self, node: ir.Node) -> bool:
        """Whether the operator of ``node`` has another definition in the target version."""
        if not queries.is_standard(node) or node.op_type in _ONLY_MORE_TYPES:
            return False
        before, after = (since(node.op_type, version) for version in (self.source, self.target))
        return before is not None and before != after

    def convert(self, node: ir.Node) -> onnx.GraphProto | None:
        """What ``node`` becomes in the target version; ``None`` if it may stay as it is.

        Raises:
            PreconditionError: If the node cannot be converted.
        """
        if not self.concerns(node):
            return None
        if node.op_type == "Scan":
            if self.source < _FIRST_SCAN_WITHOUT_BATCH:
                raise PreconditionError(self._refusal(node, "it has a batch dimension of its own before opset 9"))
            return None
        if queries.has_references(node):
            raise PreconditionError(self._refusal(node, "attributes of it are those of a function's call"))
        check = CHECKS.get(node.op_type)
        if check is not None:
            check(node, self)
        single = self._single(node)
        converted = self._converted(node, single)
        return None if _is_same(converted, single.graph) else converted

    def _converted(self, node: ir.Node, single: onnx.ModelProto) -> onnx.GraphProto:
        rule = RULES.get(node.op_type)
        if rule is not None and self.crosses(rule[0]):
            return rule[1](node, single, self)
        key = single.SerializeToString(deterministic=True)
        if key not in self._conversions:
            self._conversions[key] = self.by_library(single)
        return self._conversions[key]

    def _single(self, node: ir.Node) -> onnx.ModelProto:
        model = onnx.ModelProto(ir_version=8)
        model.opset_import.add(domain="", version=self.source)
        model.graph.name = "single"
        proto = model.graph.node.add(op_type=node.op_type)
        for number, value in enumerate(node.inputs):
            proto.input.append("" if value is None else f"i{number}")
            if value is not None:
                shape = self.shape_of(value)
                if shape is None and node.op_type in _KEEP_SHAPE:
                    shape = self.shape_of(node.outputs[0])
                self._describe(model.graph.input.add(name=f"i{number}"), value.type, shape)
        for number, value in enumerate(node.outputs):
            proto.output.append(f"o{number}" if value.name else "")
            if value.name:
                self._describe(model.graph.output.add(name=f"o{number}"), value.type, self.shape_of(value))
        for attribute in node.attributes.values():
            ir.serde.serialize_attribute_into(proto.attribute.add(), attribute)
        return model

    def _describe(self, info: onnx.ValueInfoProto, value_type: ir.TypeProtocol | None, shape: ir.Shape | None) -> None:
        value_type = value_type or ir.TensorType(
            ir.DataType.FLOAT
        )  # the library wants one; what depends on it is checked before
        ir.serde.serialize_type_into(info.type, value_type)
        if shape is not None:  # from opset 7 on the rank is enough, so that many nodes are one case
            dims = shape if self.source < _FIRST_BY_RANK else [None] * len(shape)
            ir.serde.serialize_shape_into(info.type, ir.Shape(dims))


@functools.cache
def since(op_type: str, version: int) -> int | None:
    """The version in which the standard operator got the definition that it has in ``version``; ``None`` if none."""
    try:
        version_of_definition: int = onnx.defs.get_schema(op_type, version, "").since_version
    except onnx.defs.SchemaError:
        return None
    return version_of_definition


def _is_same(converted: onnx.GraphProto, single: onnx.GraphProto) -> bool:
    if len(converted.node) != 1 or converted.initializer:
        return False
    new, old = converted.node[0], single.node[0]
    if (new.op_type, list(new.input), list(new.output)) != (old.op_type, list(old.input), list(old.output)):
        return False
    attributes = (
        {attribute.name: attribute.SerializeToString(deterministic=True) for attribute in node.attribute}
        for node in (new, old)
    )
    return next(attributes) == next(attributes)
