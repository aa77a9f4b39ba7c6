"""What a file no longer holds once a node is gone: the node, and all that was there for it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer import graph
from optimizer.graph import file_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

MAX_READERS = 32  # values with more readers count as read by others
MAX_NODES = 64


def freed_bytes(nodes: Iterable[ir.Node]) -> int:
    """How many bytes go with ``nodes``, whose outputs nobody will read; at least."""
    gone, constants = _freed(nodes)
    tensors = [(value.const_value, value.name) for value in constants]
    return sum(map(file_size.node_bytes, gone)) + sum(
        file_size.tensor_bytes(tensor, name) for tensor, name in tensors if tensor is not None
    )


def freed_nodes(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """``nodes`` and what is there for them alone; at least."""
    return _freed(nodes)[0]


def _freed(nodes: Iterable[ir.Node]) -> tuple[list[ir.Node], list[ir.Value]]:
    gone: dict[ir.Node, None] = dict.fromkeys(nodes)
    constants: dict[ir.Value, None] = {}
    waiting = list(gone)
    while waiting:
        for value in waiting.pop().inputs:
            if value is None or value in constants or not _is_only_read_by(value, gone):
                continue
            producer = value.producer()
            if producer is None:
                if value.is_initializer():
                    constants[value] = None
            elif producer not in gone and len(gone) < MAX_NODES and _is_unread(producer, gone):
                gone[producer] = None
                waiting.append(producer)
    return list(gone), list(constants)


def _is_unread(node: ir.Node, gone: dict[ir.Node, None]) -> bool:
    return all(_is_only_read_by(output, gone) for output in node.outputs)


def _is_only_read_by(value: ir.Value, gone: dict[ir.Node, None]) -> bool:
    if value.is_graph_output() or value.is_graph_input() or graph.use_count(value) > MAX_READERS:
        return False
    return all(use.node in gone for use in value.uses())
