"""Weights stored as integers, in the forms that ONNX Runtime makes something of.

::

    float      Reshape(Mul(Sub(Cast(q), Cast(z)), s))     folded to a float32 constant when the model is loaded
    integer    MatMul(x, DequantizeLinear(q, s, z))       fused to MatMulNBits, which quantizes its activations too,
                                                          if nobody else reads q
    table      Cast(Gather(q, i)) * Gather(s, i)          only the lines that are looked up become floats

Sub and Reshape are there only where they are needed. Measured (ONNX Runtime 1.32, one thread, AVX2), against float32:
the float form takes the same time whatever reads the weight; a DequantizeLinear that is not fused (before Conv, Gemm
or Gather) runs at each inference. MatMulNBits takes 0.5 to 0.8 with a single row of activations; with 32 to 128 rows
1.3 to 1.7 for 8 bits and 0.9 to 1.2 for 4, and its own error, that of the activations, is 0.3 to 0.5 %. The table form
takes 10 microseconds more for 128 lines and a quarter of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.quantization.weight_only import node_chain
from optimizer.algorithms.quantization.weight_only.node_chain import NodeChain
from optimizer.algorithms.rewriting.rewriter import Rewriter, owner
from optimizer.graph import constants, editing, weight_sources

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.weight_only.weights import StoredWeight
    from optimizer.algorithms.quantization.weight_rows import Packed


@dataclass
class Dequantizer:
    """Puts integers in the place of float weights.

    Attributes:
        scope: The model.
    """

    rewriter: Rewriter

    def __post_init__(self) -> None:
        self._made: dict[Hashable, tuple[ir.Value, ir.Value, ir.Value | None]] = {}

    def as_floats(self, weight: StoredWeight, packed: Packed) -> None:
        """Let all readers of ``weight`` read the floats that ``packed`` stands for."""
        root = weight.holder.value
        anchor = node_chain.anchor(self.rewriter, weight)
        chain = NodeChain(self.rewriter, anchor, root.name or "weight")
        integers, scale, zero = self._constants(anchor, root, packed)
        result = chain.add("Cast", [integers], {"to": ir.DataType.FLOAT})
        if zero is not None:
            result = chain.add("Sub", [result, chain.add("Cast", [zero], {"to": ir.DataType.FLOAT})])
        result = chain.add("Mul", [result, scale])
        if packed.shape is not None:
            shape = self.rewriter.constant(anchor, np.array(packed.shape, np.int64), f"{root.name}_shape")
            result = chain.add("Reshape", [result, shape])
        node_chain.stand_in(weight, result)

    def as_integers(self, weight: StoredWeight, packed: Packed) -> None:
        """Let the one product that reads ``weight`` read a DequantizeLinear of the matrix ``packed``.

        The integers go into the graph of the product: ONNX Runtime cannot load a model whose DequantizeLinear would
        fuse and reads a constant of an outer graph.
        """
        (node,), root = weight.nodes, weight.holder.value
        chain = NodeChain(self.rewriter, node, root.name or "weight")
        constants = [value for value in self._constants(node, root, packed, local=True) if value is not None]
        blocks = {"axis": 0, "block_size": packed.block} if packed.block else {"axis": 1}
        matrix = chain.add("DequantizeLinear", constants, blocks)
        result = chain.add("MatMul", [node.inputs[0], matrix], keep=node)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            result = chain.add("Add", [result, node.inputs[2]])
        _replace(node, result)

    def as_table(self, weight: StoredWeight, packed: Packed) -> None:
        """Let look-ups in ``weight`` read integers and scales."""
        root = weight.holder.value
        for node in weight.nodes:
            integers, scale, _ = self._constants(node, root, packed)
            chain = NodeChain(self.rewriter, node, node.name or root.name or "table")
            rows = chain.add("Gather", [integers, node.inputs[1]], keep=node)
            floats = chain.add("Cast", [rows], {"to": ir.DataType.FLOAT})
            result = chain.add("Mul", [floats, chain.add("Gather", [scale, node.inputs[1]])])
            _replace(node, result)

    def _constants(
        self, anchor: ir.Node, root: ir.Value, packed: Packed, *, local: bool = False
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Integers, scales and zero points; with ``local`` in the graph of ``anchor`` itself."""
        may_lift = self.rewriter.may_lift(anchor)
        key = (root, id(packed), owner(anchor) if local or not may_lift else None)
        if key not in self._made:
            tensors = [(packed.integers, f"{root.name}_{packed.integers.dtype}"), (packed.scale, f"{root.name}_scale")]
            if packed.zero_point is not None:
                tensors.append((packed.zero_point, f"{root.name}_zero_point"))
            make = self._inner_constant if local and may_lift else self.rewriter.constant
            integers, scale, *zero = (make(anchor, array, hint) for array, hint in tensors)
            self._made[key] = integers, scale, zero[0] if zero else None
        return self._made[key]

    def _inner_constant(self, anchor: ir.Node, array: NDArray[Any], hint: str) -> ir.Value:
        return constants.add_initializer(owner(anchor), self.rewriter.names.fresh(hint), array)


def _replace(node: ir.Node, result: ir.Value) -> None:
    """Let the readers of ``node`` read ``result``, of the same type and shape, and remove it."""
    editing.replace_under_its_name(result, node.outputs[0])
    weight_sources.discard([node])
