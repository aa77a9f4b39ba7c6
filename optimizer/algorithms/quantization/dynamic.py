"""Products with constant matrices in integers, their activations quantized at each run.

::

    x W + b   becomes   Q, s, z = DynamicQuantizeLinear(x)                 one for all products that read x
                        Cast(MatMulInteger(Q, W8, z)) * (s * sW) + b       W8 = round(W / sW), int8, sW for each column

ONNX Runtime fuses this to DynamicQuantizeMatMul where x has one such reader, else to DynamicQuantizeLinear and
MatMulIntegerToFloat, bias included. Measured (1.32, one thread with VNNI) against the form of DequantizeLinear before a
MatMul, which becomes a float Gemm with weights dequantized at each run where a bias follows (up to 15 times slower
than float), and against DynamicQuantizeMatMul for each reader (slower where there are several).

A Gemm's ``alpha`` goes into W, its ``beta`` into b. With W' = W8 sW an output is off by at most

    sum_k |x_k| |W_k - W'_k| + s / 2 sum_k |W'_k|        what the weights lose, and half a step of the activations

An LSTM becomes com.microsoft's DynamicQuantizeLSTM. There is no such kernel for GRU and RNN, and the one for Conv is
slower than float.

Without VNNI, x86's product of unsigned and signed bytes saturates (see ``optimizer.contract.targets``): errors of 5 %
where 1 % is due. Signed weights of 7 bits do not, nor do unsigned ones with a zero point of 128, which are 1.1 to 1.2
times slower and have 0.7 times the error (measured with AVX2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.quantization.linear import WEIGHT_INT7, WEIGHT_INT8
from optimizer.algorithms.quantization.rows import quantize_rows
from optimizer.algorithms.rewriting.rewriter import Rewriter, owner
from optimizer.graph import constants, editing, traversal, weight_sources

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.dynamic_candidates import Candidate
    from optimizer.algorithms.quantization.linear import IntegerRange
    from optimizer.algorithms.quantization.rows import Rows
    from optimizer.graph.weight_sources import ConstantOrigin

CONTRIB = "com.microsoft"
_MIDDLE = 128


@dataclass
class Quantizer:
    """Rewrites candidates; what several of them read is made once.

    Attributes:
        rewriter: Of the model.
        per_channel: Whether each column of a weight has a scale of its own.
        reduced: Whether weights are held to 7 bits.
        unsigned: Whether weights are uint8 around 128; none of them saturates, so that ``reduced`` does not count.
        known: What was quantized before, for the same weights of another copy of the model; is added to.
    """

    rewriter: Rewriter
    per_channel: bool = True
    reduced: bool = False
    unsigned: bool = False
    quantized_rows: dict[Hashable, Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._activations: dict[Hashable, tuple[ir.Value, ...]] = {}
        self._weights: dict[Hashable, tuple[ir.Value, ...]] = {}

    @property
    def grid(self) -> IntegerRange:
        """The integers of weights, before ``unsigned`` shifts them."""
        return WEIGHT_INT7 if self.reduced and not self.unsigned else WEIGHT_INT8

    def quantize(self, candidate: Candidate) -> None:
        """Put the integer form in the place of ``candidate``, whose weights are finite."""
        if candidate.node.op_type == "LSTM":
            self._recurrence(candidate)
        else:
            self._product(candidate)
        weight_sources.discard([candidate.node])

    def _product(self, candidate: Candidate) -> None:
        node, (weight,) = candidate.node, candidate.sources
        # Cast(MatMulInteger(Q, W8, z)) * (s * sW) + b: the scales are multiplied first, as ONNX Runtime fuses it
        integers, weight_scale, *weight_zero = self._matrix(node, weight)
        quantized, scale, zero_point = self._activation(node)
        sums = self._node(node, "MatMulInteger", [quantized, integers, zero_point, *weight_zero], keep=True)
        floats = self._node(node, "Cast", [sums], {"to": ir.DataType.FLOAT})
        factor = self._node(node, "Mul", [scale, weight_scale])
        result = self._node(node, "Mul", [floats, factor])
        addend = self._addend(node)
        if addend is not None:
            result = self._node(node, "Add", [result, addend])
        editing.replace_under_its_name(result, node.outputs[0])

    def _activation(self, node: ir.Node) -> tuple[ir.Value, ...]:
        """The first input of ``node`` in integers, its scale and its zero point."""
        value = node.inputs[0]
        # One DynamicQuantizeLinear for all products of a graph that read x; a branch has its own, run where it is taken
        key = value, owner(node)
        if key not in self._activations:
            maker = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=self._name(node, "quantize"))
            for output, suffix in zip(maker.outputs, ("quantized", "scale", "zero_point"), strict=True):
                output.name = self.rewriter.names.fresh(f"{'' if value is None else value.name}_{suffix}")
            owner(node).insert_before(node, maker)
            self._activations[key] = tuple(maker.outputs)
        return self._activations[key]

    def _matrix(self, node: ir.Node, weight: ConstantOrigin) -> tuple[ir.Value, ...]:
        """The weight in integers as (inputs, outputs), its scale, and its zero point if that is not 0."""
        alpha, transposed = node.attributes.get_float("alpha", 1.0), node.attributes.get_int("transB", 0) != 0
        key = (weight.key, alpha, transposed, self._place(node))
        if key not in self._weights:
            matrix = weight.array() if transposed else weight.array().T
            # A row is an output; alpha goes in before rounding, so that it costs no Mul
            rows = matrix if alpha == 1.0 else matrix * np.float32(alpha)
            quantized = self._rows(weight, rows if self.per_channel else rows.reshape(1, -1), alpha, transposed)
            scale = quantized.scale if self.per_channel else quantized.scale[0]
            stored = self._constants(node, weight, quantized.integers.reshape(rows.shape).T, scale)
            self._weights[key] = (*stored, *([self._zero_points(node, weight, scale)] if self.unsigned else []))
        return self._weights[key]

    def _addend(self, node: ir.Node) -> ir.Value | None:
        """The third input of a Gemm times its ``beta``."""
        value = node.inputs[2] if len(node.inputs) > 2 else None
        beta = node.attributes.get_float("beta", 1.0)
        if value is None or beta == 0.0:
            return None
        array = constants.float_array(value)
        if array is None:
            factor = None if beta == 1.0 else self.rewriter.constant(node, np.array(beta, np.float32), "beta")
            return value if factor is None else self._node(node, "Mul", [value, factor])
        # A constant addend takes beta in; (1, N) becomes (N,), since ONNX Runtime fuses only a vector as the bias
        is_row = array.ndim == 2 and array.shape[0] == 1
        if beta == 1.0 and not is_row:
            return value
        key = ("addend", value, beta, self._place(node))
        if key not in self._weights:
            row = array.reshape(-1) if is_row else array  # only a vector is fused
            scaled = np.asarray(row * np.float32(beta), np.float32)
            self._weights[key] = (self.rewriter.constant(node, scaled, f"{value.name}_row"),)
        return self._weights[key][0]

    def _recurrence(self, candidate: Candidate) -> None:
        node = candidate.node
        tensors = [self._directions(node, weight) for weight in candidate.sources]
        # DynamicQuantizeLSTM has the eight inputs of LSTM and behind them scale and zero point of W and of R
        inputs = [*node.inputs, *[None] * (8 - len(node.inputs))]
        inputs[1], inputs[2] = tensors[0][0], tensors[1][0]
        quantized_lstm = ir.node(
            "DynamicQuantizeLSTM",
            [*inputs, *tensors[0][1:], *tensors[1][1:]],
            domain=CONTRIB,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for attribute in node.attributes.values():
            if attribute.name != "layout":
                quantized_lstm.attributes.add(attribute)
        quantized_lstm.metadata_props.update(node.metadata_props)
        for old, new in zip(node.outputs, quantized_lstm.outputs, strict=True):
            new.name = self.rewriter.names.fresh(f"{old.name}_dynamic") if old.name else ""
        owner(node).insert_before(node, quantized_lstm)
        self._import_contrib(node)
        for old, new in zip(node.outputs, quantized_lstm.outputs, strict=True):
            editing.replace_under_its_name(new, old)

    def _directions(self, node: ir.Node, weight: ConstantOrigin) -> tuple[ir.Value, ...]:
        """An LSTM's weight in integers as (directions, inputs, gates), its scales and zero points."""
        key = (weight.key, "LSTM", self._place(node))
        if key not in self._weights:
            array = weight.array()
            directions, gates, _ = array.shape
            groups = (directions, gates) if self.per_channel else (directions,)
            quantized = self._rows(weight, array.reshape(math.prod(groups), -1))
            # LSTM holds (directions, gates, inputs), the integer kernel wants (directions, inputs, gates)
            integers = quantized.integers.reshape(array.shape).transpose(0, 2, 1)
            scale = quantized.scale.reshape(groups)
            stored = self._constants(node, weight, integers, scale)
            self._weights[key] = (*stored, self._zero_points(node, weight, scale))
        return self._weights[key]

    def _rows(self, weight: ConstantOrigin, rows: NDArray[Any], *form: Hashable) -> Rows:
        named = (weight.root.name, weight.steps, rows.shape, form)
        if named not in self.quantized_rows:
            self.quantized_rows[named] = quantize_rows(rows, self.grid)
        return self.quantized_rows[named]

    def _constants(
        self, node: ir.Node, weight: ConstantOrigin, integers: NDArray[Any], scale: NDArray[np.float32] | np.float32
    ) -> tuple[ir.Value, ...]:
        """Integers and scales as constants."""
        name = weight.root.name
        # int16 in between: int8 + 128 would wrap
        stored = (integers.astype(np.int16) + _MIDDLE).astype(np.uint8) if self.unsigned else integers
        return (
            self.rewriter.constant(node, np.ascontiguousarray(stored), f"{name}_{stored.dtype}"),
            self.rewriter.constant(node, np.asarray(scale), f"{name}_scale"),
        )

    def _zero_points(self, node: ir.Node, weight: ConstantOrigin, scale: NDArray[np.float32] | np.float32) -> ir.Value:
        """Zero points in the shape of ``scale``."""
        dtype, zero = (np.uint8, _MIDDLE) if self.unsigned else (np.int8, 0)
        return self.rewriter.constant(node, np.full(np.shape(scale), zero, dtype), f"{weight.root.name}_zero_point")

    def _place(self, node: ir.Node) -> ir.Graph | None:
        """Where constants that ``node`` reads are seen: everywhere, or only in its graph."""
        return None if self.rewriter.may_lift(node) else owner(node)

    def _node(
        self,
        node: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        attributes: dict[str, Any] | None = None,
        *,
        keep: bool = False,
    ) -> ir.Value:
        """A new node before ``node``; with ``keep`` it goes by the name of ``node``."""
        new = ir.node(op_type, inputs, attributes, name=node.name if keep else self._name(node, op_type))
        if keep:
            new.metadata_props.update(node.metadata_props)
        new.outputs[0].name = self.rewriter.names.fresh(f"{node.outputs[0].name}_{op_type}")
        owner(node).insert_before(node, new)
        return new.outputs[0]

    def _name(self, node: ir.Node, suffix: str) -> str:
        return self.rewriter.names.fresh(f"{node.name}_{suffix}") if node.name else ""

    def _import_contrib(self, node: ir.Node) -> None:
        for function in self.rewriter.model.functions.values():
            if owner(node) in set(traversal.with_subgraphs(function.graph)):
                function.opset_imports.setdefault(CONTRIB, 1)
        self.rewriter.model.opset_imports.setdefault(CONTRIB, 1)
