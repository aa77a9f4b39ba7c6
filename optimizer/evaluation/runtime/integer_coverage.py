"""How much of a model really runs in integers: ONNX Runtime's optimized graph, read back and counted.

A quantized model says little about what runs: a pair of QuantizeLinear and DequantizeLinear that ONNX Runtime does not
fuse leaves the float operator and makes it slower. So the graph is taken after all of its optimizations, and each
operator in it that multiplies with weights, or two activations, is counted as integer or float under the operator that
it was in the model: a MatMul and its Add that became a QGemm are a MatMul.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.evaluation.runtime import kernel_origins
from optimizer.evaluation.runtime.introspection import optimized_graphs
from optimizer.evaluation.runtime.kernel_origins import ADDED, INTEGER, OPERATORS
from optimizer.graph import traversal
from optimizer.graph.names import first_few
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    import onnx_ir as ir


@dataclass(frozen=True)
class KernelCount:
    """Kernels of one operator of the model.

    Attributes:
        integer: How many run in integers.
        total: How many there are.
    """

    integer: int
    total: int


@dataclass(frozen=True)
class FloatKernel:
    """A kernel that runs in float.

    Attributes:
        name: The node's name, or that of its output if it has none.
        operator: Its operator in the model.
    """

    name: str
    operator: str


@dataclass(frozen=True)
class Coverage:
    """What runs in integers.

    Attributes:
        kernels: By operator of the model, sorted by name.
        weights_only: How many of those in integers have quantized weights and float inputs (MatMulNBits).
        float_kernels: The other kernels.
        quantize: QuantizeLinear nodes that ONNX Runtime did not fuse, at the borders between integers and float.
        dequantize: DequantizeLinear nodes that it did not fuse.
        round_trips: Values that are quantized and dequantized again, with nothing in between: pairs that did not fuse.
        dequantized_weights: Constants that are dequantized at every run, slower than float ones.
    """

    kernels: Mapping[str, KernelCount]
    weights_only: int
    float_kernels: tuple[FloatKernel, ...]
    quantize: int
    dequantize: int
    round_trips: tuple[str, ...]
    dequantized_weights: tuple[str, ...]

    @property
    def integer(self) -> int:
        """Kernels of all operators that run in integers."""
        return sum(count.integer for count in self.kernels.values())

    @property
    def is_quantized(self) -> bool:
        """Whether anything runs in integers, or was meant to."""
        return bool(self.integer or self.quantize or self.dequantize)

    @property
    def total(self) -> int:
        """Kernels of all operators."""
        return sum(count.total for count in self.kernels.values())

    def text(self) -> str:
        """One line: ``int8: 47 of 53 Conv, 12 of 12 MatMul; 6 left float``."""
        counts = ", ".join(f"{count.integer} of {count.total} {operator}" for operator, count in self.kernels.items())
        clauses = [f"int8: {counts or 'no kernels'}"]
        if self.weights_only:
            clauses.append(f"{self.weights_only} of them by their weights only")
        if self.float_kernels:
            clauses.append(f"{len(self.float_kernels)} left float")
        if self.dequantized_weights:
            names = self.dequantized_weights
            clauses.append(f"{len(names)} weights dequantized at every run: {first_few(names)}")
        if self.round_trips:
            clauses.append(f"{len(self.round_trips)} pairs that did not fuse: {first_few(self.round_trips)}")
        return "; ".join(clauses)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kernels": {
                operator: {"integer": count.integer, "total": count.total} for operator, count in self.kernels.items()
            },
            "weights_only": self.weights_only,
            "float_kernels": [{"name": kernel.name, "operator": kernel.operator} for kernel in self.float_kernels],
            "quantize": self.quantize,
            "dequantize": self.dequantize,
            "round_trips": list(self.round_trips),
            "dequantized_weights": list(self.dequantized_weights),
        }


def coverage(model: ir.Model) -> Coverage:
    """Count what of ``model`` runs in integers on this machine.

    Args:
        model: Quantized or not; it is not changed.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot load it.
    """
    # 1. A copy whose nodes are marked with their index, and its optimized graph.
    marked = clone(model)
    nodes = list(traversal.nodes(marked))
    original_names = {
        output.name: node.name for node in traversal.nodes(model) for output in node.outputs if output.name
    }
    names = [_name(node, original_names) for node in nodes]
    kernel_origins.mark(nodes)
    graphs = optimized_graphs(marked)
    kernels = [node for graph in graphs for node in graph.node if node.op_type in OPERATORS]
    # 2. For each kernel, whether it runs in integers, and its node. Those that ONNX Runtime adds are none of the model.
    counted = [
        (
            kernel.op_type in INTEGER,
            FloatKernel(kernel.name if index is None else names[index], _operator(kernel, index, nodes)),
        )
        for kernel, index in zip(kernels, kernel_origins.origins(kernels, nodes), strict=True)
        if index is None or (index != ADDED and _is_float(nodes[index]))
    ]
    # 3. Counts by operator of the model.
    totals = Counter(kernel.operator for _, kernel in counted)
    integers = Counter(kernel.operator for is_integer, kernel in counted if is_integer)
    operators = Counter(node.op_type for graph in graphs for node in graph.node)
    return Coverage(
        {operator: KernelCount(integers[operator], totals[operator]) for operator in sorted(totals)},
        operators["MatMulNBits"],
        tuple(kernel for is_integer, kernel in counted if not is_integer),
        operators["QuantizeLinear"],
        operators["DequantizeLinear"],
        tuple(name for graph in graphs for name in _round_trips(graph)),
        tuple(_dequantized_constants(graphs)),
    )


def _name(node: ir.Node, original_names: Mapping[str, str | None]) -> str:
    """The name of ``node`` in the model before it was cloned, which makes up names; else that of its output."""
    output = next((output.name for output in node.outputs if output.name), None)
    return (original_names.get(output) if output else node.name) or output or node.op_type


def _operator(kernel: onnx.NodeProto, index: int | None, nodes: Sequence[ir.Node]) -> str:
    """The operator that ``kernel`` was in the model."""
    operator = OPERATORS[kernel.op_type]
    return operator if index is None else OPERATORS.get(nodes[index].op_type, operator)


def _is_float(node: ir.Node) -> bool:
    """Whether a kernel computes floating-point numbers, as far as is known; quantized operators stand for such."""
    if node.op_type in INTEGER:
        return True
    dtype = node.outputs[0].dtype
    return dtype is None or dtype.is_floating_point()


def _round_trips(graph: onnx.GraphProto) -> Iterator[str]:
    """The inputs of QuantizeLinear nodes whose output nothing but a DequantizeLinear reads."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        is_inner = node.op_type == "QuantizeLinear" and node.output[0] not in outputs
        if is_inner and readers.get(node.output[0]) == {"DequantizeLinear"}:
            yield node.input[0]


def _dequantized_constants(graphs: Sequence[onnx.GraphProto]) -> Iterator[str]:
    """Initializers that a DequantizeLinear reads; a body reads those of the graphs around it."""
    constants = {initializer.name for graph in graphs for initializer in graph.initializer}
    for graph in graphs:
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in constants:
                yield node.input[0]
