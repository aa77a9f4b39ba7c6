"""The conversion of a model of one node by ``onnx.version_converter``, and how it is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from optimizer.errors import PreconditionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir


@dataclass
class Conversion:
    """From one version of the standard operator set to a newer one.

    Attributes:
        source: The version that the nodes are of.
        target: The version that they become.
        declared: Shapes that the model says values have, which count where they carry no inferred one.
    """

    source: int
    target: int
    declared: Mapping[ir.Value, ir.Shape] = field(default_factory=dict)

    def crosses(self, version: int) -> bool:
        """Whether ``version`` is the target or on the way to it."""
        return self.source < version <= self.target

    def shape_of(self, value: ir.Value) -> ir.Shape | None:
        """The shape of ``value`` as far as it is known."""
        return value.shape if value.shape is not None else self.declared.get(value)

    def by_library(self, single: onnx.ModelProto) -> onnx.GraphProto:
        """What ``onnx.version_converter`` makes of the model of a single node."""
        try:
            return onnx.version_converter.convert_version(single, self.target).graph
        except (RuntimeError, ValueError, IndexError, onnx.version_converter.ConvertError) as error:
            reason = str(error).rpartition("failed: ")[2]
            raise PreconditionError(self._refusal(single.graph.node[0], reason)) from error

    def refuse(self, node: ir.Node, reason: str) -> PreconditionError:
        """The error that says why ``node`` cannot be converted."""
        return PreconditionError(self._refusal(node, reason))

    def _refusal(self, node: ir.Node | onnx.NodeProto, reason: str) -> str:
        name = f" {node.name!r}" if node.name else ""
        return f"{node.op_type}{name} cannot be converted from opset {self.source} to {self.target}: {reason}"
