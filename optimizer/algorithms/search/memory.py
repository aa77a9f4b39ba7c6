"""A digest of a model's nodes and weights, under which the evaluator's memory keeps what was found out about it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def digest(model: ir.Model) -> str:
    """A digest of the nodes and of all weights."""
    state = hashlib.blake2b()
    for node in model.graph:
        state.update(f"{node.op_type}{[value.name for value in (*node.inputs, *node.outputs) if value]}".encode())
    for name, value in model.graph.initializers.items():
        state.update(name.encode())
        if value.const_value is not None:
            state.update(value.const_value.tobytes())
    return state.hexdigest()
