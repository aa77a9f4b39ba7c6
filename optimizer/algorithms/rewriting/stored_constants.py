"""Values that hold a tensor known before any run: initializers, and the outputs of Constant nodes.

Some must stay as they are (``KeepReason``): inputs, outputs, and tensors that the model names elsewhere. An output, or
a named one, may still stand for its equals; an input may not, since a caller may override it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.graph import constants, queries
from optimizer.io.protos import preserved
from optimizer.io.tensor_contents import equal_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from optimizer.graph.graph_tree import GraphTree


class KeepReason(enum.Enum):
    """Why a holder is not to be replaced by an equal one."""

    INPUT = "is a graph input, whose value a caller may override"
    OUTPUT = "is a graph output"
    NAMED = "is named by a quantization annotation or the training part"
    EXCLUDED = "is excluded by the options"

    @property
    def may_stand_for_equals(self) -> bool:
        """Whether others may be replaced by it nonetheless."""
        return self in {KeepReason.OUTPUT, KeepReason.NAMED}


@dataclass(frozen=True)
class StoredConstant:
    """A value that holds a tensor.

    Attributes:
        value: The initializer, or the output of the Constant node.
        tensor: What it holds.
        graph: The graph that it belongs to.
        stay: Why it may not be replaced, or ``None``.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    graph: ir.Graph
    keep_reason: KeepReason | None = None

    @property
    def name(self) -> str:
        """The name of the value."""
        return self.value.name or ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(self.tensor.shape.numpy())

    @property
    def is_initializer(self) -> bool:
        """Whether it is an initializer, and no Constant node."""
        return self.value.producer() is None


def stored_constants(tree: GraphTree, is_excluded: Callable[[ir.Value], bool]) -> list[StoredConstant]:
    """Every constant of the model, in its subgraphs and functions too, in the order of ``tree``."""
    named = frozenset(_named(tree))
    result = []
    for graph in tree.parents:
        for value in _constants(graph):
            tensor = value.const_value if value.is_initializer() else constants.constant_tensor(value)
            if tensor is not None and value.name:
                result.append(StoredConstant(value, tensor, graph, _stay(value, named, is_excluded)))
    return result


def _constants(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.initializers.values()
    for node in graph:
        if queries.is_standard(node, "Constant"):
            yield node.outputs[0]


def _stay(value: ir.Value, named: frozenset[str], is_excluded: Callable[[ir.Value], bool]) -> KeepReason | None:
    if value.is_graph_input():
        return KeepReason.INPUT
    if is_excluded(value):
        return KeepReason.EXCLUDED
    if value.is_graph_output():
        return KeepReason.OUTPUT
    return KeepReason.NAMED if value.name in named else None


def _named(tree: GraphTree) -> Iterator[str]:
    """Names that something else than a node refers to: quantization annotations, and the training part."""
    for graph in tree.parents:
        for value in [*graph.inputs, *_constants(graph), *(value for node in graph for value in node.outputs)]:
            if value.meta and (annotation := value.meta.get("quant_parameter_tensor_names")):
                yield from (name for name in (value.name, *annotation.values()) if name)
        if (kept := graph.meta.get(preserved.PRESERVED)) is not None:
            for _, lone in kept.extra_annotations:
                yield lone.tensor_name
                yield from (entry.value for entry in lone.quant_parameter_tensor_names)
        if (training := graph.meta.get(preserved.TRAINING)) is not None:
            yield from training.needs


def groups_of_equals(constants: Sequence[StoredConstant], tree: GraphTree) -> list[list[StoredConstant]]:
    """Groups of at least two holders of equal content that see a common graph; shapes may differ in a group."""
    groups: list[list[StoredConstant]] = []
    for indices in equal_groups([holder.tensor for holder in constants]):
        by_root: dict[ir.Graph, list[StoredConstant]] = {}
        for index in indices:
            by_root.setdefault(tree.root(constants[index].graph), []).append(constants[index])
        groups += [group for group in by_root.values() if len(group) > 1]
    return groups
