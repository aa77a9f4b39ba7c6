"""Values that hold a tensor known before any run: initializers, and the outputs of Constant nodes.

Some must stay as they are (``Stay``): inputs, outputs, and tensors that the model names elsewhere. An output, or a
named one, may still stand for its equals; an input may not, since a caller may override it.
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

    from optimizer.graph.scopes import ScopeTree


class Stay(enum.Enum):
    """Why a holder is not to be replaced by an equal one."""

    INPUT = "is a graph input, whose value a caller may override"
    OUTPUT = "is a graph output"
    NAMED = "is named by a quantization annotation or the training part"
    EXCLUDED = "is excluded by the options"

    @property
    def lends(self) -> bool:
        """Whether others may be replaced by it nonetheless."""
        return self in {Stay.OUTPUT, Stay.NAMED}


@dataclass(frozen=True)
class Holder:
    """A value that holds a tensor.

    Attributes:
        value: The initializer, or the output of the Constant node.
        tensor: What it holds.
        scope: The graph that it belongs to.
        stay: Why it may not be replaced, or ``None``.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    scope: ir.Graph
    stay: Stay | None = None

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


def holders(tree: ScopeTree, is_excluded: Callable[[ir.Value], bool]) -> list[Holder]:
    """Every constant of the model, in its subgraphs and functions too, in the order of ``tree``."""
    named = frozenset(_named(tree))
    found = []
    for scope in tree.parents:
        for value in _constants(scope):
            tensor = value.const_value if value.is_initializer() else constants.constant_tensor(value)
            if tensor is not None and value.name:
                found.append(Holder(value, tensor, scope, _stay(value, named, is_excluded)))
    return found


def _constants(scope: ir.Graph) -> Iterator[ir.Value]:
    yield from scope.initializers.values()
    for node in scope:
        if queries.is_standard(node, "Constant"):
            yield node.outputs[0]


def _stay(value: ir.Value, named: frozenset[str], is_excluded: Callable[[ir.Value], bool]) -> Stay | None:
    if value.is_graph_input():
        return Stay.INPUT
    if is_excluded(value):
        return Stay.EXCLUDED
    if value.is_graph_output():
        return Stay.OUTPUT
    return Stay.NAMED if value.name in named else None


def _named(tree: ScopeTree) -> Iterator[str]:
    """Names that something else than a node refers to: quantization annotations, and the training part."""
    for scope in tree.parents:
        for value in [*scope.inputs, *_constants(scope), *(value for node in scope for value in node.outputs)]:
            if value.meta and (annotation := value.meta.get("quant_parameter_tensor_names")):
                yield from (name for name in (value.name, *annotation.values()) if name)
        if (kept := scope.meta.get(preserved.KEPT)) is not None:
            for _, lone in kept.extra_annotations:
                yield lone.tensor_name
                yield from (entry.value for entry in lone.quant_parameter_tensor_names)
        if (training := scope.meta.get(preserved.TRAINING)) is not None:
            yield from training.needs


def equal_holders(found: Sequence[Holder], tree: ScopeTree) -> list[list[Holder]]:
    """Groups of at least two holders of equal content that see a common graph; shapes may differ in a group."""
    groups: list[list[Holder]] = []
    for indices in equal_groups([holder.tensor for holder in found]):
        by_root: dict[ir.Graph, list[Holder]] = {}
        for index in indices:
            by_root.setdefault(tree.root(found[index].scope), []).append(found[index])
        groups += [group for group in by_root.values() if len(group) > 1]
    return groups
