"""Values for inputs that an operator reads as something else than data: shapes, axes, counts, scales.

The table has one line for each such input of an operator. A value may depend on the shape of the operator's data and on
the output shape that the model declares: a Reshape to a declared [2, 12] is fed [2, 12].
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
class Ask:
    """What is asked for: an input of ``node``.

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


def value_for(op_type: str, index: int, ask: Ask) -> Any:
    """What to feed to input ``index`` of ``op_type``: a number or a list, or ``None`` if it takes plain data."""
    if op_type.startswith("Reduce") and index == 1:
        return list(range(ask.count))
    rule = _TABLE.get((op_type, index))
    return None if rule is None else rule(ask)


def _declared(ask: Ask, otherwise: Any) -> Any:
    return list(ask.out) if len(ask.out) == ask.count else otherwise


def _reshape(ask: Ask) -> Any:
    return _declared(ask, [-1, *[1] * (ask.count - 1)] if ask.count else [])


def _tile(ask: Ask) -> Any:
    if len(ask.out) == len(ask.data) == ask.count:
        return [max(1, out // max(size, 1)) for out, size in zip(ask.out, ask.data, strict=True)]
    return 1 + ask.number % 2


def _pads(ask: Ask) -> Any:
    if len(ask.out) == len(ask.data) and 2 * len(ask.data) == ask.count:
        return [0] * len(ask.data) + [out - size for out, size in zip(ask.out, ask.data, strict=True)]
    return 1


def _ends(ask: Ask) -> Any:
    return _declared(ask, _FAR)


def _top_k(ask: Ask) -> Any:
    axis = ask.axis(-1)
    return ask.out[axis] if axis < len(ask.out) else 1


def _split_sizes(ask: Ask) -> Any:
    axis = ask.axis(0)
    parts = [ask.shape_of(value) for value in ask.node.outputs]
    if all(part is not None and axis < len(part) for part in parts):
        return [part[axis] for part in parts if part is not None]
    if axis >= len(ask.data) or not ask.count:
        return 1
    size, rest = divmod(ask.data[axis], ask.count)
    return [size] * (ask.count - 1) + [size + rest]


def _scales(ask: Ask) -> Any:
    if len(ask.out) == len(ask.data) == ask.count:
        return [out / max(size, 1) for out, size in zip(ask.out, ask.data, strict=True)]
    return 1


def _squeezed(ask: Ask) -> Any:
    return [axis for axis, size in enumerate(ask.data) if size == 1][: ask.count] or 0


def _lengths(axis_of: Callable[[Ask], int]) -> Callable[[Ask], Any]:
    def rule(ask: Ask) -> Any:
        axis = axis_of(ask)
        return ask.data[axis] if axis < len(ask.data) else 1

    return rule


def _frame(ask: Ask) -> Any:
    window = ask.shape_of(ask.node.inputs[2]) if len(ask.node.inputs) > 2 else None
    return window[0] if window else 16


def _time_axis(ask: Ask) -> int:
    return ask.node.attributes.get_int("time_axis", 0)


def _kv_length(ask: Ask) -> Any:
    keys = ask.shape_of(ask.node.inputs[1])
    return keys[-2] if keys is not None and len(keys) > 1 else 1


def _columns(ask: Ask) -> Any:
    return list(ask.out[2:]) if len(ask.out) == ask.count + 2 else 4


def _block(ask: Ask) -> Any:
    if len(ask.out) < 2 or len(ask.data) != 3 or not ask.count:
        return 1
    return [1] * (ask.count - 1) + [ask.data[1] // max(ask.out[1], 1)]


def _depth(ask: Ask) -> Any:
    axis = ask.node.attributes.get_int("axis", -1)
    return ask.out[axis] if -len(ask.out) <= axis < len(ask.out) else 10


def _dft_length(ask: Ask) -> Any:
    return ask.data[-2] if len(ask.data) > 1 else 16


_CHANCE = 0.5
_TABLE: Mapping[tuple[str, int], Callable[[Ask], Any]] = {
    ("Reshape", 1): _reshape,
    ("Expand", 1): lambda ask: _declared(ask, 1),
    ("ConstantOfShape", 0): lambda ask: _declared(ask, 2),
    ("RandomNormal", 0): lambda ask: _declared(ask, 2),
    ("Tile", 1): _tile,
    ("Pad", 1): _pads,
    ("Pad", 2): lambda _: 0,
    ("Pad", 3): lambda ask: list(range(ask.count)),
    ("Slice", 1): lambda _: 0,
    ("Slice", 2): _ends,
    ("Slice", 3): lambda ask: list(range(ask.count)),
    ("Slice", 4): lambda _: 1,
    ("TopK", 1): _top_k,
    ("Range", 0): lambda _: 0,
    ("Range", 1): lambda ask: 4 + ask.number % 3,
    ("Range", 2): lambda _: 1,
    ("OneHot", 1): _depth,
    ("OneHot", 2): lambda _: [0, 1],
    ("Unsqueeze", 1): lambda ask: list(range(ask.count)),
    ("Squeeze", 1): _squeezed,
    ("Split", 1): _split_sizes,
    ("SplitToSequence", 1): lambda ask: ask.data[ask.axis(0)] if ask.count == 1 and ask.data else _split_sizes(ask),
    ("Upsample", 1): _scales,
    ("Resize", 1): lambda ask: [0] * (ask.count // 2) + [1] * (ask.count - ask.count // 2),
    ("Resize", 2): _scales,
    ("Resize", 3): lambda ask: _declared(ask, list(ask.data[len(ask.data) - ask.count :]) or 1),
    ("Loop", 0): lambda ask: 3 + ask.number % 2,
    ("Loop", 1): lambda _: True,
    ("If", 0): lambda ask: ask.number % 2 == 0,
    ("CumSum", 1): lambda _: 0,
    ("CumProd", 1): lambda _: 0,
    ("Trilu", 1): lambda ask: ask.number % 2,
    ("Attention", 6): _kv_length,
    ("ConvInteger", 2): lambda _: 1,
    ("ConvInteger", 3): lambda _: 1,
    ("Dropout", 1): lambda _: 0.1,
    ("Dropout", 2): lambda _: False,
    ("QuantizeLinear", 1): lambda ask: 0.02 + 0.01 * (ask.number % 3),
    ("DequantizeLinear", 1): lambda ask: 0.02 + 0.01 * (ask.number % 3),
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
    ("ReverseSequence", 1): _lengths(_time_axis),
    ("RNN", 4): _lengths(lambda _: 0),
    ("GRU", 4): _lengths(lambda _: 0),
    ("LSTM", 4): _lengths(lambda _: 0),
    ("RoiAlign", 2): lambda _: 0,
    ("HannWindow", 0): lambda _: 10,
    ("HammingWindow", 0): lambda _: 10,
    ("BlackmanWindow", 0): lambda _: 10,
    ("MelWeightMatrix", 0): lambda _: 8,
    ("MelWeightMatrix", 1): lambda _: 16,
    ("MelWeightMatrix", 2): lambda _: 8192,
    ("MelWeightMatrix", 3): lambda _: 0,
    ("MelWeightMatrix", 4): lambda _: 4096,
    ("STFT", 1): lambda ask: max(1, _frame(ask) // 2),
    ("STFT", 3): _frame,
    ("DFT", 1): _dft_length,
    ("DFT", 2): lambda ask: max(len(ask.data) - 2, 0),
    ("Col2Im", 1): _columns,
    ("Col2Im", 2): _block,
    ("CenterCropPad", 1): lambda ask: _declared(ask, 2),
    ("AffineGrid", 1): lambda ask: [*ask.data[:1], 1, *ask.out[1:-1]] if len(ask.out) == ask.count else 2,
    ("MaxUnpool", 2): lambda ask: _declared(ask, 4),
    ("BitShift", 1): lambda _: 1,
}


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a tensor of ``shape`` has."""
    return prod(shape)
