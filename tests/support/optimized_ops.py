"""The operators that ONNX Runtime really runs."""

from __future__ import annotations

from collections import Counter

from optimizer.evaluation.runtime.introspection import optimized_graphs


def optimized_ops(model):
    """Nodes by operator after ONNX Runtime's own optimizations, in subgraphs too, sorted by name."""
    counts = Counter(node.op_type for graph in optimized_graphs(model) for node in graph.node)
    return dict(sorted(counts.items()))
