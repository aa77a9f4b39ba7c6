"""Does a row of the fusion table pay? Time of the integer kernel over that of the float one, at typical sizes.

Each case is a small model in fp32 and the same with QuantizeLinear / DequantizeLinear around every node, whose inputs
and outputs are uint8, so that nothing is measured but the kernel. Kernels of Conv are chained four times, since ONNX
Runtime changes the layout before the first and behind the last. Paired times of one thread in fresh sessions.

    python benchmarks/fused_kernels.py [--only Conv] [--pairs 3] [--json FILE]

Takes about two minutes. Ratios hold for this machine's kind of CPU (VNNI or not), which is printed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from optimizer.contract import targets
from optimizer.evaluation.runtime.introspection import optimized_graphs
from optimizer.evaluation.runtime.session import prepare, session
from optimizer.evaluation.runtime.timing import clock_for, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

SECONDS = 2.5  # for a case
SCALE = np.float32(0.05)
ZERO_POINT = np.uint8(128)


@dataclass(frozen=True)
class Case:
    """One operator at one size.

    Attributes:
        name: Of the line.
        op_type: The operator.
        shape: Of its first input.
        weight: Shape of its weight, if it has one.
        axis: That of the weight's scales.
        inputs: How many inputs of ``shape``, or their shapes.
        attributes: Of the operator.
        constants: Further inputs that stay as they are.
        chain: How often it comes in a row.
        kind: Type of the weight.
        has_q: Whether there is a Q on the output.
        behind_conv: Whether a Conv 1x1 comes before it, whose layout it may keep.
    """

    name: str
    op_type: str
    shape: tuple[int, ...]
    weight: tuple[int, ...] = ()
    axis: int = 0
    inputs: int | tuple[tuple[int, ...], ...] = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Any, ...] = ()
    chain: int = 1
    kind: type[np.generic] = np.int8
    has_q: bool = True
    behind_conv: bool = False

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the model's inputs."""
        return (self.shape,) * self.inputs if isinstance(self.inputs, int) else self.inputs


