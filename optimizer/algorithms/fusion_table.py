"""What ONNX Runtime's CPU provider runs in int8 when QuantizeLinear / DequantizeLinear (QDQ) stand around a node.

One row a rule, the first that matches a node holds; ``row(node)`` finds it. Every row is measured: the tests build a
small model for it, let ONNX Runtime optimize it (1.32, all optimizations) and look at what is left. A QDQ pair that
does not fuse is pure overhead: DequantizeLinear, the float operator, QuantizeLinear. So where a row says ``FLOAT``, or
there is none, insert no pair.

What holds for all rows, also tested:

- Scale and zero point of activations are per tensor, 8 bits, signed or unsigned; weights too, in any combination.
- Every input in ``Row.quantized`` comes from a DequantizeLinear, constants too: Add(DQ(x), float constant) is float. A
  constant of an Add or Mul is of the activations' integer type, or it is float.
- A Q on the output is needed, but for what ``Row.without_q`` says. A node whose output is also read in float, or is an
  output of the graph, counts as one without: let those readers read the DQ.
- SAME_SCALE: the scale and the zero point of the input and of the output are identical, or it is float.
- A DQ with several readers is fine, for activations and for a shared weight.
- A DequantizeLinear per channel needs opset 13, or the model does not load; that of the domain com.microsoft does not.
  Below opset 11 a float bias makes a model that does not load: give it as int32 behind a DequantizeLinear.
- With 16 bits nothing is computed in integers; only what moves elements may.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

PER_CHANNEL_OPSET = 13


class Role(Enum):
    """How a node relates to the QDQ pairs around it."""

    KERNEL = "kernel"  # multiplies with a weight or a second activation, sums in int32, own output scale
    ELEMENTWISE = "elementwise"  # an integer kernel with its own output scale
    SAME_SCALE = "same scale"  # the float operator's own integer version: moves elements, keeps scale and zero point
    ABSORBED = "absorbed"  # the Q behind it does its work, so that it is removed
    REMOVED = "removed"  # goes whatever stands around it
    FLOAT = "float"  # never fused


def _always(node: ir.Node) -> bool:  # noqa: ARG001 - the signature of a condition
    return True


@dataclass(frozen=True)
class Row:
    """One rule.

    Attributes:
        op_type: The operator, of the default domain.
        role: How it relates to the QDQ pairs.
        runs_as: Operators of ONNX Runtime's optimized graph that it becomes with a DQ before and a Q behind.
        without_q: What it becomes with a DQ before and no Q behind; empty if it goes float.
        without_q_bias_int32: Whether ``without_q`` holds only if there is no bias or an int32 one behind a
            DequantizeLinear. A float bias then makes the node float *and* has its weights dequantized at every run.
            The bias of a MatMul is the Add behind it.
        moves: Whether ONNX Runtime moves a Q in front of it and a DQ behind it, so that it runs in integers where only
            one side has a pair. Others go float then, and so does the kernel in front of one with no Q between.
        quantized: Positions of the inputs that need a DQ; ``None``: all of them.
        per_channel: Whether its weight may have a scale for each output channel.
        when: The condition in words, empty if there is none.
        accepts: The condition.
    """

    op_type: str
    role: Role
    runs_as: frozenset[str] = frozenset()
    without_q: frozenset[str] = frozenset()
    without_q_bias_int32: bool = False
    moves: bool = False
    quantized: tuple[int, ...] | None = (0,)
    per_channel: bool = False
    when: str = ""
    accepts: Callable[[ir.Node], bool] = _always

    @property
    def is_integer(self) -> bool:
        """Whether QDQ pairs around such a node are worth inserting at all."""
        return self.role is not Role.FLOAT


def row(node: ir.Node) -> Row | None:
    """The rule for ``node`` by its operator and attributes; ``None`` if it is not in the table: it stays float."""
    if node.domain not in {"", "ai.onnx"}:
        return None
    return next((rule for rule in _BY_TYPE.get(node.op_type, ()) if rule.accepts(node)), None)


def role(node: ir.Node) -> Role:
    """The role of ``node``; ``FLOAT`` if it is not in the table."""
    rule = row(node)
    return Role.FLOAT if rule is None else rule.role


def quantized_inputs(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs of ``node`` that need a DequantizeLinear in front; empty if it stays float."""
    rule = row(node)
    if rule is None or not rule.is_integer:
        return ()
    wanted = range(len(node.inputs)) if rule.quantized is None else rule.quantized
    return tuple(index for index in wanted if index < len(node.inputs) and node.inputs[index] is not None)


def _has(name: str, *values: object, default: object) -> Callable[[ir.Node], bool]:
    """A condition: the attribute ``name``, or its default, is one of ``values``."""

    def accepts(node: ir.Node) -> bool:
        attribute = node.attributes.get(name)
        return (default if attribute is None else attribute.value) in values

    return accepts


def _kernels() -> Iterable[Row]:
    yield Row("Conv", Role.KERNEL, frozenset({"QLinearConv"}), quantized=(0, 1), per_channel=True)
    yield Row(
        "MatMul",
        Role.KERNEL,
        frozenset({"QLinearMatMul"}),
        without_q=frozenset({"MatMulIntegerToFloat"}),
        without_q_bias_int32=True,
        quantized=(0, 1),
        per_channel=True,
    )
    yield Row(
        "Gemm",
        Role.KERNEL,
        frozenset({"QGemm"}),
        without_q=frozenset({"QGemm"}),
        without_q_bias_int32=True,
        quantized=(0, 1),
        per_channel=True,
    )


def _elementwise() -> Iterable[Row]:
    for op_type in ("Add", "Mul"):
        yield Row(op_type, Role.ELEMENTWISE, frozenset({f"QLinear{op_type}"}), quantized=(0, 1))
    yield Row("Concat", Role.ELEMENTWISE, frozenset({"QLinearConcat"}), quantized=None)
    for op_type in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"):
        yield Row(op_type, Role.ELEMENTWISE, frozenset({f"QLinear{op_type}"}))


def _same_scale() -> Iterable[Row]:
    for op_type in (
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ):
        moves = op_type in {"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
        without_q = frozenset({op_type} if moves else ())
        yield Row(op_type, Role.SAME_SCALE, frozenset({op_type}), without_q, moves=moves)
    yield Row(
        "Resize",
        Role.SAME_SCALE,
        frozenset({"Resize"}),
        when="mode is nearest",
        accepts=_has("mode", "nearest", default="nearest"),
    )


def _absorbed() -> Iterable[Row]:
    yield Row("Relu", Role.ABSORBED, when="the zero point behind it is qmin; otherwise the node before goes float too")
    yield Row("Clip", Role.ABSORBED, when="the range that the Q behind it can express lies inside [min, max]")
    yield Row("Identity", Role.REMOVED)
    yield Row("Dropout", Role.REMOVED)


FLOAT_OPS = [
    "Abs",
    "BatchNormalization",
    "Celu",
    "ConvTranspose",
    "Cos",
    "CumSum",
    "Div",
    "Einsum",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "GatherND",
    "Gelu",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "Resize",
    "Selu",
    "Sin",
    "Softplus",
    "SpaceToDepth",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
]

TABLE: tuple[Row, ...] = (
    *_kernels(),
    *_elementwise(),
    *_same_scale(),
    *_absorbed(),
    *(Row(op_type, Role.FLOAT, quantized=()) for op_type in FLOAT_OPS),
)

_BY_TYPE: dict[str, tuple[Row, ...]] = {
    op_type: tuple(rule for rule in TABLE if rule.op_type == op_type) for op_type in {rule.op_type for rule in TABLE}
}
