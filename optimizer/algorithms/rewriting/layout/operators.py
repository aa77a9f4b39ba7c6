"""How operators compute on permuted axes.

``permuted(node, perm)`` tells how ``node`` has to change to read ``x'`` and write ``y'`` where it read and wrote ``x``
and ``y``, with ``x = Transpose(x', perm)`` and ``y = Transpose(y', perm)``: axis ``i`` becomes axis ``perm[i]``.
Elementwise operators need no change, others have their axes moved. An operator that drops axes writes ``y`` itself if
the axes that remain are in order (it *absorbs* the permutation); one that adds axes may write ``y'`` from what it reads
as it is. A product with one matrix, and a normalization of the last axis, take any order of the other axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph import constants, permutations, queries
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNARY, _BROADCASTING, _REDUCING = (having(each) for each in (Trait.UNARY, Trait.BROADCASTING, Trait.REDUCING))
_ONE_AXIS = frozenset({"Concat", "Split", "Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin"})
_OLDEST_OPSET = 8
_SOFTMAX_OF_ONE_AXIS = 13
_DEFAULT_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1}


@dataclass(frozen=True)
class Change:
    """What a node needs to compute on permuted axes.

    Attributes:
        moved: Indices of the inputs that it reads permuted; constants among them may have fewer axes. Empty if what it
            reads stays as it is.
        absorbs: Whether what it writes stays as it was.
        attributes: New values of integer attributes.
        inputs: New 64-bit integer constants for inputs.
    """

    moved: tuple[int, ...]
    absorbs: bool = False
    attributes: Mapping[str, int | list[int]] = field(default_factory=dict)
    inputs: Mapping[int, list[int]] = field(default_factory=dict)

    def new_attributes(self) -> list[ir.Attr]:
        """The attributes that the node gets."""
        return [
            ir.AttrInt64(name, number) if isinstance(number, int) else ir.AttrInt64s(name, number)
            for name, number in self.attributes.items()
        ]


def permuted(node: ir.Node, perm: Sequence[int], opset: int) -> Change | None:
    """How ``node`` computes on axes permuted by ``perm``; ``None`` if that is not known."""
    if not queries.is_standard(node) or opset < _OLDEST_OPSET or not node.inputs or queries.has_references(node):
        return None
    if node.op_type in _BROADCASTING:
        return _broadcasting(node, perm)
    if queries.rank(node.inputs[0]) == len(perm):
        change = _reading(node, perm, opset)
        if change is not None:
            return change
    return _writing(node, perm) if queries.rank(node.outputs[0]) == len(perm) else None


def _reading(node: ir.Node, perm: Sequence[int], opset: int) -> Change | None:
    """The change of a node whose first input has the axes."""
    if node.op_type in _UNARY:
        return Change((0,))
    if node.op_type in _ONE_AXIS:
        return _one_axis(node, perm, opset)
    if node.op_type in _REDUCING:
        return _reducing(node, perm)
    match node.op_type:
        case "Pad":
            return _pad(node, perm)
        case "Slice":
            return _slice(node, perm)
        case "Squeeze":
            return _squeeze(node, perm)
        case "Reshape":
            return _reshape_from(node, perm)
        case "MatMul" | "LayerNormalization" if perm[-1] == len(perm) - 1:
            return _last_axis(node, len(perm))
    return None


def _writing(node: ir.Node, perm: Sequence[int]) -> Change | None:
    """The change of a node of which only what it writes has the axes."""
    match node.op_type:
        case "Unsqueeze":
            return _unsqueeze(node, perm)
        case "Reshape":
            return _reshape_to(node, perm)
    return None


def _broadcasting(node: ir.Node, perm: Sequence[int]) -> Change | None:
    # Each operand has all axes, or is a constant that is stored permuted, or is the same either way
    rank, moved = len(perm), []
    for index, value in enumerate(node.inputs):
        shape, is_constant = constants.known_shape(value), constants.constant_tensor(value) is not None
        operand_rank = queries.rank(value) if shape is None else len(shape)
        if operand_rank is None or operand_rank > rank:
            return None
        if shape is not None and _stays(shape, perm, is_constant=is_constant):
            continue
        if operand_rank < rank and not is_constant:
            return None
        moved.append(index)
    has_full_rank = any(queries.rank(node.inputs[index]) == rank for index in moved)
    return Change(tuple(moved)) if has_full_rank else None


def _stays(shape: Sequence[int], perm: Sequence[int], *, is_constant: bool) -> bool:
    """Whether what broadcasts with this shape is the same permuted: one number, or a constant along unmoved axes."""
    first = len(perm) - len(shape)
    wide = [first + axis for axis, size in enumerate(shape) if size != 1]
    return not wide or (is_constant and all(perm[axis] == axis for axis in wide))


def _one_axis(node: ir.Node, perm: Sequence[int], opset: int) -> Change | None:
    if node.op_type in _DEFAULT_AXIS and opset < _SOFTMAX_OF_ONE_AXIS:
        return None
    axis = node.attributes.get_int("axis", _DEFAULT_AXIS.get(node.op_type, 0)) % len(perm)
    moved = range(len(node.inputs)) if node.op_type == "Concat" else range(1)
    if node.op_type == "Concat" and any(queries.rank(value) != len(perm) for value in node.inputs):
        return None
    # Without keepdims the axis is gone behind it: it writes what it wrote if the other axes are in order
    change: dict[str, int | list[int]] = {"axis": perm[axis]}
    if node.op_type in {"ArgMax", "ArgMin"} and node.attributes.get_int("keepdims", 1) == 0:
        return Change((0,), absorbs=True, attributes=change) if _keeps_order(perm, [axis]) else None
    return Change(tuple(moved), attributes=change)


def _keeps_order(perm: Sequence[int], dropped: Sequence[int]) -> bool:
    """Whether the axes that remain without those of ``dropped`` keep their order."""
    remaining = [new_axis for axis, new_axis in enumerate(perm) if axis not in dropped]
    return remaining == sorted(remaining)


def _reducing(node: ir.Node, perm: Sequence[int]) -> Change | None:
    axes = permutations.axes_of(node)
    by_input = len(node.inputs) > 1 and node.inputs[1] is not None
    if by_input and axes is None:
        return None
    keeps = node.attributes.get_int("keepdims", 1) != 0
    # No axes: all of them are reduced, or none
    if not axes:
        identity = node.attributes.get_int("noop_with_empty_axes", 0) != 0
        return Change((0,), absorbs=not keeps and not identity)
    reduced = [axis % len(perm) for axis in axes]
    if not keeps and not _keeps_order(perm, reduced):
        return None
    new_axes = sorted(perm[axis] for axis in reduced)
    if by_input:
        return Change((0,), absorbs=not keeps, inputs={1: new_axes})
    return Change((0,), absorbs=not keeps, attributes={"axes": new_axes})


def _pad(node: ir.Node, perm: Sequence[int]) -> Change | None:
    by_input = "pads" not in node.attributes
    if by_input and (len(node.inputs) < 2 or (len(node.inputs) > 3 and node.inputs[3] is not None)):
        return None
    pads = constants.constant_ints(node.inputs[1]) if by_input else list(node.attributes.get_ints("pads", ()))
    if pads is None or len(pads) != 2 * len(perm):
        return None
    # All beginnings, then all ends
    new_pads = [0] * len(pads)
    for axis, new_axis in enumerate(perm):
        new_pads[new_axis], new_pads[new_axis + len(perm)] = pads[axis], pads[axis + len(perm)]
    return Change((0,), inputs={1: new_pads}) if by_input else Change((0,), attributes={"pads": new_pads})


def _slice(node: ir.Node, perm: Sequence[int]) -> Change | None:
    if "starts" in node.attributes:
        count = len(node.attributes.get_ints("starts", ()))
        axes = node.attributes.get_ints("axes", None) or list(range(count))
        return Change((0,), attributes={"axes": [perm[axis % len(perm)] for axis in axes]})
    # Without axes a Slice is of the first ones, as many as there are starts
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    starts = constants.known_shape(node.inputs[1]) if len(node.inputs) > 1 else None
    if not has_axes and (starts is None or len(starts) != 1):
        return None
    listed = constants.constant_ints(node.inputs[3]) if has_axes else list(range((starts or (0,))[0]))
    if listed is None:
        return None
    return Change((0,), inputs={3: [perm[axis % len(perm)] for axis in listed]})


def _squeeze(node: ir.Node, perm: Sequence[int]) -> Change | None:
    squeezed = permutations.axes_of(node)
    if not squeezed or not _keeps_order(perm, [axis % len(perm) for axis in squeezed]):
        return None
    return _with_axes(node, sorted(perm[axis % len(perm)] for axis in squeezed), moved=(0,), absorbs=True)


def _unsqueeze(node: ir.Node, perm: Sequence[int]) -> Change | None:
    """An Unsqueeze that writes what is permuted, though it reads nothing permuted."""
    inserted = permutations.axes_of(node)
    if not inserted or not _keeps_order(perm, [axis % len(perm) for axis in inserted]):
        return None
    return _with_axes(node, sorted(perm[axis % len(perm)] for axis in inserted), moved=(), absorbs=False)


def _with_axes(node: ir.Node, new_axes: list[int], *, moved: tuple[int, ...], absorbs: bool) -> Change:
    if "axes" in node.attributes:
        return Change(moved, absorbs, attributes={"axes": new_axes})
    return Change(moved, absorbs, inputs={1: new_axes})


def _reshape_from(node: ir.Node, perm: Sequence[int]) -> Change | None:
    """A Reshape of what has its elements in the same order either way."""
    target = constants.constant_ints(node.inputs[1])
    if target is None or 0 in target or not _moves_only_ones(node.inputs[0], perm):
        return None
    return Change((0,), absorbs=True)


def _reshape_to(node: ir.Node, perm: Sequence[int]) -> Change | None:
    """A Reshape to what has its elements in the same order either way."""
    target = constants.constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None
    if target is None or 0 in target or len(target) != len(perm) or not _moves_only_ones(node.outputs[0], perm):
        return None
    return Change((), inputs={1: [target[axis] for axis in permutations.inverse(perm)]})


def _moves_only_ones(value: ir.Value | None, perm: Sequence[int]) -> bool:
    """Whether the dimensions of ``value`` that are not 1 keep their order."""
    if value is None or value.shape is None or len(value.shape) != len(perm):
        return False
    return _keeps_order(perm, [axis for axis, dim in enumerate(value.shape) if dim == 1])


def _last_axis(node: ir.Node, rank: int) -> Change | None:
    if node.op_type == "MatMul":
        return Change((0,)) if queries.rank(node.inputs[1]) == 2 else None
    # Mean and deviation, the second and third output, would be permuted too
    alone = not any(queries.has_uses(value) for value in node.outputs[1:])
    return Change((0,)) if alone and node.attributes.get_int("axis", -1) in {-1, rank - 1} else None
