"""Make a Gemm of a product of matrices and a sum, and let a Gemm do the transposing before it.

::

    MatMul(a, b) + c = Gemm(a, b, c)        matrices; c broadcasts to the product
    Gemm(Transpose(a), b) = Gemm(a, b, transA)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer import graph
from optimizer.algorithms import weights
from optimizer.algorithms.shape_operators import dims
from optimizer.algorithms.sweep import Rule, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class FuseMatMulAdd(Rule):
    """Add after a MatMul of matrices."""

    name: ClassVar[str] = "fuse-matmul-add"
    summary: ClassVar[str] = "MatMul of matrices and Add become a Gemm"
    ops: ClassVar[frozenset[str]] = frozenset({"Add"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Make a Gemm of ``node`` and the MatMul before it."""
        if scope.opset(node) < 7:
            return False
        for index in (0, 1):
            product, other = node.inputs[index], node.inputs[1 - index]
            matmul = None if product is None or weights.reader(product) is not node else product.producer()
            if matmul is None or not graph.is_standard(matmul, "MatMul") or matmul.graph is not node.graph:
                continue
            if other is None or not _is_matrix_product(matmul) or not _broadcasts(other, product):
                continue
            if not self.permits(node, scope):
                return False
            node.op_type = "Gemm"
            node.resize_inputs(3)
            graph.set_inputs(node, [*matmul.inputs, other])
            return True
        return False


def _is_matrix_product(matmul: ir.Node) -> bool:
    return all(
        value is not None and value.dtype in weights.FLOATS and len(_dims(value) or ()) == 2
        for value in matmul.inputs
    )


def _dims(value: ir.Value) -> Sequence[Any] | None:
    return weights.shape(value) or dims(value.shape)


def _broadcasts(other: ir.Value, product: ir.Value | None) -> bool:
    """Whether ``other`` broadcasts to the shape of ``product`` and does not widen it."""
    small, large = _dims(other), None if product is None else dims(product.shape)
    if small is None or large is None or len(small) > 2:
        return False
    return _fits(small, large)


def _fits(small: Sequence[Any], large: Sequence[Any]) -> bool:
    tail = large[len(large) - len(small) :]
    return all(size in (1, wanted) for size, wanted in zip(small, tail, strict=True))


class FuseTranspose(Rule):
    """Transpose before a Gemm."""

    name: ClassVar[str] = "fuse-transpose"
    summary: ClassVar[str] = "Transpose before a Gemm becomes its transA or transB"
    ops: ClassVar[frozenset[str]] = frozenset({"Gemm"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Take the transposing of an input of ``node`` over."""
        for index, name in enumerate(("transA", "transB")):
            value = node.inputs[index]
            inner = None if value is None or weights.reader(value) is not node else value.producer()
            if inner is None or not graph.is_standard(inner, "Transpose") or graph.has_references(inner):
                continue
            perm = inner.attributes.get_ints("perm")
            if inner.inputs[0] is None or (perm is not None and list(perm) != [1, 0]):
                continue
            if not self.permits(node, scope):
                return False
            if node.attributes.get_int(name, 0):
                node.attributes.pop(name)
            else:
                node.attributes.add(ir.AttrInt64(name, 1))
            node.replace_input_with(index, inner.inputs[0])
            return True
        return False


RULES: tuple[Rule, ...] = (FuseMatMulAdd(), FuseTranspose())
