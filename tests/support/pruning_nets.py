"""Nets with one weight, or two, for what prunes and fits single weights, and inputs that follow from few numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.evaluation.feeds.sets import split
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import load

if TYPE_CHECKING:
    import onnx_ir as ir

RANDOM = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


FILLED = {
    "w": weight(24, 16),
    "wt": weight(16, 24),
    "wh": weight(24, 16).astype(np.float16),
    "k": weight(8, 6, 3, 3),
    "d": weight(6, 1, 3, 3),
    "c": weight(6, 8, 3, 3),
}


def model(text: str, opset: int = 17) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>' + text)
    fill(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    return load(proto)


def fill(graph) -> None:
    for initializer in graph.initializer:
        if initializer.name in FILLED:
            initializer.CopyFrom(onnx.numpy_helper.from_array(FILLED[initializer.name], initializer.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                fill(attribute.g)
            elif node.op_type == "Constant" and node.output[0] in FILLED:
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(FILLED[node.output[0]]))


NET = """g (float[N, 24] x) => (float[N, 24] y) <float[1] w = {0}, float[1] wt = {0}>
         { h = Gemm(x, w) r = Relu(h) y = Gemm(r, wt) }"""


def planted_feeds(count: int = 90) -> list[dict[str, np.ndarray]]:
    """Inputs of which two thirds follow from the others."""
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((8, 24)).astype(np.float32)
    return [{"x": rng.standard_normal((8, 8)).astype(np.float32) @ mixing} for _ in range(count)]


def evaluator_for(reference: ir.Model, budget: str) -> RuntimeEvaluator:
    feeds = planted_feeds()
    return RuntimeEvaluator(reference, split(feeds.__getitem__, len(feeds), "iterable"), Budget.parse(budget))
