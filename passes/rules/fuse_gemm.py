"""Fuse what stands around a product of two matrices into one Gemm.

::

    A B + C = Gemm(A, B, C)                    for a MatMul of matrices, or a Gemm that adds nothing yet
    Gemm(A^T, B) = Gemm(A, B, transA=1)        and the same for B
    A^T B = Gemm(A, B, transA=1)               for a MatMul of matrices

C has to broadcast to the product and not enlarge it. Products of dequantized matrices stay: ONNX Runtime has integer
kernels for MatMul that it has not for Gemm.

Counterparts elsewhere: ``_matmul_add_to_gemm`` of onnxscript's rewriter, ``MatMulAddFusion`` and
``GemmTransposeFusion`` of ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, changed_form, form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, permutations, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.edit import NodeForm
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_OLDEST_OPSET = 7
_BIASLESS_GEMM = 11


class FuseMatMulAdd(Rule):
    """Add of something to a product of matrices."""

    name: ClassVar[str] = "fuse-matmul-add"
    summary: ClassVar[str] = "Add after a MatMul of matrices, or after a Gemm without a bias, into a Gemm"
    ops: ClassVar[frozenset[str]] = frozenset({"Add"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn the Add ``node`` into a Gemm."""
        if len(node.inputs) != 2 or rewriter.opset(node) < _OLDEST_OPSET:
            return NO_MATCH
        refusal = NO_MATCH
        for index, value in enumerate(node.inputs):
            product, addend = None if value is None else value.producer(), node.inputs[1 - index]
            if product is None or addend is None or product.graph is not node.graph:
                continue
            if not _is_plain_product(product):
                continue
            obstacle = _obstacle(product, addend, node)
            if obstacle is None:
                attributes = [each for each in product.attributes.values() if each.name != "beta"]
                new = form("Gemm", [*product.inputs[:2], addend], *attributes)
                return self.apply(Edit(forms={node: new}), rewriter, node)
            refusal = obstacle
        return refusal


def _is_plain_product(node: ir.Node) -> bool:
    """Whether ``node`` is a product of matrices and nothing more."""
    if not queries.is_standard(node, "MatMul", "Gemm") or queries.has_references(node):
        return False
    is_plain = len(node.inputs) < 3 or node.inputs[2] is None
    return is_plain and all(queries.rank(value) == 2 for value in node.inputs[:2])


def _obstacle(product: ir.Node, addend: ir.Value, node: ir.Node) -> Refusal | None:
    """Why ``product`` and the Add ``node`` of ``addend`` are no Gemm; ``None`` if they are one."""
    if queries.only_consumer(product.outputs[0]) is not node:
        return Refusal("the product has other users")
    if not _is_broadcast(addend, _product_dims(product)):
        return Refusal("what is added may enlarge the product, or is not of floats")
    return _obstacle_of_factors(product)


def _obstacle_of_factors(product: ir.Node) -> Refusal | None:
    """Why the matrices that ``product`` multiplies are none of a Gemm; ``None`` if they are."""
    for value in product.inputs[:2]:
        producer = None if value is None else value.producer()
        if value is None or value.dtype not in constants.FLOATS:
            return Refusal("the matrices are not of floats")
        if producer is not None and queries.is_standard(producer, "DequantizeLinear"):
            return Refusal("a matrix is dequantized: the integer kernels are those of MatMul")
    return None


def _product_dims(node: ir.Node) -> list[int | str | None]:
    """Rows and columns of what ``node`` computes; a name stands for itself, ``None`` is unknown."""
    transposed = [node.op_type == "Gemm" and node.attributes.get_int(name, 0) != 0 for name in ("transA", "transB")]
    rows, columns = (_dims(value) for value in node.inputs[:2])
    return [rows[1 if transposed[0] else 0], columns[0 if transposed[1] else 1]]


def _dims(value: ir.Value | None) -> list[int | str | None]:
    if value is None or value.shape is None:
        return []
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _is_broadcast(value: ir.Value, dims: Sequence[int | str | None]) -> bool:
    """Whether ``value`` broadcasts to a matrix of the size ``dims`` for certain, and leaves its size as it is."""
    value_dims = list(constants.known_shape(value) or _dims(value))
    if value.shape is None or value.dtype not in constants.FLOATS or len(value_dims) > len(dims):
        return False
    return all(
        mine == 1 or (mine is not None and mine == theirs)
        for mine, theirs in zip(reversed(value_dims), reversed(dims), strict=False)
    )


class FuseTransposeIntoGemm(Rule):
    """Transpose of a matrix into the Gemm or MatMul that alone reads it."""

    name: ClassVar[str] = "fuse-transpose-into-gemm"
    summary: ClassVar[str] = "Transpose of a matrix into the transA or transB of the Gemm, or MatMul, after it"
    ops: ClassVar[frozenset[str]] = frozenset({"Gemm", "MatMul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` read what is transposed before it."""
        refusal = NO_MATCH
        for index, name in enumerate(("transA", "transB")):
            value = node.inputs[index]
            transpose = None if value is None else value.producer()
            if transpose is None or permutations.permutation(transpose) != (1, 0):
                continue
            obstacle = _obstacle_to_transposing(node, value, rewriter)
            if obstacle is None:
                return self.apply(Edit(forms={node: _without_transpose(node, transpose, index, name)}), rewriter, node)
            refusal = obstacle
        return refusal


def _obstacle_to_transposing(node: ir.Node, value: ir.Value | None, rewriter: Rewriter) -> Refusal | None:
    """Why ``node`` cannot transpose ``value`` by itself; ``None`` if it can."""
    if any(queries.rank(each) != 2 for each in node.inputs[:2]):
        return NO_MATCH
    if rewriter.opset(node) < (_OLDEST_OPSET if node.op_type == "Gemm" else _BIASLESS_GEMM):
        return Refusal("a Gemm before opset 11 has to have a bias")
    if queries.only_consumer(value) is not node:
        return Refusal("what is transposed has other users")
    return _obstacle_of_factors(node)


def _without_transpose(node: ir.Node, transpose: ir.Node, index: int, name: str) -> NodeForm:
    """``node`` as a Gemm that reads what ``transpose`` reads."""
    inputs = [transpose.inputs[0] if place == index else value for place, value in enumerate(node.inputs)]
    is_transposed_once = node.attributes.get_int(name, 0) == 0
    flag = [ir.AttrInt64(name, 1)] if is_transposed_once else []
    return changed_form(node, "Gemm", inputs, flag, without=[name])


RULES: tuple[Rule, ...] = (FuseMatMulAdd(), FuseTransposeIntoGemm())
