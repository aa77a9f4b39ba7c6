"""What operators are: one table of their properties, and questions that attributes and outputs answer.

A new operator gets its line here and nowhere else; ``having`` asks the table. What an operator is only with certain
attributes (a Pad with zeros, a Resize of other axes) does not stand here, but where it is made use of.
"""

from __future__ import annotations

import enum
from functools import cache
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph.tensors import content_key

if TYPE_CHECKING:
    from collections.abc import Hashable


class Trait(enum.Flag):
    """A property of an operator, whatever its attributes are.

    Attributes:
        UNARY: Each element comes from the element of the first input at its place; other inputs are for all of them.
        BROADCASTING: Each element comes from one of each input, shapes broadcast (see ``broadcasts``).
        POOLING: Each channel (axis 1) of each sample (axis 0) comes from its own windows along the other axes.
        REDUCING: The axes that are told, or all, become one number each.
        MOVING: The outputs hold nothing but elements of the data inputs.
        RESHAPING: Moving, but the order of elements stays: the same data in another shape.
        LINEAR: The first input times the second, plus the third.
        PRODUCT: Linear, and a product of matrices.
        RECURRENT: A weight for inputs and one for states, for each gate in a row.
        HOMOGENEOUS: Positively, of degree 1: f(c x) = c f(x) for c > 0, x being all inputs that hold data.
        IDEMPOTENT: As means are: where all data is one number, the result is this number.
        BATCH_INDEPENDENT: Each slice of the outputs along axis 0 comes from those of the data inputs there.
        RANDOM: Differs from run to run.
        SEES_OUTSIDE: Has bodies that read values of the graphs around them.
    """

    UNARY = enum.auto()
    BROADCASTING = enum.auto()
    POOLING = enum.auto()
    REDUCING = enum.auto()
    MOVING = enum.auto()
    RESHAPING = enum.auto()
    LINEAR = enum.auto()
    PRODUCT = enum.auto()
    RECURRENT = enum.auto()
    HOMOGENEOUS = enum.auto()
    IDEMPOTENT = enum.auto()
    BATCH_INDEPENDENT = enum.auto()
    RANDOM = enum.auto()
    SEES_OUTSIDE = enum.auto()


_UNARY = Trait.UNARY | Trait.BATCH_INDEPENDENT
_BROADCASTING = Trait.BROADCASTING | Trait.BATCH_INDEPENDENT
_POOLING = Trait.POOLING | Trait.HOMOGENEOUS | Trait.BATCH_INDEPENDENT
_MOVING = Trait.MOVING | Trait.HOMOGENEOUS | Trait.IDEMPOTENT

_TABLE: tuple[tuple[Trait, str], ...] = (
    (_UNARY, "Acos Acosh Asin Asinh Atan Atanh BitCast BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Elu Erf Exp"),
    (_UNARY, "Floor Gelu HardSigmoid HardSwish IsInf IsNaN Log Mish Not Reciprocal RegexFullMatch Round Selu Shrink"),
    (_UNARY, "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"),
    (_UNARY | Trait.HOMOGENEOUS, "Abs LeakyRelu Neg Relu"),
    (_UNARY | _MOVING | Trait.RESHAPING, "Identity"),
    (_BROADCASTING, "And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual"),
    (_BROADCASTING, "Mod Mul Or Pow PRelu StringConcat Where Xor"),
    (_BROADCASTING | Trait.HOMOGENEOUS, "Add Sub Sum"),
    (_BROADCASTING | Trait.HOMOGENEOUS | Trait.IDEMPOTENT, "Max Mean Min"),
    (_POOLING, "AveragePool GlobalLpPool LpPool"),
    (_POOLING | Trait.IDEMPOTENT, "GlobalAveragePool GlobalMaxPool MaxPool"),
    (Trait.REDUCING, "ReduceLogSum ReduceLogSumExp ReduceProd ReduceSumSquare"),
    (Trait.REDUCING | Trait.HOMOGENEOUS, "ReduceL1 ReduceL2 ReduceSum"),
    (Trait.REDUCING | Trait.HOMOGENEOUS | Trait.IDEMPOTENT, "ReduceMax ReduceMean ReduceMin"),
    (_MOVING, "Compress Concat Expand Gather GatherElements GatherND ReverseSequence Slice Split Tile Transpose"),
    (_MOVING | Trait.RESHAPING, "Flatten Reshape Squeeze Unsqueeze"),
    (_MOVING | Trait.BATCH_INDEPENDENT, "DepthToSpace SpaceToDepth"),
    (Trait.LINEAR | Trait.BATCH_INDEPENDENT, "Conv ConvTranspose"),
    (Trait.LINEAR | Trait.PRODUCT, "Gemm MatMul"),
    (Trait.RECURRENT, "GRU LSTM RNN"),
    (Trait.BATCH_INDEPENDENT, "GroupNormalization InstanceNormalization LRN"),
    (Trait.RANDOM, "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"),
    (Trait.SEES_OUTSIDE, "If Loop Scan SequenceMap"),
)
_BROADCASTS_SINCE, _VARIADIC_BROADCASTS_SINCE = 7, 8
_VARIADIC = frozenset({"Max", "Mean", "Min", "Sum"})

CLASSIFIED = frozenset(name for _, names in _TABLE for name in names.split())


@cache
def having(traits: Trait) -> frozenset[str]:
    """The standard operators that have all of ``traits``."""
    return frozenset(name for row_traits, names in _TABLE if traits in row_traits for name in names.split())


def broadcasts(op_type: str, opset: int) -> bool:
    """Whether an operator of ``Trait.BROADCASTING`` does so as numpy does: before, an attribute told an axis."""
    return opset >= (_VARIADIC_BROADCASTS_SINCE if op_type in _VARIADIC else _BROADCASTS_SINCE)


def has_one_output(node: ir.Node) -> bool:
    """Whether only the first output of a node exists."""
    return len(node.outputs) == 1 or all(not output.name for output in node.outputs[1:])


def is_nearest(node: ir.Node) -> bool:
    """Whether a Resize takes the nearest element."""
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "nearest"


def attributes_key(node: ir.Node) -> tuple[tuple[str, Hashable], ...] | None:
    """What the attributes of equal nodes have in common, by name; ``None`` if that cannot be said."""
    attributes = []
    for name in sorted(node.attributes.data):
        key = _attribute_key(node.attributes[name])
        if key is None:
            return None
        attributes.append((name, key))
    return tuple(attributes)


def _attribute_key(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    match attribute.type:
        case ir.AttributeType.INT | ir.AttributeType.STRING:
            return int(attribute.type), attribute.value
        case ir.AttributeType.INTS | ir.AttributeType.STRINGS:
            return int(attribute.type), tuple(attribute.value)
        case ir.AttributeType.FLOAT:
            return int(attribute.type), attribute.as_float().hex()  # 0.0 is not -0.0, and nan is nan
        case ir.AttributeType.FLOATS:
            return int(attribute.type), tuple(number.hex() for number in attribute.as_floats())
        case ir.AttributeType.TENSOR:
            return content_key(attribute.as_tensor())
    return None
