"""Values for inputs that an operator reads as something else than data: shapes, axes, counts, scales.

The table has one line for each such input of an operator; what the inputs mean is in the ONNX operator specification.
A value may depend on the shape of the operator's data and on the output shape that the model declares: a Reshape to a
declared [2, 12] is fed [2, 12].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

_FAR = 10_000  # a slice end beyond every dimension


@dataclass(frozen=True)
class Operand:
    """An input of ``node`` that needs a value.

    Attributes:
        node: The operator that reads it.
        count: Elements of the input.
        number: Number of the feed, for values that change from feed to feed.
        shape_of: The shape that a value will have, if that is known.
    """

    node: ir.Node
    count: int
    number: int
    shape_of: Callable[[ir.Value | None], tuple[int, ...] | None]

    @property
    def data(self) -> tuple[int, ...]:
        """The shape of the operator's first input; empty if it is unknown."""
        return self.shape_of(self.node.inputs[0]) or () if self.node.inputs else ()

    @property
    def out(self) -> tuple[int, ...]:
        """The declared shape of its first output; empty if it is unknown."""
        return self.shape_of(self.node.outputs[0]) or ()

    def axis(self, default: int) -> int:
        """Its ``axis`` attribute, counted from the front."""
        axis = self.node.attributes.get_int("axis", default)
        return axis + len(self.data) if axis < 0 else axis


def value_for(op_type: str, index: int, operand: Operand) -> Any:
    """What to feed to input ``index`` of ``op_type``: a number or a list, or ``None`` if it takes plain data."""
    # All reductions alike: input 1 holds axes, from opset 13 or 18 on.
    if op_type.startswith("Reduce") and index == 1:
        return list(range(operand.count))
    rule = _TABLE.get((op_type, index))
    return None if rule is None else rule(operand)


def _declared(operand: Operand, otherwise: Any) -> Any:
    return list(operand.out) if len(operand.out) == operand.count else otherwise


def _reshape(operand: Operand) -> Any:
    return _declared(operand, [-1, *[1] * (operand.count - 1)] if operand.count else [])