IMAGE, SMALL, WIDE = (1, 64, 56, 56), (1, 192, 28, 28), (1, 256, 28, 28)
HEADS, ROWS = (12, 128, 64), (128, 768)
PAD, PAD2 = {"pads": [1] * 4}, {"pads": [2] * 4}
POOL = {"kernel_shape": [3, 3]}
TWICE = np.array([1, 1, 2, 2], np.float32)
UNSIGNED = np.uint8
CASES = (
    Case("Conv 3x3, 64 channels", "Conv", IMAGE, (64, 64, 3, 3), chain=4, attributes=PAD),
    Case("the same, uint8 weights", "Conv", IMAGE, (64, 64, 3, 3), chain=4, attributes=PAD, kind=UNSIGNED),
    Case("Conv 1x1, 256 channels", "Conv", WIDE, (256, 256, 1, 1), chain=4),
    Case("Conv 3x3 depthwise, 192 channels", "Conv", SMALL, (192, 1, 3, 3), chain=4, attributes=PAD | {"group": 192}),
    Case("Conv 5x5 depthwise, 192 channels", "Conv", SMALL, (192, 1, 5, 5), chain=4, attributes=PAD2 | {"group": 192}),
    Case("Conv 3x3, 8 groups of 8 channels", "Conv", IMAGE, (64, 8, 3, 3), chain=4, attributes=PAD | {"group": 8}),
    Case("Conv 3x3, 3 channels to 32", "Conv", (1, 3, 224, 224), (32, 3, 3, 3), attributes=PAD | {"strides": [2, 2]}),
    Case("Conv 1-d, 64 channels, 9 wide", "Conv", (1, 64, 1000), (64, 64, 9), chain=4, attributes={"pads": [4, 4]}),
    Case("Conv 3-d, 32 channels", "Conv", (1, 32, 8, 28, 28), (32, 32, 3, 3, 3), chain=2, attributes={"pads": [1] * 6}),
    Case("MatMul 1 x 768 x 768", "MatMul", (1, 768), (768, 768), 1, chain=4),
    Case("MatMul 128 x 768 x 768", "MatMul", ROWS, (768, 768), 1),
    Case("the same, no Q behind", "MatMul", ROWS, (768, 768), 1, has_q=False),
    Case("the same, uint8 weights", "MatMul", ROWS, (768, 768), 1, kind=UNSIGNED),
    Case("MatMul of activations 12 x 128 x 64 x 128", "MatMul", HEADS, inputs=(HEADS, (12, 64, 128))),
    Case("Gemm 1 x 1280 x 1000", "Gemm", (1, 1280), (1280, 1000), 1),
    Case("Gemm 64 x 512 x 512", "Gemm", (64, 512), (512, 512), 1),
    Case("Add", "Add", IMAGE, inputs=2),
    Case("Add of a value for each channel", "Add", IMAGE, inputs=(IMAGE, (1, 64, 1, 1))),
    Case("Mul", "Mul", IMAGE, inputs=2),
    Case("Mul of a value for each channel", "Mul", IMAGE, inputs=(IMAGE, (1, 64, 1, 1))),
    Case("Concat", "Concat", IMAGE, inputs=2, attributes={"axis": 1}),
    Case("Sigmoid", "Sigmoid", IMAGE),
    Case("LeakyRelu", "LeakyRelu", IMAGE, attributes={"alpha": 0.1}),
    Case("Softmax 1536 x 128", "Softmax", (1536, 128), attributes={"axis": -1}),
    Case("GlobalAveragePool", "GlobalAveragePool", IMAGE),
    Case("AveragePool 3x3", "AveragePool", IMAGE, attributes=POOL),
    Case("MaxPool 3x3", "MaxPool", IMAGE, attributes=POOL),
    Case("Conv 1x1, 64 channels", "Conv", IMAGE, (64, 64, 1, 1)),
    Case("Conv 1x1, then Add", "Add", IMAGE, inputs=2, behind_conv=True),
    Case("Conv 1x1, then GlobalAveragePool", "GlobalAveragePool", IMAGE, behind_conv=True),
    Case("Conv 1x1, then AveragePool 3x3", "AveragePool", IMAGE, attributes=POOL, behind_conv=True),
    Case("Conv 1x1, then MaxPool 3x3", "MaxPool", IMAGE, attributes=POOL, behind_conv=True),
    Case("Transpose to channels last", "Transpose", IMAGE, attributes={"perm": [0, 2, 3, 1]}),
    Case("Transpose of heads", "Transpose", (1, 128, 12, 64), attributes={"perm": [0, 2, 1, 3]}),
    Case("Resize nearest x2", "Resize", IMAGE, attributes={"mode": "nearest"}, constants=(None, TWICE)),
    Case("Slice of channels", "Slice", IMAGE, constants=([16], [48], [1])),
    Case("ReduceMax", "ReduceMax", IMAGE, constants=([2, 3],)),
    Case("never fused: HardSwish", "HardSwish", IMAGE),
    Case("never fused: ConvTranspose 2x2", "ConvTranspose", IMAGE, (64, 64, 2, 2), 1, attributes={"strides": [2, 2]}),
)


