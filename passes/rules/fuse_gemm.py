"""Fuse what stands around a product of two matrices into one Gemm.

::

    A B + C = Gemm(A, B, C)                    for a MatMul of matrices, or a Gemm that adds nothing yet
    Gemm(A^T, B) = Gemm(A, B, transA=1)        and the same for B
    A^T B = Gemm(A, B, transA=1)               for a MatMul of matrices

C has to broadcast to the product and not enlarge it. Products of dequantized matrices stay: ONNX Runtime has integer
kernels for MatMul that it has not for Gemm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, editing, permutations, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_OLDEST_OPSET = 7
_BIASLESS_GEMM = 11


class FuseMatMulAdd(Rule):
    """Add of something to a product of matrices."""

    name: ClassVar[str] = "fuse-matmul-add"
    summary: ClassVar[str] = "Add after a MatMul of matrices, or after a Gemm without a bias, into a Gemm"
    ops: ClassVar[frozenset[str]] = frozenset({"Add"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Turn the Add ``node`` into a Gemm."""
        if len(node.inputs) != 2 or rewriter.opset(node) < _OLDEST_OPSET:
            return False
        for index, value in enumerate(node.inputs):
            product, other = None if value is None else value.producer(), node.inputs[1 - index]
            if (
                product is None
                or other is None
                or queries.only_consumer(value) is not node
                or product.graph is not node.graph
            ):
                continue
            if not _adds_nothing(product) or not _broadcasts_to(other, _product_dims(product)):
                continue
            if not self.permits(node, rewriter):
                return False
            _become_gemm(node, product, other)
            return True
        return False


def _adds_nothing(node: ir.Node) -> bool:
    """Whether ``node`` is a product of float matrices and nothing more."""
    if queries.has_references(node) or not queries.is_standard(node, "MatMul", "Gemm"):
        return False
    return (len(node.inputs) < 3 or node.inputs[2] is None) and _is_float_product(node)


def _is_float_product(node: ir.Node) -> bool:
    """Whether ``node`` multiplies matrices of floats that were not integers before."""
    for value in node.inputs[:2]:
        producer = None if value is None else value.producer()
        if value is None or queries.rank(value) != 2 or value.dtype not in constants.FLOATS:
            return False
        if producer is not None and queries.is_standard(producer, "DequantizeLinear"):
            return False
    return True


def _product_dims(node: ir.Node) -> list[int | str | None]:
    """Rows and columns of what ``node`` computes; a name stands for itself, ``None`` is unknown."""
    transposed = [node.op_type == "Gemm" and node.attributes.get_int(name, 0) != 0 for name in ("transA", "transB")]
    rows, columns = (_dims(value) for value in node.inputs[:2])
    return [rows[1 if transposed[0] else 0], columns[0 if transposed[1] else 1]]


def _dims(value: ir.Value | None) -> list[int | str | None]:
    if value is None or value.shape is None:
        return []
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _broadcasts_to(value: ir.Value, dims: Sequence[int | str | None]) -> bool:
    """Whether ``value`` broadcasts to a matrix of the size ``dims`` for certain, and leaves its size as it is."""
    own = list(constants.known_shape(value) or _dims(value))
    if value.shape is None or value.dtype not in constants.FLOATS or len(own) > len(dims):
        return False
    return all(
        mine == 1 or (mine is not None and mine == theirs)
        for mine, theirs in zip(reversed(own), reversed(dims), strict=False)
    )


def _become_gemm(node: ir.Node, product: ir.Node, other: ir.Value) -> None:
    node.op_type = "Gemm"
    node.attributes.clear()
    for attribute in product.attributes.values():
        if attribute.name != "beta":
            node.attributes.add(attribute)
    node.resize_inputs(3)
    editing.set_inputs(node, [*product.inputs[:2], other])


class FuseTransposeIntoGemm(Rule):
    """Transpose of a matrix into the Gemm or MatMul that alone reads it."""

    name: ClassVar[str] = "fuse-transpose-into-gemm"
    summary: ClassVar[str] = "Transpose of a matrix into the transA or transB of the Gemm, or MatMul, after it"
    ops: ClassVar[frozenset[str]] = frozenset({"Gemm", "MatMul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` read what is transposed before it."""
        oldest = _OLDEST_OPSET if node.op_type == "Gemm" else _BIASLESS_GEMM
        if rewriter.opset(node) < oldest or not _is_float_product(node):
            return False
        for index, name in enumerate(("transA", "transB")):
            value = node.inputs[index]
            before = None if value is None else value.producer()
            if before is None or queries.only_consumer(value) is not node or permutations.permutation(before) != (1, 0):
                continue
            if not self.permits(node, rewriter):
                return False
            node.op_type = "Gemm"
            flipped = 1 - node.attributes.get_int(name, 0)
            node.attributes.pop(name, None)
            if flipped:
                node.attributes.add(ir.AttrInt64(name, 1))
            node.replace_input_with(index, before.inputs[0])
            return True
        return False


RULES: tuple[Rule, ...] = (FuseMatMulAdd(), FuseTransposeIntoGemm())
