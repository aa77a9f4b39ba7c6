"""Which nodes a pass may touch: patterns that name nodes, values or operators.

``op:MatMul`` stands for an operator, everything else for a name: that of the node, of an output, or of a constant that
the node reads. Both are globs, in which case counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, TypeAlias

from optimizer.contract.options import Only
from optimizer.graph import traversal
from optimizer.graph.constants import constant_tensor

if TYPE_CHECKING:
    import onnx_ir as ir

_OPERATOR = "op:"

NodePattern: TypeAlias = Annotated[
    str, Only("that is a name glob or op:TYPE", lambda pattern: pattern not in {"", _OPERATOR})
]


@dataclass(frozen=True)
class NodeFilter:
    """Nodes by pattern.

    Attributes:
        include: Patterns, one of which a node has to match; none: every node does.
        exclude: Patterns, none of which it may match.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def matches(self, node: ir.Node, *names: str | None) -> bool:
        """Whether ``node`` is chosen; ``names`` are further names that it goes by."""
        known = [*_names(node), *(name for name in names if name)]
        if self.include and not any(_matches(pattern, node, known) for pattern in self.include):
            return False
        return not any(_matches(pattern, node, known) for pattern in self.exclude)

    def unmatched(self, model: ir.Model) -> list[str]:
        """The patterns that match no node of ``model``, in subgraphs and functions too."""
        left = dict.fromkeys((*self.include, *self.exclude))
        if not left:
            return []
        for node in traversal.nodes(model):
            names = _names(node)
            for pattern in [pattern for pattern in left if _matches(pattern, node, names)]:
                del left[pattern]
        return list(left)


@dataclass(frozen=True, kw_only=True)
class NodeFilterOptions:
    """The options of a pass that can be kept to some nodes: ``class MyPass(NodeFilterOptions, Pass)``.

    Attributes:
        include: Only these nodes, or the weights of these: globs of names of nodes, outputs or weights, or ``op:Conv``;
            empty: all.
        exclude: Never these.
    """

    include: tuple[NodePattern, ...] = ()
    exclude: tuple[NodePattern, ...] = ()

    @property
    def node_filter(self) -> NodeFilter:
        """The nodes that the options choose."""
        return NodeFilter(self.include, self.exclude)


def _names(node: ir.Node) -> list[str]:
    constants = (value for value in node.inputs if value is not None and constant_tensor(value) is not None)
    found = [node.name, *(value.name for value in node.outputs), *(value.name for value in constants)]
    return [name for name in found if name]


def _matches(pattern: str, node: ir.Node, names: list[str]) -> bool:
    if pattern.startswith(_OPERATOR):
        return fnmatchcase(node.op_type, pattern.removeprefix(_OPERATOR))
    return any(fnmatchcase(name, pattern) for name in names)