class Net:
    """A model in the making, in fp32 or quantized."""

    def __init__(self, *, quantized: bool) -> None:
        self.quantized = quantized
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.ports: list[onnx.ValueInfoProto] = []
        self.parameters = (self.constant(SCALE), self.constant(ZERO_POINT)) if quantized else ()

    def constant(self, array: Any) -> str:
        """Name of a new initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Name of the output of a new node."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], f"n{len(self.nodes)}", **attributes))
        return name

    def input(self, shape: tuple[int, ...]) -> str:
        """A float input, or an uint8 one behind a DequantizeLinear."""
        name = f"x{len(self.ports)}"
        kind = TensorProto.UINT8 if self.quantized else TensorProto.FLOAT
        self.ports.append(helper.make_tensor_value_info(name, kind, shape))
        return self.node("DequantizeLinear", [name, *self.parameters]) if self.quantized else name

    def weight(self, shape: tuple[int, ...], axis: int = 0, kind: type[np.generic] = np.int8) -> str:
        """Of random numbers, held to 7 bits."""
        middle = 128 if kind is UNSIGNED else 0
        integers = np.random.default_rng(0).integers(-63, 64, shape)
        scales = np.full(shape[axis], 0.002, np.float32)
        if not self.quantized:
            return self.constant(integers.astype(np.float32) * np.float32(0.002))
        zero_points = np.full(scales.shape, middle, kind)
        names = [self.constant(array) for array in ((integers + middle).astype(kind), scales, zero_points)]
        return self.node("DequantizeLinear", names, axis=axis)

    def pair(self, value: str) -> str:
        """``value`` behind a Q and a DQ, in the quantized model."""
        if not self.quantized:
            return value
        integers = self.node("QuantizeLinear", [value, *self.parameters])
        return self.node("DequantizeLinear", [integers, *self.parameters])

    def model(self, output: str, *, is_float: bool) -> ir.Model:
        """The finished model."""
        kind = TensorProto.FLOAT if is_float else TensorProto.UINT8
        outputs = [helper.make_tensor_value_info(output, kind, None)]
        graph = helper.make_graph(self.nodes, "case", self.ports, outputs, self.constants)
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def build(case: Case, *, quantized: bool) -> ir.Model:
    """The model of ``case``."""
    net = Net(quantized=quantized)
    values = [net.input(shape) for shape in case.input_shapes]
    constants = ["" if item is None else net.constant(item) for item in case.constants]
    if case.behind_conv:
        channels = case.shape[1]
        values[0] = net.pair(net.node("Conv", [values[0], net.weight((channels, channels, 1, 1))]))
    for place in range(case.chain):
        weights = [net.weight(case.weight, case.axis, case.kind)] if case.weight else []
        output = net.node(case.op_type, [*values, *weights, *constants], **case.attributes)
        if place < case.chain - 1:
            values = [net.pair(output)]
    if quantized and case.has_q:
        return net.model(net.node("QuantizeLinear", [output, *net.parameters]), is_float=False)
    return net.model(output, is_float=True)


def feed(case: Case, *, quantized: bool) -> dict[str, Any]:
    """Random inputs, the same for both models."""
    random = np.random.default_rng(1)
    integers = {f"x{place}": random.integers(0, 256, shape) for place, shape in enumerate(case.input_shapes)}
    if quantized:
        return {name: array.astype(np.uint8) for name, array in integers.items()}
    return {name: (array - 128).astype(np.float32) * SCALE for name, array in integers.items()}


def measure(case: Case, pairs: int) -> dict[str, Any]:
    """Ratio and interval of one case, and what it ran as."""
    model = build(case, quantized=True)
    sides = [(prepare(build(case, quantized=side)), feed(case, quantized=side)) for side in (False, True)]
    reference, candidate = (lambda side=side: session(side[0]).runner([side[1]]) for side in sides)
    latency = compare(reference, candidate, clock=clock_for(1), pairs=pairs, time_limit=SECONDS)
    counts = Counter(node.op_type for graph in optimized_graphs(model) for node in graph.node)
    ran = {name: count for name, count in sorted(counts.items()) if not name.startswith("Reorder")}
    return {"case": case.name, "runs_as": ran} | latency.to_dict()


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = targets.resolve(targets.AUTO).name
    print(f"target {machine}, onnxruntime {onnxruntime.__version__}, one thread; int8 time / fp32 time")
    results = []
    for case in CASES:
        if options.only not in case.name:
            continue
        result = measure(case, options.pairs)
        results.append(result)
        ran = ", ".join(f"{count} {name}" for name, count in result["runs_as"].items())
        interval = f"({result['low']:.2f} to {result['high']:.2f})"
        milliseconds = f"{result['reference_seconds'] * 1e3:7.3f} ms"
        print(f"{case.name:44s} {result['ratio']:5.2f} {interval:16s} {milliseconds}  {ran}", flush=True)
    if options.json:
        report = {"target": machine, "onnxruntime": onnxruntime.__version__, "results": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
