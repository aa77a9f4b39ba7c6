"""Conditions of the fusion table on one node: its attributes, inputs and outputs."""

from __future__ import annotations

import onnx_ir as ir


def always(node: ir.Node) -> bool:  # noqa: ARG001 - the signature of a condition
    """Any node."""
    return True


def is_transposed(node: ir.Node) -> bool:
    """Whether a Gemm reads its weight transposed."""
    return bool(_int(node, "transB", 0))


def is_plain_gemm(node: ir.Node) -> bool:
    """Whether a Gemm has no bias, or alpha and beta are 1."""
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    return not has_bias or (_float(node, "alpha", 1.0) == _float(node, "beta", 1.0) == 1.0)


def is_not_transposed(node: ir.Node) -> bool:
    """Whether a plain Gemm reads its weight as it is."""
    return is_plain_gemm(node) and not is_transposed(node)


def is_dense(node: ir.Node) -> bool:
    """Whether a pool has no dilations."""
    dilations = node.attributes.get("dilations")
    return dilations is None or set(dilations.as_ints()) <= {1}


def is_to_float(node: ir.Node) -> bool:
    """Whether a Cast is to float32."""
    return _int(node, "to", 0) == ir.DataType.FLOAT.value


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()
