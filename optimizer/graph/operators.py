"""What operators are, by their attributes and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def has_one_output(node: ir.Node) -> bool:
    """Whether only the first output of a node exists."""
    return len(node.outputs) == 1 or all(not output.name for output in node.outputs[1:])


def is_nearest(node: ir.Node) -> bool:
    """Whether a Resize takes the nearest element."""
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "nearest"
