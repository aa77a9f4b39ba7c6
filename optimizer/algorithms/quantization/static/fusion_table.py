"""What ONNX Runtime's CPU provider runs in int8 when QuantizeLinear / DequantizeLinear (QDQ) stand around a node.

One row a rule, the first that matches a node holds; ``row(node)`` finds it. Every row is measured: the tests build a
small model for it, let ONNX Runtime (1.32) optimize it fully, look at what is left and compare the answers. A QDQ pair
that does not fuse is pure overhead: DequantizeLinear, the float operator, QuantizeLinear. So where a row says
``FLOAT``, or there is none, insert no pair.

What holds for all rows, tested too:

- Scale and zero point of activations are per tensor, 8 bits. With 16 bits nothing is computed in integers.
- All pairs of a model have one integer type. ONNX Runtime on x86 rewrites int8 *pairs* to uint8 when it loads a model,
  so that mixing works there; on Arm it does not, and neither do int8 activations with uint8 weights.
- Every input in ``Row.quantized`` comes from a DequantizeLinear. That of a constant (of Add, Mul, Concat, a MatMul's
  left side) has the type in ``constant_type``, else the node is float. Kernels' weights are int8 or uint8.
- A Q on the output is needed, but for what ``Row.without_q`` says. A node whose output is also read in float, or is an
  output of the graph, counts as one without: let those readers read the DQ.
- SAME_SCALE: scale and zero point of the input and of the output are identical, or it is float.
- A DQ may have several readers, also that of a shared weight. It stands in the same graph as its readers: the DQ of a
  weight outside an If whose branch reads it makes a float Conv with the weight dequantized at every run.
- A DequantizeLinear per channel needs opset 13, or the model does not load; that of the domain com.microsoft does not.
- A bias may stay float or be int32 (scale = input scale * weight scale, zero point 0) where there is a Q on the output;
  a Gemm's float bias then has the shape (N,), and below opset 11 a Conv's float bias makes a model that does not load.

What fuses need not pay. int8 time / fp32 time, as ``benchmarks/fused_kernels.py`` measures it on x86 with AVX2 and no
VNNI, one thread; run it to have them for another machine::

    Conv 0.6, depthwise 1.2, grouped 2.5    MatMul, Gemm 0.6         Add 0.7    Mul, Sigmoid 1.0    LeakyRelu 1.6
    GlobalAveragePool 0.3    Concat 0.4     Transpose 0.5            Slice, ReduceMax 0.6           Resize 1.3
    MaxPool 0.8 behind an integer Conv, 15 elsewhere                 Softmax 5.7                    AveragePool 10

An elementwise node between two integer ones costs more in float than 1: a Q and a DQ as well, about as long as a float
Add of the same size. Softmax and AveragePool are slower in integers even so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from optimizer.algorithms.quantization.static import fusion_conditions
from optimizer.graph import operators, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

PER_CHANNEL_OPSET = 13  # also enough for every row


class Role(Enum):
    """How a node relates to the QDQ pairs around it."""

    KERNEL = "kernel"  # multiplies with a weight or a second activation, sums in int32, own output scale
    ELEMENTWISE = "elementwise"  # an integer kernel with its own output scale
    SAME_SCALE = "same scale"  # its own integer version: moves elements, keeps scale and zero point
    ABSORBED = "absorbed"  # the Q behind it does its work, so that it is removed
    REMOVED = "removed"  # goes whatever stands around it
    FLOAT = "float"  # never fused


@dataclass(frozen=True)
class FusionRule:
    """One rule.

    Attributes:
        op_type: The operator, of the default domain.
        role: How it relates to the QDQ pairs.
        runs_as: Operators of ONNX Runtime's optimized graph that it becomes with a DQ before and a Q behind.
        without_q: What it becomes with a DQ before and no Q behind; empty if it goes float. A kernel does so only
            without a bias or with an int32 one behind a DequantizeLinear: a float bias makes the node float *and* has
            its weights dequantized at every run, many times slower than fp32 (the bias of a MatMul is the Add behind
            it). A node of one scale does so where ONNX Runtime moves a Q in front of it and a DQ behind it, so that a
            pair on one side is enough. Others go float then, and so does the kernel in front of one with no Q between.
        quantized: Positions of the inputs that need a DQ; ``None``: all of them.
        weights_only: What it becomes with a DQ on the weight alone; empty: the weight is dequantized at every run.
        opset: The least that it holds from; below, it is float or the model does not load.
        when: The condition in words, empty if there is none.
        accepts: The condition.
    """

    op_type: str
    role: Role
    runs_as: frozenset[str] = frozenset()
    without_q: frozenset[str] = frozenset()
    quantized: tuple[int, ...] | None = (0,)
    weights_only: frozenset[str] = frozenset()
    opset: int = 10
    when: str = ""
    accepts: Callable[[ir.Node], bool] = fusion_conditions.always

    @property
    def is_integer(self) -> bool:
        """Whether QDQ pairs around such a node can be of use."""
        return self.role is not Role.FLOAT


def row(node: ir.Node) -> FusionRule | None:
    """The rule for ``node`` by operator, attributes and opset; ``None`` if it is not in the table: it stays float."""
    if node.domain not in {"", "ai.onnx"}:
        return None
    version = _opset(node)
    rules = _BY_TYPE.get(node.op_type, ())
    return next((rule for rule in rules if rule.opset <= version and rule.accepts(node)), None)


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


def _opset(node: ir.Node) -> int:
    """What the graph of ``node`` imports; enough for every row, if that is not known."""
    version = 0 if node.graph is None else queries.opset_version(node.graph)
    return version or PER_CHANNEL_OPSET


def channel_axis(node: ir.Node) -> int | None:
    """The axis of a kernel's weight that may have scales of its own; ``None``: per tensor only.

    Scales along any other axis make the node float, and with no Q behind a MatMul worse: an error when it is run, or
    wrong numbers where the weight is square. A MatMul with a weight of rank 3 or more takes one scale.
    """
    match node.op_type:
        case "Conv":
            return 0
        case "Gemm":
            return 0 if fusion_conditions.is_transposed(node) else 1
        case "MatMul":
            weight = node.inputs[1]
            return 1 if weight is not None and weight.shape is not None and len(weight.shape) == 2 else None
    return None


def constant_type(activation: str, target: str) -> str:
    """The integer type of constants that meet activations in Add, Mul, Concat or on the left of a MatMul.

    Args:
        activation: ``uint8`` or ``int8``.
        target: ``x86-vnni``, ``x86-avx2``, ``arm64``.
    """
    return activation if target.startswith("arm") else "uint8"


_N_BITS = frozenset({"MatMulNBits"})


def _kernels() -> Iterable[FusionRule]:
    yield FusionRule("Conv", Role.KERNEL, frozenset({"QLinearConv"}), quantized=(0, 1))
    yield FusionRule(
        "MatMul",
        Role.KERNEL,
        frozenset({"QLinearMatMul"}),
        without_q=frozenset({"MatMulIntegerToFloat", "QGemm"}),
        quantized=(0, 1),
        weights_only=_N_BITS,
    )
    when = "there is no bias, or alpha = beta = 1"
    gemm = FusionRule(
        "Gemm",
        Role.KERNEL,
        frozenset({"QGemm"}),
        without_q=frozenset({"QGemm"}),
        quantized=(0, 1),
        when=when,
        accepts=fusion_conditions.is_plain_gemm,
    )
    yield replace(
        gemm, weights_only=_N_BITS, when=f"transB = 0, and {when}", accepts=fusion_conditions.is_not_transposed
    )
    yield gemm


def _elementwise() -> Iterable[FusionRule]:
    for op_type in ("Add", "Mul"):
        yield FusionRule(op_type, Role.ELEMENTWISE, frozenset({f"QLinear{op_type}"}), quantized=(0, 1))
    yield FusionRule("Where", Role.ELEMENTWISE, frozenset({"QLinearWhere"}), quantized=(1, 2))
    yield FusionRule("Concat", Role.ELEMENTWISE, frozenset({"QLinearConcat"}), quantized=None)
    yield FusionRule(
        "AveragePool",
        Role.ELEMENTWISE,
        frozenset({"QLinearAveragePool"}),
        when="not dilated; if it is, pairs around it make a model that does not load",
        accepts=fusion_conditions.is_dense,
    )
    for op_type in ("GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"):
        yield FusionRule(op_type, Role.ELEMENTWISE, frozenset({f"QLinear{op_type}"}))


def _same_scale() -> Iterable[FusionRule]:
    for op_type in ("Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"):
        runs_as = frozenset({op_type})
        yield FusionRule(op_type, Role.SAME_SCALE, runs_as, without_q=runs_as)
    for op_type in ("Expand", "Flatten", "Gather", "GatherElements", "Split", "Tile"):
        yield FusionRule(op_type, Role.SAME_SCALE, frozenset({op_type}))
    yield FusionRule("DepthToSpace", Role.SAME_SCALE, frozenset({"DepthToSpace"}), opset=11)
    for op_type in ("ReduceMax", "ReduceMin"):
        yield FusionRule(op_type, Role.SAME_SCALE, frozenset({op_type}), opset=12)
    pools = frozenset({"MaxPool", "NhwcMaxPool"})
    yield FusionRule(
        "MaxPool",
        Role.SAME_SCALE,
        pools,
        without_q=pools,
        opset=12,
        when="only its first output is used",
        accepts=operators.has_one_output,
    )
    yield FusionRule(
        "Resize",
        Role.SAME_SCALE,
        frozenset({"Resize"}),
        when="mode is nearest",
        accepts=operators.is_nearest,
    )


def _absorbed() -> Iterable[FusionRule]:
    yield FusionRule(
        "Relu", Role.ABSORBED, when="the zero point behind it is qmin; otherwise the node before goes float too"
    )
    yield FusionRule(
        "Clip",
        Role.ABSORBED,
        when="the Q behind it expresses nothing outside [min, max]; otherwise the node before goes float too",
    )
    yield FusionRule("Cast", Role.REMOVED, when="to float", accepts=fusion_conditions.is_to_float)
    yield FusionRule("Dropout", Role.REMOVED)
    yield FusionRule("Identity", Role.REMOVED)


FLOAT_OPS = (
    *("Abs", "ArgMax", "AveragePool", "BatchNormalization", "Celu", "ConvTranspose", "Cos", "CumSum", "Div", "Einsum"),
    *("Elu", "Equal", "Erf", "Exp", "Floor", "GRU", "GatherND", "Gelu", "Gemm", "GlobalMaxPool", "Greater"),
    *("HardSigmoid", "HardSwish", "InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "Less", "Log"),
    *("LogSoftmax", "LpNormalization", "Max", "MaxPool", "Mean", "Min", "Mish", "Neg", "PRelu", "Pad", "Pow"),
    *("Reciprocal", "ReduceMean", "ReduceSum", "Resize", "Selu", "Sin", "Softplus", "SpaceToDepth", "Sqrt", "Sub"),
    *("Sum", "Tanh", "ThresholdedRelu", "TopK", "Trilu"),
)

TABLE: tuple[FusionRule, ...] = (
    *_kernels(),
    *_elementwise(),
    *_same_scale(),
    *_absorbed(),
    *(FusionRule(op_type, Role.FLOAT, quantized=()) for op_type in FLOAT_OPS),
)

_BY_TYPE: dict[str, tuple[FusionRule, ...]] = {
    op_type: tuple(rule for rule in TABLE if rule.op_type == op_type) for op_type in {rule.op_type for rule in TABLE}
}
