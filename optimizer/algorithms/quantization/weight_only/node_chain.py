"""Nodes that make a weight from something smaller, in its place: ONNX Runtime folds them when it loads the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from optimizer.algorithms.rewriting.rewriter import Rewriter, owner
from optimizer.graph import editing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.quantization.weight_only.weights import StoredWeight


@dataclass
class NodeChain:
    """Adds nodes before ``anchor``, named after ``name``."""

    rewriter: Rewriter
    anchor: ir.Node
    name: str

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        keep: ir.Node | None = None,
    ) -> ir.Value:
        """The output of a new node; with ``keep`` it goes by the name of that one."""
        label = self.rewriter.names.fresh(f"{self.name}_{op_type}") if keep is None else keep.name
        node = ir.node(op_type, inputs, attributes, name=label)
        if keep is not None:
            node.metadata_props.update(keep.metadata_props)
        node.outputs[0].name = self.rewriter.names.fresh(f"{self.name}_{op_type}_output")
        owner(self.anchor).insert_before(self.anchor, node)
        return node.outputs[0]


def anchor(rewriter: Rewriter, weight: StoredWeight) -> ir.Node:
    """The node before which all readers of ``weight`` see what is inserted."""
    producer = weight.holder.value.producer()
    if rewriter.may_lift(weight.nodes[0]):
        return rewriter.model.graph[0]
    return weight.holder.graph[0] if producer is None else producer


def stand_in(weight: StoredWeight, result: ir.Value) -> None:
    """Let all readers of ``weight`` read ``result`` under its name, and take the weight out of the model."""
    root = weight.holder.value
    producer, graph = root.producer(), root.graph
    if producer is None and graph is not None and root.name:
        del graph.initializers[root.name]
        root.const_value = None  # a clone of the model may hold the same tensor, which is renamed with its value
    editing.replace_under_its_name(result, root)
    result.type, result.shape = ir.TensorType(weight.holder.tensor.dtype), ir.Shape(weight.holder.shape)
    if producer is not None:
        editing.remove_unused([producer])
