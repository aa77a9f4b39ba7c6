"""Nodes and values that take the place of others, with all that hangs on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer import graph

if TYPE_CHECKING:
    from collections.abc import Sequence


def like(node: ir.Node, inputs: Sequence[ir.Value | None], output: str) -> ir.Node:
    """A node, in no graph yet, that does to ``inputs`` what ``node`` does to its own; it makes one ``output``."""
    made = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes.values(),
        name=node.name or "",  # else one is made up
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    made.outputs[0].name = output
    return made


def take_place(new: ir.Value, old: ir.Value) -> None:
    """Let ``new``, which a node of the same graph makes, be read and given out instead of ``old``, under its name."""
    name, node = old.name, old.producer()
    if node is None:
        raise ValueError(f"{name} is made by no node")
    new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)
    graph.bypass(node, new, old)
    old.name = None
    new.name = name
