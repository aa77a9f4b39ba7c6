"""Split at any operator set.

The sizes are an attribute before opset 13 and an input from there on. They are left out where all parts are equal,
which costs fewer bytes; from opset 18 on the number of parts is said instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIZES_ARE_INPUT, _PARTS_ARE_COUNTED = 13, 18


def split(source: ir.Value, sizes: Sequence[int], axis: int, opset: int) -> tuple[ir.Node, bool]:
    """A Split of ``source`` into ``sizes`` along ``axis``, in no graph yet.

    Returns:
        The node, and whether it has still to be given the sizes as its second input.
    """
    attributes: dict[str, int | Sequence[int]] = {"axis": axis} if axis else {}
    is_even = len(set(sizes)) == 1
    if is_even and opset >= _PARTS_ARE_COUNTED:
        attributes["num_outputs"] = len(sizes)
    elif not is_even and opset < _SIZES_ARE_INPUT:
        attributes["split"] = list(sizes)
    node = ir.node("Split", [source], attributes, num_outputs=len(sizes), name="")
    return node, not is_even and opset >= _SIZES_ARE_INPUT


def give_input(node: ir.Node, value: ir.Value) -> None:
    """Add ``value`` behind the inputs of ``node``."""
    count = len(node.inputs)
    node.resize_inputs(count + 1)
    node.replace_input_with(count, value)
