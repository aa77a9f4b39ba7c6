"""Models with one weight of each kind, for passes that store weights in another form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from optimizer.evaluation.runtime.session import session
from optimizer.io.model import load

if TYPE_CHECKING:
    from collections.abc import Mapping


KINDS = {
    "MatMul": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }",
    "weight on the left": "g (float[80, M] x) => (float[96, M] y) <float[1] w = {0}> { y = MatMul(w, x) }",
    "batch of weights": "g (float[3, M, 20] x) => (float[3, M, 30] y) <float[1] b3 = {0}> { y = MatMul(x, b3) }",
    "Gemm": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = Gemm<alpha=2.0>(x, w) }",
    "Gemm transB": "g (float[M, 96] x) => (float[M, 80] y) <float[1] wt = {0}> { y = Gemm<transB=1>(x, wt) }",
    "Conv": "g (float[1, 16, 9, 9] x) => (float[1, 24, 7, 7] y) <float[1] k = {0}> { y = Conv(x, k) }",
    "depthwise": "g (float[1, 64, 9, 9] x) => (float[1, 64, 5, 5] y) <float[1] d = {0}> { y = Conv<group=64>(x, d) }",
    "ConvTranspose": """g (float[1, 16, 9, 9] x) => (float[1, 24, 11, 11] y) <float[1] c = {0}>
                        { y = ConvTranspose(x, c) }""",
    "Gather": "g (int64[L] i) => (float[L, 64] y) <float[1] t = {0}> { y = Gather(t, i) }",
    "Slice": """g (float[20, 64] x) => (float[1, 20, 64] y)
                <float[1] p = {0}, int64[1] s = {4}, int64[1] e = {24}, int64[1] a = {1}>
                { q = Slice(p, s, e, a) y = Add(q, x) }""",
    "LSTM": """g (float[7, 2, 32] x) => (float[7, 2, 2, 24] y) <float[1] l = {0}, float[1] r = {0}>
               { y = LSTM<hidden_size=24, direction="bidirectional">(x, l, r) }""",
    "Constant": "g (float[M, 96] x) => (float[M, 80] y) { w = Constant <value = float[1] {0}> () y = MatMul(x, w) }",
    "Identity": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { i = Identity(w) y = MatMul(x, i) }",
    "Transpose": "g (float[M, 96] x) => (float[M, 80] y) <float[1] wt = {0}> { t = Transpose(wt) y = MatMul(x, t) }",
    "Cast": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { c = Cast<to=1>(w) y = MatMul(x, c) }",
}


def filled_model(text: str, filled: Mapping[str, np.ndarray], opset: int = 21, ir_version: int = 10) -> ir.Model:
    """A model from the text of a graph; what it declares as ``float[1] name = {0}`` is filled by ``filled``."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(text if text.lstrip().startswith("<") else header + text)
    functions = [node for function in proto.functions for node in function.node]
    fill(proto.graph.initializer, [*proto.graph.node, *functions], filled)
    onnx.checker.check_model(proto, full_check=True)
    return load(proto)


def fill(initializers, nodes, filled) -> None:
    for initializer in initializers:
        if initializer.name in filled and list(initializer.dims) == [1]:
            initializer.CopyFrom(onnx.numpy_helper.from_array(filled[initializer.name], initializer.name))
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                fill(attribute.g.initializer, attribute.g.node, filled)
            elif node.op_type == "Constant" and node.output[0] in filled:
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(filled[node.output[0]]))


def feeds(given: ir.Model, seed: int = 1) -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(seed), {}
    for value in given.graph.inputs:
        shape = [dim if isinstance(dim, int) else 5 for dim in value.shape]
        is_float = value.dtype.is_floating_point()
        found[value.name] = (
            random.standard_normal(shape).astype(value.dtype.numpy()) if is_float else np.ones(shape, bool)
        )
        if value.dtype == ir.DataType.INT64:
            found[value.name] = random.integers(0, 50, shape)
    return found


def assert_close(before: ir.Model, after: ir.Model, limit: float, **given: np.ndarray) -> None:
    """Hold the relative L2 of all outputs, with and without ONNX Runtime's optimizations."""
    inputs = feeds(before) | given
    expected = session(before).run(inputs)
    for optimize in (True, False):
        found = session(after, optimize=optimize).run(inputs)
        for name, array in expected.items():
            assert np.linalg.norm(found[name] - array) <= limit * np.linalg.norm(array)
