"""What ONNX Runtime runs in integers: counted, and named."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
from onnx import TensorProto

from optimized_ops import optimized_ops
from optimizer.evaluation.runtime.integer_coverage import FloatKernel, KernelCount, coverage
from optimizer.evaluation.runtime.kernel_origins import FLOAT, INTEGER
from qdq import Qdq


def seen(net, names=True):
    model = ir.from_proto(net.model())
    if not names:
        for node in model.graph:
            node.name = None
    before = [node.name for node in model.graph]
    found = coverage(model)
    assert [node.name for node in model.graph] == before
    ops = optimized_ops(model)
    assert found.integer == sum(ops.get(op_type, 0) for op_type in INTEGER)
    assert found.total - found.integer == sum(ops.get(op_type, 0) for op_type in FLOAT) == len(found.float_kernels)
    assert (found.quantize, found.dequantize) == (ops.get("QuantizeLinear", 0), ops.get("DequantizeLinear", 0))
    json.dumps(found.to_dict())
    return found


def float_weight(net, *shape):
    return net.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def test_a_float_model():
    """An activation and an addition are fused into the Conv before them, which then bears the output's name."""
    net = Qdq()
    value = net.input(1, 16, 8, 8)
    side = net.node("Conv", value, float_weight(net, 16, 16, 5, 5))
    value = net.node("Relu", net.node("Conv", value, float_weight(net, 16, 16, 3, 3)))
    net.output(net.node("Add", net.node("Conv", value, float_weight(net, 16, 16, 3, 3)), side))
    convs = [node.name for node in net.nodes if node.op_type == "Conv"]
    found = seen(net)
    assert found.kernels == {"Conv": KernelCount(0, 3)}
    assert sorted(left.name for left in found.float_kernels) == sorted(convs)
    assert found.text() == "int8: 0 of 3 Conv; 3 left float"


def test_mixed_kernels_and_their_names():
    net = Qdq()
    value = net.pair(net.node("Conv", net.quantized_input(1, 16, 8, 8), net.weight(16, 16, 3, 3)))
    value = net.node("Relu", net.node("Conv", value, float_weight(net, 16, 16, 3, 3)))
    left = net.nodes[-2].name
    value = net.node("Flatten", value)
    value = net.node("MatMul", net.pair(value), net.weight(256, 8, axis=1))
    net.output(net.node("Add", value, net.bias(8)))
    found = seen(net)
    assert found.kernels == {"Conv": KernelCount(1, 2), "MatMul": KernelCount(1, 1)}, "MatMul + Add became a QGemm"
    assert found.float_kernels == (FloatKernel(left, "Conv"),)
    assert found.text() == "int8: 1 of 2 Conv, 1 of 1 MatMul; 1 left float"
    assert found.round_trips == found.dequantized_weights == ()


def test_nodes_without_names_are_called_by_their_output():
    net = Qdq()
    value = net.node("Conv", net.input(1, 16, 8, 8), float_weight(net, 16, 16, 3, 3))
    net.output(net.node("MatMul", value, float_weight(net, 6, 4)))
    found = seen(net, names=False)
    assert {left.name for left in found.float_kernels} == {node.output[0] for node in net.nodes}


def test_half_precision_and_a_scale_that_is_folded_into_a_conv():
    """ONNX Runtime writes more around the name of the output then."""
    net = Qdq()
    value = net.node("Conv", net.input(1, 16, 8, 8), float_weight(net, 16, 16, 3, 3))
    value = net.node("Mul", value, net.constant(np.full((1, 16, 1, 1), 0.5, np.float32)))
    half = net.node("Cast", value, to=TensorProto.FLOAT16)
    weight = net.constant(np.ones((16, 16, 3, 3), np.float16))
    net.output(net.node("Conv", half, weight), kind=TensorProto.FLOAT16)
    found = seen(net)
    assert {left.name for left in found.float_kernels} == {node.name for node in net.nodes if node.op_type == "Conv"}


def test_a_product_that_runs_as_a_conv_is_none_of_the_kernels():
    net = Qdq()
    value = net.node("Conv", net.input(1, 16, 8, 8), float_weight(net, 16, 16, 3, 3))
    scaled = net.node(
        "Mul", net.node("Relu", value), net.constant(np.linspace(1, 2, 16, dtype=np.float32)[:, None, None])
    )
    net.output(net.node("Conv", scaled, float_weight(net, 16, 16, 3, 3)))
    found = coverage(ir.from_proto(net.model()))
    assert optimized_ops(ir.from_proto(net.model()))["Conv"] == 3
    assert found.kernels == {"Conv": KernelCount(0, 2)}
    assert not found.is_quantized
    assert {left.name for left in found.float_kernels} == {node.name for node in net.nodes if node.op_type == "Conv"}


def test_what_did_not_fuse_is_named():
    net = Qdq()
    value = net.input(1, 16, 8, 8)
    weight = net.weight(16, 16, 3, 3)
    net.output(net.node("Conv", net.pair(value), weight))
    integers = next(node.input[0] for node in net.nodes if node.output[0] == weight)
    found = seen(net)
    assert found.round_trips == (value,)
    assert found.dequantized_weights == (integers,)
    assert found.text() == (
        f"int8: 0 of 1 Conv; 1 left float; 1 weights dequantized at every run: {integers};"
        f" 1 pairs that did not fuse: {value}"
    )


def test_weights_only_and_dynamic_kernels():
    net = Qdq()
    value = net.input(4, 16)
    net.output(net.node("MatMul", value, net.weight(16, 8, axis=1)))
    quantized, scale, zero_point = net.node("DynamicQuantizeLinear", value, outputs=3)
    weight, weight_zero = net.constant(np.ones((16, 8), np.int8)), net.constant(np.int8(0))
    product = net.node("Cast", net.node("MatMulInteger", quantized, weight, zero_point, weight_zero), to=1)
    net.output(net.node("Mul", product, net.node("Mul", scale, net.constant(np.float32(0.1)))))
    found = seen(net)
    assert found.kernels == {"MatMul": KernelCount(2, 2)}
    assert found.weights_only == 1
    assert found.text() == "int8: 2 of 2 MatMul; 1 of them by their weights only"


def test_a_branch_is_counted_too():
    net, branch, other = Qdq(), Qdq(), Qdq()
    branch._count, other._count = 1000, 2000
    value, condition = net.input(1, 16, 8, 8), net.input(kind=TensorProto.BOOL)
    branch.output(branch.pair(branch.node("Conv", branch.pair(value), branch.weight(16, 16, 3, 3))))
    other.output(other.node("Conv", value, float_weight(other, 16, 16, 3, 3)))
    branches = {"then_branch": branch.model().graph, "else_branch": other.model().graph}
    net.output(net.node("If", condition, **branches))
    assert seen(net).kernels == {"Conv": KernelCount(1, 2)}
    assert seen(net).float_kernels == (FloatKernel(other.nodes[0].name, "Conv"),)


def test_products_of_integers_are_no_kernels():
    net = Qdq()
    value = net.input(4, 4, kind=TensorProto.INT32)
    net.output(net.node("MatMul", value, value), kind=TensorProto.INT32)
    net.output(net.node("LSTM", net.input(3, 1, 8), *[float_weight(net, 1, 32, 8)] * 2, hidden_size=8))
    found = coverage(ir.from_proto(net.model()))
    assert found.kernels == {"LSTM": KernelCount(0, 1)}


def test_a_model_without_kernels():
    net = Qdq()
    net.output(net.node("Relu", net.input(2)))
    assert seen(net).text() == "int8: no kernels"
