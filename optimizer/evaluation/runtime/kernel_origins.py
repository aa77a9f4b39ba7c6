"""Which node of a model each kernel of ONNX Runtime's optimized graph comes from.

ONNX Runtime builds the names of its fused nodes from those of the originals, or, in its blocked layout of Conv, from
the name of the output. So each node's name is replaced with a mark before the model is loaded, and looked for after.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    import onnx_ir as ir

INTEGER = {
    "ConvInteger": "Conv",
    "DynamicQuantizeLSTM": "LSTM",
    "DynamicQuantizeMatMul": "MatMul",
    "MatMulInteger": "MatMul",
    "MatMulInteger16": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "MatMulNBits": "MatMul",
    "QAttention": "Attention",
    "QGemm": "Gemm",
    "QLinearConv": "Conv",
    "QLinearMatMul": "MatMul",
}
FLOAT = {
    "Attention": "Attention",
    "Conv": "Conv",  # also of the domain com.microsoft.nchwc
    "ConvTranspose": "ConvTranspose",
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    "GRU": "GRU",
    "Gemm": "Gemm",
    "LSTM": "LSTM",
    "MatMul": "MatMul",
    "MultiHeadAttention": "Attention",
    "NhwcFusedConv": "Conv",
    "RNN": "RNN",
}
OPERATORS = {**FLOAT, **INTEGER}
_MARK = re.compile(r"#(\d+)#")
_BLOCKED = "_nchwc"  # a Conv in ONNX Runtime's blocked layout has the name of its output and this
ADDED = -1  # index of a kernel that ONNX Runtime adds


def mark(nodes: Iterable[ir.Node]) -> None:
    """Name each of ``nodes`` by its place."""
    for place, node in enumerate(nodes):
        node.name = f"#{place}#"


def origins(kernels: Sequence[onnx.NodeProto], nodes: Sequence[ir.Node]) -> list[int | None]:
    """Where each of ONNX Runtime's kernels comes from.

    Args:
        kernels: Nodes of its optimized graph.
        nodes: Those of the model that was loaded, as ``mark`` named them.

    Returns:
        For each kernel an index into ``nodes``; ``None`` where it cannot be told; ``ADDED`` if it was not a kernel in
        the model: a Mul by a constant for each channel runs as a Conv in the blocked layout.
    """
    # 1. By the mark in the kernel's name.
    indices = [int(match[1]) if (match := _MARK.search(kernel.name)) else None for kernel in kernels]
    claimed = {index for index in indices if index is not None}
    index_of = {id(node): index for index, node in enumerate(nodes)}
    producers = {output.name: node for node in nodes for output in node.outputs if output.name}
    # 2. Those of the blocked layout by the name of their output, from which the node is searched backwards. Exact names
    #    go first, so that a name that only contains an output's cannot claim the node of another kernel.
    blocked = {place: kernel.name.removesuffix(_BLOCKED) for place, kernel in enumerate(kernels)}
    for place in sorted(blocked, key=lambda place: blocked[place] not in producers):
        if indices[place] is None and kernels[place].name.endswith(_BLOCKED):
            output = _output_in(blocked[place], producers)
            indices[place] = None if output is None else _kernel_before(producers[output], index_of, claimed)
    return indices


def _output_in(name: str, outputs: Iterable[str]) -> str | None:
    """The output that ``name`` is made from: itself, or with what ONNX Runtime puts in front or behind (``_mul``)."""
    candidates = (output for output in outputs if name == output or _is_part(output, name))
    return max(candidates, key=len, default=None)


def _is_part(output: str, name: str) -> bool:
    return name.startswith(f"{output}_") or name.endswith(f"_{output}")


def _kernel_before(node: ir.Node, index_of: Mapping[int, int], claimed: set[int]) -> int:
    """The nearest kernel at or before ``node``, an activation or addition fused into it, that is not claimed yet.

    Returns:
        Its index; ``ADDED`` if there is none.
    """
    waiting = [node]
    for current in waiting:
        index = index_of.get(id(current))
        if index is None:
            continue
        if current.op_type in OPERATORS:
            if index not in claimed:
                claimed.add(index)
                return index
            continue
        producers = (value.producer() for value in current.inputs if value is not None)
        waiting += [producer for producer in producers if producer is not None and producer not in waiting]
    return ADDED
