"""Operators that act on each element of a batch alone: on every slice along axis 0 of what they read, and in order.

Each rule looks at a node of which some inputs are batches (``moving``), all of one rank and one length along axis 0,
while the others are the same for all of the batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optimizer.graph import constants, queries
from optimizer.graph.operators import Trait, broadcasts, having
from optimizer.graph.permutations import axes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import onnx_ir as ir

_BROADCASTING, _REDUCING = having(Trait.BROADCASTING), having(Trait.REDUCING)
_ONE_MOVES = having(Trait.BATCH_INDEPENDENT) - _BROADCASTING
_SOFTMAX_CHANGED, _PADS_ARE_INPUT = 13, 11


def acts_alone(node: ir.Node, moving: Collection[int], opset: int) -> bool:
    """Whether ``node`` acts on each element of a batch alone and gives out a batch.

    Args:
        node: A node without subgraphs; what is not known of it counts against it.
        moving: The positions of its inputs that are batches.
        opset: The version of the standard operator set.
    """
    ranks = {queries.rank(node.inputs[position]) for position in moving}
    rank = next(iter(ranks)) if len(ranks) == 1 else None
    if not queries.is_standard(node) or queries.has_references(node) or len(node.outputs) != 1 or not rank:
        return False
    if node.op_type in _BROADCASTING:
        return broadcasts(node.op_type, opset) and all(
            i in moving or _is_same_for_all(value, rank) for i, value in enumerate(node.inputs)
        )
    if node.op_type == "Concat":
        return len(moving) == len(node.inputs) and node.attributes.get_int("axis", 0) % rank > 0
    if set(moving) != {0}:
        return False
    if node.op_type in _ONE_MOVES:
        return True
    if node.op_type in _REDUCING:
        axes = axes_of(node)
        return bool(axes) and all(axis % rank > 0 for axis in axes or ())
    rule = _RULES.get(node.op_type)
    return rule is not None and rule(node, rank, opset)


def _is_same_for_all(value: ir.Value | None, rank: int) -> bool:
    """Whether ``value`` broadcasts against batches of ``rank`` without having something else for each element."""
    shape = constants.known_shape(value)
    return shape is not None and (len(shape) < rank or (len(shape) == rank and shape[0] == 1))


def _matmul(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - one signature for the table
    return rank >= 2 and queries.rank(node.inputs[1]) == 2


def _gemm(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - as above
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return not node.attributes.get_int("transA", 0) and (bias is None or _is_same_for_all(bias, rank))


def _batch_norm(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - as above
    return not node.attributes.get_int("training_mode", 0)


def _softmax(node: ir.Node, rank: int, opset: int) -> bool:
    return node.attributes.get_int("axis", -1 if opset >= _SOFTMAX_CHANGED else 1) % rank > 0


def _layer_norm(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - as above
    return node.attributes.get_int("axis", -1) % rank > 0


def _transpose(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - as above
    return next(iter(node.attributes.get_ints("perm", [-1]) or [-1])) == 0


def _flatten(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - as above
    return node.attributes.get_int("axis", 1) in {1, 1 - rank}


def _reshape(node: ir.Node, rank: int, opset: int) -> bool:  # noqa: ARG001 - as above
    target, shape = (
        constants.constant_ints(node.inputs[1]),
        node.inputs[0].shape if node.inputs[0] is not None else None,
    )
    if not target or shape is None or node.attributes.get_int("allowzero", 0) != 0:
        return False
    if target[0] == 0:
        return True
    element = [size for size in list(shape)[1:] if isinstance(size, int)]
    return target[0] == -1 and len(element) == rank - 1 and 0 < math.prod(element) == math.prod(target[1:])


def _pad(node: ir.Node, rank: int, opset: int) -> bool:
    if opset < _PADS_ARE_INPUT:
        pads: Sequence[int] | None = node.attributes.get_ints("pads", [])
    else:
        pads = constants.constant_ints(node.inputs[1]) if len(node.inputs) < 4 else None
    return pads is not None and len(pads) == 2 * rank and pads[0] == pads[rank] == 0


_RULES: dict[str, Callable[[ir.Node, int, int], bool]] = {
    "BatchNormalization": _batch_norm,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Pad": _pad,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Transpose": _transpose,
}
