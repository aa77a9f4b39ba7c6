"""A third party's pass over ``gs.Graph``: Dropout does nothing when a model is not trained.

Dropout copies its input unless ``training_mode``, its third input from opset 12 on, is true. Before opset 12 (and 7)
inference has no such input. The mask output, if something reads it, keeps the node alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

import onnx_graphsurgeon as gs

from optimizer import Gain, SurgeonPass, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from optimizer import Context


@dataclass(frozen=True)
class EliminateDropout(SurgeonPass):
    """Remove Dropout nodes that only copy.

    Attributes:
        exclude: Name globs of nodes to leave alone.
    """

    name: ClassVar[str] = "eliminate-dropout"
    summary: ClassVar[str] = "remove Dropout nodes that only copy their input"
    gain: ClassVar[Gain] = Gain.SIZE

    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if "" in self.exclude:
            raise UsageError("exclude= has an empty pattern: give name globs")

    def edit(self, graph: gs.Graph, context: Context) -> Mapping[str, int]:
        """Remove them from the main graph, from all subgraphs and from all functions."""
        return {"nodes removed": sum(self._edit_one(scope, context) for scope in _scopes(graph))}

    def _edit_one(self, graph: gs.Graph, context: Context) -> int:
        doomed = [node for node in graph.nodes if self._is_copy(node, graph) and _may(node, context)]
        for node in doomed:
            _bypass(node.outputs[0], node.inputs[0])
        gone = {id(node) for node in doomed}
        graph.nodes = [node for node in graph.nodes if id(node) not in gone]
        return len(doomed)

    def _is_copy(self, node: gs.Node, graph: gs.Graph) -> bool:
        if node.op != "Dropout" or node.domain or any(fnmatchcase(node.name, pattern) for pattern in self.exclude):
            return False
        outputs = {id(tensor) for tensor in graph.outputs}
        mask_is_read = any(tensor.outputs or id(tensor) in outputs for tensor in node.outputs[1:])
        return id(node.outputs[0]) not in outputs and not mask_is_read and not _may_train(node)


def _may(node: gs.Node, context: Context) -> bool:
    return context.sites.permits("eliminate-dropout", f"Dropout -> {node.outputs[0].name}")


def _may_train(node: gs.Node) -> bool:
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return not node.attrs.get("is_test", 1)  # opset 1 and 6 train unless told otherwise
    mode = node.inputs[2]
    return not isinstance(mode, gs.Constant) or bool(mode.values.any())


def _bypass(output: gs.Tensor, source: gs.Tensor) -> None:
    for reader in list(output.outputs):
        for index, tensor in enumerate(list(reader.inputs)):
            if tensor is output:
                reader.inputs[index] = source


def _scopes(graph: gs.Graph) -> Iterator[gs.Graph]:
    for root in (graph, *graph.functions):
        yield root
        yield from root.subgraphs(recursive=True)