def _tile(operand: Operand) -> Any:
    if len(operand.out) == len(operand.data) == operand.count:
        return [max(1, out // max(size, 1)) for out, size in zip(operand.out, operand.data, strict=True)]
    return 1 + operand.number % 2


def _pads(operand: Operand) -> Any:
    # (begins..., ends...): nothing in front, and behind what the declared output has more.
    if len(operand.out) == len(operand.data) and 2 * len(operand.data) == operand.count:
        return [0] * len(operand.data) + [out - size for out, size in zip(operand.out, operand.data, strict=True)]
    return 1


def _ends(operand: Operand) -> Any:
    return _declared(operand, _FAR)


def _top_k(operand: Operand) -> Any:
    axis = operand.axis(-1)
    return operand.out[axis] if axis < len(operand.out) else 1


def _split_sizes(operand: Operand) -> Any:
    axis = operand.axis(0)
    shapes = [operand.shape_of(value) for value in operand.node.outputs]
    if all(shape is not None and axis < len(shape) for shape in shapes):
        return [shape[axis] for shape in shapes if shape is not None]
    if axis >= len(operand.data) or not operand.count:
        return 1
    # No declared outputs: equal sizes, the remainder in the last.
    size, remainder = divmod(operand.data[axis], operand.count)
    return [size] * (operand.count - 1) + [size + remainder]


def _scales(operand: Operand) -> Any:
    if len(operand.out) == len(operand.data) == operand.count:
        return [out / max(size, 1) for out, size in zip(operand.out, operand.data, strict=True)]
    return 1


def _squeezed(operand: Operand) -> Any:
    return [axis for axis, size in enumerate(operand.data) if size == 1][: operand.count] or 0


def _lengths(axis_of: Callable[[Operand], int]) -> Callable[[Operand], Any]:
    def rule(operand: Operand) -> Any:
        axis = axis_of(operand)
        return operand.data[axis] if axis < len(operand.data) else 1

    return rule


def _frame(operand: Operand) -> Any:
    window = operand.shape_of(operand.node.inputs[2]) if len(operand.node.inputs) > 2 else None
    return window[0] if window else 16


def _time_axis(operand: Operand) -> int:
    return operand.node.attributes.get_int("time_axis", 0)


def _kv_length(operand: Operand) -> Any:
    keys = operand.shape_of(operand.node.inputs[1])
    return keys[-2] if keys is not None and len(keys) > 1 else 1


def _columns(operand: Operand) -> Any:
    return list(operand.out[2:]) if len(operand.out) == operand.count + 2 else 4


def _block(operand: Operand) -> Any:
    if len(operand.out) < 2 or len(operand.data) != 3 or not operand.count:
        return 1
    return [1] * (operand.count - 1) + [operand.data[1] // max(operand.out[1], 1)]


def _depth(operand: Operand) -> Any:
    axis = operand.node.attributes.get_int("axis", -1)
    return operand.out[axis] if -len(operand.out) <= axis < len(operand.out) else 10


def _dft_length(operand: Operand) -> Any:
    return operand.data[-2] if len(operand.data) > 1 else 16


_CHANCE = 0.5
_TABLE: Mapping[tuple[str, int], Callable[[Operand], Any]] = {
    # Shapes, repeats and pads.
    ("Reshape", 1): _reshape,
    ("Expand", 1): lambda operand: _declared(operand, 1),
    ("ConstantOfShape", 0): lambda operand: _declared(operand, 2),
    ("RandomNormal", 0): lambda operand: _declared(operand, 2),
    ("Tile", 1): _tile,
    ("Pad", 1): _pads,
    ("Pad", 2): lambda _: 0,
    ("Pad", 3): lambda operand: list(range(operand.count)),
    # Ranges and axes.
    ("Slice", 1): lambda _: 0,
    ("Slice", 2): _ends,
    ("Slice", 3): lambda operand: list(range(operand.count)),
    ("Slice", 4): lambda _: 1,
    ("TopK", 1): _top_k,
    ("Range", 0): lambda _: 0,
    ("Range", 1): lambda operand: 4 + operand.number % 3,
    ("Range", 2): lambda _: 1,
    ("OneHot", 1): _depth,
    ("OneHot", 2): lambda _: [0, 1],
    ("Unsqueeze", 1): lambda operand: list(range(operand.count)),
    ("Squeeze", 1): _squeezed,
    # Sizes and scales.
    ("Split", 1): _split_sizes,
    ("SplitToSequence", 1): lambda operand: (
        operand.data[operand.axis(0)] if operand.count == 1 and operand.data else _split_sizes(operand)
    ),
    ("Upsample", 1): _scales,
    ("Resize", 1): lambda operand: [0] * (operand.count // 2) + [1] * (operand.count - operand.count // 2),
    ("Resize", 2): _scales,
    ("Resize", 3): lambda operand: _declared(operand, list(operand.data[len(operand.data) - operand.count :]) or 1),
    # Control flow: bodies run three or four times, branches by turns.
    ("Loop", 0): lambda operand: 3 + operand.number % 2,
    ("Loop", 1): lambda _: True,
    ("If", 0): lambda operand: operand.number % 2 == 0,
    # An axis, a diagonal, a length.
    ("CumSum", 1): lambda _: 0,
    ("CumProd", 1): lambda _: 0,
    ("Trilu", 1): lambda operand: operand.number % 2,
    ("Attention", 6): _kv_length,
    # Zero points, ratios, and scales at which the values of a feed are not all rounded to one number.
    ("ConvInteger", 2): lambda _: 1,
    ("ConvInteger", 3): lambda _: 1,
    ("Dropout", 1): lambda _: 0.1,
    ("Dropout", 2): lambda _: False,
    ("QuantizeLinear", 1): lambda operand: 0.02 + 0.01 * (operand.number % 3),
    ("DequantizeLinear", 1): lambda operand: 0.02 + 0.01 * (operand.number % 3),
    ("QLinearConv", 1): lambda _: 0.02,
    ("QLinearConv", 4): lambda _: 0.02,
    ("QLinearConv", 6): lambda _: 0.05,
    ("QLinearMatMul", 1): lambda _: 0.02,
    ("QLinearMatMul", 4): lambda _: 0.02,
    ("QLinearMatMul", 6): lambda _: 0.05,
    ("Clip", 1): lambda _: -1,
    ("Clip", 2): lambda _: 1,
    ("NonMaxSuppression", 2): lambda _: 3,
    ("NonMaxSuppression", 3): lambda _: _CHANCE,
    ("NonMaxSuppression", 4): lambda _: 0.1,
    ("SequenceAt", 1): lambda _: 0,
    ("SequenceErase", 1): lambda _: 0,
    ("SequenceInsert", 2): lambda _: 0,
    # Lengths of sequences: the whole axis.
    ("ReverseSequence", 1): _lengths(_time_axis),
    ("RNN", 4): _lengths(lambda _: 0),
    ("GRU", 4): _lengths(lambda _: 0),
    ("LSTM", 4): _lengths(lambda _: 0),
    ("RoiAlign", 2): lambda _: 0,
    # Signals: windows, mel bands, frames and steps.
    ("HannWindow", 0): lambda _: 10,
    ("HammingWindow", 0): lambda _: 10,
    ("BlackmanWindow", 0): lambda _: 10,
    ("MelWeightMatrix", 0): lambda _: 8,
    ("MelWeightMatrix", 1): lambda _: 16,
    ("MelWeightMatrix", 2): lambda _: 8192,
    ("MelWeightMatrix", 3): lambda _: 0,
    ("MelWeightMatrix", 4): lambda _: 4096,
    ("STFT", 1): lambda operand: max(1, _frame(operand) // 2),
    ("STFT", 3): _frame,
    ("DFT", 1): _dft_length,
    ("DFT", 2): lambda operand: max(len(operand.data) - 2, 0),
    ("Col2Im", 1): _columns,
    ("Col2Im", 2): _block,
    ("CenterCropPad", 1): lambda operand: _declared(operand, 2),
    ("AffineGrid", 1): lambda operand: (
        [*operand.data[:1], 1, *operand.out[1:-1]] if len(operand.out) == operand.count else 2
    ),
    ("MaxUnpool", 2): lambda operand: _declared(operand, 4),
    ("BitShift", 1): lambda _: 1,
}


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a tensor of ``shape`` has."""
    return prod(shape)
