"""Each row of the fusion table against ONNX Runtime: its optimized graph, and its answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.fusion_table import (
    FLOAT_OPS,
    TABLE,
    FusionRule,
    Role,
    channel_axis,
    constant_type,
    row,
)
from qdq import ARM, Qdq, largest_difference, ops, optimized

KERNELS = ("Conv", "MatMul", "Gemm")
STEP = 1.01  # integer kernels may differ from the simulation by one step of the output's scale
SMALL = 1e-5


def numbers(*values):
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Spec:
    """How to build one node: its quantized inputs, constants behind them, attributes."""

    inputs: int = 1
    constants: tuple = ()
    attributes: dict = field(default_factory=dict)
    outputs: int = 1
    opset: int = 21
    shape: tuple = (1, 8, 8, 8)


ONES = np.ones(8, np.float32)
SPECS = {
    "Add": Spec(2),
    "Mul": Spec(2),
    "Concat": Spec(2, attributes={"axis": 1}),
    "AveragePool": Spec(attributes={"kernel_shape": [2, 2]}),
    "GlobalAveragePool": Spec(),
    "LeakyRelu": Spec(attributes={"alpha": 0.1}),
    "Sigmoid": Spec(),
    "Softmax": Spec(attributes={"axis": 1}),
    "Reshape": Spec(constants=(numbers(1, -1),)),
    "Slice": Spec(constants=(numbers(1), numbers(5), numbers(1))),
    "Squeeze": Spec(constants=(numbers(0),)),
    "Transpose": Spec(attributes={"perm": [0, 2, 1, 3]}),
    "Unsqueeze": Spec(constants=(numbers(0),)),
    "Expand": Spec(constants=(numbers(2, 8, 8, 8),)),
    "Flatten": Spec(),
    "Gather": Spec(constants=(numbers(0, 2),), attributes={"axis": 1}),
    "GatherElements": Spec(constants=(np.zeros((1, 2, 8, 8), np.int64),), attributes={"axis": 1}),
    "Split": Spec(constants=(numbers(2, 6),), attributes={"axis": 1}, outputs=2),
    "Tile": Spec(constants=(numbers(1, 2, 1, 1),)),
    "DepthToSpace": Spec(attributes={"blocksize": 2}),
    "ReduceMax": Spec(constants=(numbers(2, 3),)),
    "ReduceMin": Spec(constants=(numbers(2, 3),)),
    "MaxPool": Spec(attributes={"kernel_shape": [2, 2]}),
    "Resize": Spec(constants=(None, np.array([1, 1, 2, 2], np.float32)), attributes={"mode": "nearest"}),
    "Identity": Spec(),
    "Dropout": Spec(),
    "Cast": Spec(attributes={"to": TensorProto.FLOAT}),
}
FLOATS = {
    **{op_type: Spec(2) for op_type in ("Div", "Max", "Mean", "Min", "Pow", "Sub", "Sum")},
    "AveragePool": Spec(attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    "BatchNormalization": Spec(constants=(ONES,) * 4),
    "CumSum": Spec(constants=(np.array(1, np.int64),)),
    "Einsum": Spec(2, attributes={"equation": "abcd,abde->abce"}),
    "GatherND": Spec(constants=(np.zeros((2, 1), np.int64),)),
    "InstanceNormalization": Spec(constants=(ONES, ONES)),
    "LRN": Spec(attributes={"size": 3}),
    "LayerNormalization": Spec(constants=(ONES,)),
    "PRelu": Spec(constants=(np.full((8, 1, 1), 0.1, np.float32),)),
    "Pad": Spec(constants=(numbers(0, 0, 1, 1, 0, 0, 1, 1),)),
    "ReduceMean": Spec(constants=(numbers(2, 3),)),
    "ReduceSum": Spec(constants=(numbers(2, 3),)),
    "Resize": Spec(constants=(None, np.array([1, 1, 2, 2], np.float32)), attributes={"mode": "linear"}),
    "SpaceToDepth": Spec(attributes={"blocksize": 2}),
}
APART = {"ArgMax", "ConvTranspose", "Equal", "GRU", "Gemm", "Greater", "LSTM", "Less", "MaxPool", "TopK", "AveragePool"}


def around(op_type, spec, act="u8", opset=None, before=True, behind=0.05, zero_point="middle", same=False):
    """The node with a DQ on each input (``before``) and a Q of the scale ``behind`` on each output."""
    net = Qdq(opset or spec.opset, act)
    inputs = [net.input(*spec.shape) for _ in range(spec.inputs)]
    inputs = [net.pair(value) for value in inputs] if before else inputs
    constants = ["" if array is None else net.constant(array) for array in spec.constants]
    outputs = net.node(op_type, *inputs, *constants, outputs=spec.outputs, **spec.attributes)
    for value in [outputs] if spec.outputs == 1 else outputs:
        net.output(net.pair(value, 0.02 if same else behind, zero_point) if behind else value)
    return net.model()


def kernel(op_type, opset=21, act="u8", weight="s8", channels=True, bias=None, behind=0.1, domain="", **attributes):
    net = Qdq(opset, act, weight, channels, domain)
    if op_type in {"Conv", "ConvTranspose"}:
        rank, groups = attributes.pop("rank", 2), attributes.get("group", 1)
        value, shape = net.quantized_input(1, 16, *[8] * rank), (16, 16 // groups, *[3] * rank)
        inputs = [value, net.weight(*shape, axis=op_type == "ConvTranspose")]
        width = 16
    else:
        value, is_transposed, width = net.quantized_input(4, 16), attributes.get("transB", 0), 8
        shape = (8, 16) if is_transposed else (16, 8)
        inputs = [value, net.weight(*shape, axis=0 if is_transposed else 1)]
    bias_value = None if bias is None else net.bias(width, bias)
    if op_type == "MatMul":
        output = net.node(op_type, *inputs, **attributes)
        output = output if bias is None else net.node("Add", output, bias_value)
    else:
        output = net.node(op_type, *inputs, *([] if bias is None else [bias_value]), **attributes)
    net.output(net.pair(output, behind) if behind else output)
    return net.model()


def assert_answers(model, step=0.0, entries=None):
    difference, largest = largest_difference(model, entries)
    assert difference <= step * STEP + SMALL * largest


def reads_integers(graph, op_types):
    """Whether the nodes of ``op_types`` read no output of a DequantizeLinear."""
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = [node for node in graph.node if node.op_type in op_types]
    assert found
    return all(dequantized.isdisjoint(node.input) for node in found)


def rows(*roles):
    found = {rule.op_type: rule for rule in TABLE if rule.role in roles}
    return [pytest.param(rule, id=op_type) for op_type, rule in found.items()]


def node_of(model, op_type):
    return next(node for node in ir.from_proto(model).graph if node.op_type == op_type)


def test_each_row_has_a_test():
    tested = {*KERNELS, "Relu", "Clip", "Where", *SPECS}
    assert tested == {rule.op_type for rule in TABLE if rule.role is not Role.FLOAT}


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("rule", [item for item in rows(Role.ELEMENTWISE) if item.id != "Where"])
def test_elementwise_rows_run_in_integers_with_a_scale_of_their_own(rule, act, opset):
    spec = SPECS[rule.op_type]
    model = around(rule.op_type, spec, act, opset)
    assert row(node_of(model, rule.op_type)) is rule
    assert ops(model) == {"DequantizeLinear": 1, **dict.fromkeys(rule.runs_as, 1), "QuantizeLinear": spec.inputs}
    assert_answers(model, 0.05)


@pytest.mark.parametrize("rule", [item for item in rows(Role.ELEMENTWISE) if item.id != "Where"])
def test_elementwise_rows_go_float_without_a_q(rule):
    assert not rule.without_q
    assert ops(around(rule.op_type, SPECS[rule.op_type], behind=0))[rule.op_type] == 1


@pytest.mark.parametrize("constant", [None, "float", "pair"])
def test_where_runs_in_integers(constant):
    net = Qdq()
    inputs = [net.input(1, 8, kind=TensorProto.BOOL), net.quantized_input(1, 8)]
    if constant is None:
        inputs.append(net.quantized_input(1, 8))
    else:
        value = net.constant(np.float32(-1))
        inputs.append(net.pair(value) if constant == "pair" else value)
    net.output(net.pair(net.node("Where", *inputs), 0.05))
    assert ops(net.model())["QLinearWhere"] == 1
    assert_answers(net.model(), 0.05)
    assert fusion_table.quantized_inputs(node_of(net.model(), "Where")) == (1, 2)


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("rule", rows(Role.SAME_SCALE))
def test_same_scale_rows_run_in_integers_only_with_one_scale(rule, act, opset):
    spec = SPECS[rule.op_type]
    if opset == 13 and rule.op_type.startswith("Reduce"):
        spec = Spec(attributes={"axes": [2, 3]})
    model = around(rule.op_type, spec, act, opset, same=True)
    assert row(node_of(model, rule.op_type)) is rule
    found = ops(model)
    assert found["QuantizeLinear"] == 1
    assert found["DequantizeLinear"] == spec.outputs
    assert sum(found.get(op_type, 0) for op_type in rule.runs_as) == 1
    assert_answers(model)
    apart = ops(around(rule.op_type, spec, act, opset))
    assert apart["QuantizeLinear"] == 1 + spec.outputs
    other_zero_point = around(rule.op_type, spec, act, opset, same=True, zero_point="qmin")
    assert ops(other_zero_point)["QuantizeLinear"] == 1 + spec.outputs


def behind_conv(rule, between, behind):
    """Conv, the row's node, with a pair of one scale between and behind, or not."""
    net, spec = Qdq(), SPECS[rule.op_type]
    value = net.node("Conv", net.quantized_input(1, 8, 10, 10), net.weight(8, 8, 3, 3))
    value = net.pair(value) if between else value
    constants = ["" if array is None else net.constant(array) for array in spec.constants]
    outputs = net.node(rule.op_type, value, *constants, outputs=spec.outputs, **spec.attributes)
    outputs = [outputs] if spec.outputs == 1 else outputs
    net.output(*[net.pair(output) if behind else output for output in outputs])
    return optimized(net.model())


@pytest.mark.parametrize("rule", rows(Role.SAME_SCALE))
def test_some_rows_need_a_pair_on_one_side_only(rule):
    only_behind = behind_conv(rule, between=False, behind=True)
    assert any(node.op_type == "QLinearConv" for node in only_behind.node) == bool(rule.without_q)
    only_before = behind_conv(rule, between=True, behind=False)
    is_alone = rule.op_type != "Transpose"  # which merges with the ones that ONNX Runtime adds
    assert (not is_alone or reads_integers(only_before, rule.runs_as)) == bool(rule.without_q)


@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("before", [None, "Conv", "Add", "MatMul", "Gemm"])
def test_relu_goes_only_if_the_zero_point_is_the_least(before, act):
    def model(zero_point):
        net = Qdq(act=act)
        if before == "Conv":
            value = net.node(before, net.quantized_input(1, 16, 8, 8), net.weight(16, 16, 3, 3))
        elif before == "Add":
            value = net.node(before, net.quantized_input(4, 16), net.quantized_input(4, 16))
        elif before is None:
            value = net.quantized_input(4, 16)
        else:
            value = net.node(before, net.quantized_input(4, 16), net.weight(16, 8, axis=1))
        net.output(net.pair(net.node("Relu", value), 0.05, zero_point))
        return net.model()

    assert_answers(model("qmin"), 0.05)
    fused = ops(model("qmin"))
    assert not {"Relu", "FusedConv", "FusedGemm", before} & set(fused)
    kept = ops(model("middle"))
    assert {"Relu", "FusedConv", "FusedGemm"} & set(kept), "the Relu stays, and the node before it is float"
    assert not any(op_type.startswith(("QLinear", "QGemm")) for op_type in kept)


@pytest.mark.parametrize(
    ("least", "largest", "scale", "zero_point", "goes"),
    [
        (0, 6, 6 / 255, 0, True),
        (0, 6, 5 / 255, 0, True),
        (0, 6, 6.1 / 255, 0, False),  # 6.1 would get through
        (0, 6, 6 / 255, 128, False),
        (0, None, 0.05, 0, True),
        (-1, 1, 1 / 128, 128, True),
        (-1, 1, 1.1 / 128, 128, False),
    ],
)
def test_clip_goes_only_if_the_q_clamps_as_much(least, largest, scale, zero_point, goes):
    net = Qdq()
    value = net.node("Conv", net.quantized_input(1, 16, 8, 8), net.weight(16, 16, 3, 3))
    limits = [net.constant(np.float32(limit)) for limit in (least, largest) if limit is not None]
    net.output(net.pair(net.node("Clip", value, *limits), scale, zero_point))
    assert ops(net.model()).get("QLinearConv", 0) == goes
    assert_answers(net.model(), scale)


@pytest.mark.parametrize("rule", rows(Role.REMOVED))
def test_removed_rows_leave_nothing(rule):
    model = around(rule.op_type, SPECS[rule.op_type])
    assert row(node_of(model, rule.op_type)) is rule
    assert rule.op_type not in ops(model)


@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("op_type", sorted(set(FLOAT_OPS) - APART))
def test_float_rows_keep_their_pairs(op_type, act):
    spec = FLOATS.get(op_type, Spec())
    for same in (False, True):
        model = around(op_type, spec, act, same=same)
        rule = row(node_of(model, op_type))
        assert rule is not None
        assert rule.role is Role.FLOAT
        found = ops(model)
        assert found["QuantizeLinear"] == spec.inputs + 1
        assert found["DequantizeLinear"] == spec.inputs + 1


def test_conv_transpose_and_recurrent_nets_stay_float_and_dequantize_weights_at_every_run():
    for rank in (1, 2, 3):
        for channels in (True, False):
            found = ops(kernel("ConvTranspose", rank=rank, channels=channels))
            assert (found["ConvTranspose"], found["DequantizeLinear"]) == (1, 3)
    for op_type, gates in (("LSTM", 4), ("GRU", 3)):
        net = Qdq(channels=False)
        weight = net.weight(1, gates * 8, 8)
        net.output(net.pair(net.node(op_type, net.quantized_input(3, 1, 8), weight, weight, hidden_size=8)))
        assert ops(net.model()) == {op_type: 1, "DequantizeLinear": 4, "QuantizeLinear": 2}


def test_outputs_that_are_no_numbers():
    for op_type in ("Equal", "Greater", "Less"):
        net = Qdq()
        net.output(net.node(op_type, net.quantized_input(2, 8), net.quantized_input(2, 8)), kind=TensorProto.BOOL)
        assert ops(net.model())["DequantizeLinear"] == 2
    net = Qdq()
    net.output(net.node("ArgMax", net.quantized_input(2, 8)), kind=TensorProto.INT64)
    assert ops(net.model()) == {"ArgMax": 1, "QuantizeLinear": 1}, "it reads the integers by itself"
    net = Qdq()
    value, index = net.node("TopK", net.quantized_input(2, 8), net.constant(numbers(2)), outputs=2)
    net.output(net.pair(value))
    net.output(index, kind=TensorProto.INT64)
    assert ops(net.model())["DequantizeLinear"] == 2


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("weight", ["u8", "s8"])
@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("op_type", KERNELS)
def test_kernels_with_a_q(op_type, channels, weight, act, opset):
    for bias in (None, "float", "int32"):
        model = kernel(op_type, opset, act, weight, channels, bias)
        rule = row(node_of(model, op_type))
        runs_as = {"QGemm"} if op_type == "MatMul" and bias else set(rule.runs_as)
        assert ops(model) == {"DequantizeLinear": 1, **dict.fromkeys(runs_as, 1), "QuantizeLinear": 1}
        assert_answers(model, 0.1)


@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("weight", ["u8", "s8"])
@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("op_type", KERNELS)
def test_kernels_without_a_q(op_type, channels, weight, act):
    """The bias trap: a float bias makes the node float and dequantizes the weight at every run."""
    for bias in (None, "float", "int32"):
        model = kernel(op_type, 21, act, weight, channels, bias, behind=0)
        rule = row(node_of(model, op_type))
        found = ops(model)
        if rule.without_q and bias != "float":
            assert found["QuantizeLinear"] == 1
            assert set(found) - {"QuantizeLinear"} <= rule.without_q
            assert_answers(model)
        else:
            assert found["DequantizeLinear"] >= 2
            assert set(found) & {"Conv", "MatMul", "Gemm"}


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_of_each_rank_grouped_and_depthwise(rank, groups):
    for options in ({}, {"pads": [1] * 2 * rank}, {"dilations": [2] * rank, "strides": [2] * rank}):
        model = kernel("Conv", rank=rank, group=groups, **options)
        assert ops(model) == {"DequantizeLinear": 1, "QLinearConv": 1, "QuantizeLinear": 1}
        assert_answers(model, 0.1)


def test_gemm_transposed_and_scaled():
    for options in ({"transB": 1}, {"transA": 0}, {"alpha": 0.5}, {"alpha": 0.5, "beta": 0.5}):
        model = kernel("Gemm", **options)
        assert row(node_of(model, "Gemm")).role is Role.KERNEL
        assert ops(model)["QGemm"] == 1
        assert_answers(model, 0.1)
    for options in ({"alpha": 0.5}, {"beta": 0.5}):
        for bias in ("float", "int32"):
            model = kernel("Gemm", bias=bias, **options)
            assert row(node_of(model, "Gemm")).role is Role.FLOAT
            assert ops(model)["Gemm"] == 1


@pytest.mark.parametrize("shape", [(), (1,), (1, 8), (4, 8)])
def test_a_float_bias_of_gemm_has_one_axis(shape):
    net = Qdq()
    inputs = [net.quantized_input(4, 16), net.weight(16, 8, axis=1), net.constant(np.ones(shape, np.float32))]
    net.output(net.pair(net.node("Gemm", *inputs)))
    assert ops(net.model())["Gemm"] == 1


def matmul(weight_shape, axis, behind):
    net = Qdq(channels=axis is not None)
    value = net.quantized_input(*weight_shape[:-2], 4, weight_shape[-2])
    net_weight = net.weight(*weight_shape, axis=axis or 0)
    output = net.node("MatMul", value, net_weight)
    net.output(net.pair(output, 0.1) if behind else output)
    return net.model()


def test_scales_of_matmul_lie_along_its_last_axis_of_two():
    for behind in (True, False):
        assert_answers(matmul((16, 8), 1, behind), 0.1)
        assert ops(matmul((2, 16, 8), None, behind)).get("MatMul", 0) == 0
        assert_answers(matmul((2, 16, 8), None, behind), 0.1)
    assert ops(matmul((16, 8), 0, behind=True))["MatMul"] == 1
    for axis in (0, 1, 2):
        assert ops(matmul((2, 16, 8), axis, behind=True))["MatMul"] == 1
        with pytest.raises(Exception, match="zero point is not valid"):
            largest_difference(matmul((2, 16, 8), axis, behind=False))
    difference, largest = largest_difference(matmul((8, 8), 0, behind=False))
    assert difference > 0.05 * largest, "a square weight with scales along its rows: wrong numbers"
    assert channel_axis(node_of(matmul((16, 8), 1, behind=True), "MatMul")) is None  # no shape behind the DQ yet
    for op_type, options, axis in (("Gemm", {}, 1), ("Gemm", {"transB": 1}, 0), ("Conv", {}, 0)):
        assert channel_axis(node_of(kernel(op_type, **options), op_type)) == axis


def test_the_axis_of_a_matmul_needs_a_shape():
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[N,4] x, float[{}] w) => (y) {{ y = MatMul(x, w) }}'
    for shape, axis in (("4,3", 1), ("2,4,3", None), ("4", None)):
        assert channel_axis(ir.from_onnx_text(text.format(shape)).graph.node(0)) == axis


@pytest.mark.parametrize("behind", [True, False])
def test_two_activations(behind):
    net = Qdq()
    output = net.node("MatMul", net.quantized_input(2, 4, 16), net.quantized_input(2, 16, 8))
    net.output(net.pair(output, 0.1) if behind else output)
    assert ops(net.model())["QLinearMatMul" if behind else "MatMulIntegerToFloat"] == 1
    assert_answers(net.model(), 0.1 if behind else 0)


@pytest.mark.parametrize("op_type", ["Conv", "MatMul", "Add", "Sigmoid", "MaxPool", "Concat", "Relu"])
@pytest.mark.parametrize("act", ["u16", "s16"])
def test_nothing_is_computed_with_16_bits(op_type, act):
    if op_type in KERNELS:
        found = ops(kernel(op_type, act=act))
    else:
        found = ops(around(op_type, SPECS.get(op_type, Spec()), act, same=True))
    assert found["DequantizeLinear"] >= 2
    assert not any(name.startswith("QLinear") for name in found)


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Concat"])
@pytest.mark.parametrize("act", ["u8", "s8"])
@pytest.mark.parametrize("target", ["x86-vnni", "arm64"])
def test_constants_have_the_type_of_the_target(op_type, act, target):
    def model(kind):
        net = Qdq(act=act)
        value = net.quantized_input(1, 16, 1, 1)
        constant = net.dequantized(np.ones((1, 16, 1, 1), kind), 0.1, 0)
        net.output(net.pair(net.node(op_type, value, constant, **SPECS[op_type].attributes), 0.1))
        return net.model()

    wanted = constant_type({"u8": "uint8", "s8": "int8"}[act], target)
    for kind in ("uint8", "int8"):
        found = ops(model(np.dtype(kind).type), ARM if target == "arm64" else None)
        assert (f"QLinear{op_type}" in found) == (kind == wanted)


@pytest.mark.parametrize("op_type", ["Add", "Mul"])
def test_a_float_constant_makes_it_float(op_type):
    net = Qdq()
    net.output(net.pair(net.node(op_type, net.quantized_input(1, 16), net.constant(np.ones(16, np.float32)))))
    assert ops(net.model())[op_type] == 1


@pytest.mark.parametrize("weight", ["u8", "s8"])
def test_a_constant_on_the_left_of_a_matmul_is_uint8(weight):
    for act in ("u8", "s8"):
        net = Qdq(act=act, weight=weight, channels=False)
        value = net.quantized_input(16, 4)
        net.output(net.pair(net.node("MatMul", net.weight(8, 16), value), 0.1))
        assert ops(net.model()).get("QLinearMatMul", 0) == (weight == "u8")


@pytest.mark.parametrize("op_type", KERNELS)
def test_arm_takes_no_int8_activations_with_uint8_weights(op_type):
    for act in ("u8", "s8"):
        for weight in ("u8", "s8"):
            found = ops(kernel(op_type, act=act, weight=weight), ARM)
            assert (op_type in found) == ((act, weight) == ("s8", "u8"))


def test_x86_makes_int8_pairs_uint8():
    graph = optimized(kernel("Conv", act="s8"))
    types = {item.name: item.data_type for item in graph.initializer}
    conv = next(node for node in graph.node if node.op_type == "QLinearConv")
    assert (types[conv.input[2]], types[conv.input[5]]) == (TensorProto.UINT8, TensorProto.INT8)


def test_a_node_that_is_read_in_float_too_has_no_q_of_its_own():
    def model(out_of_pair):
        net = Qdq()
        value = net.node("Conv", net.quantized_input(1, 16, 8, 8), net.weight(16, 16, 3, 3))
        pair = net.pair(value)
        net.output(pair if out_of_pair else value, net.pair(net.node("Conv", pair, net.weight(16, 16, 3, 3))))
        return net.model()

    assert Counter(ops(model(out_of_pair=True)))["QLinearConv"] == 2
    assert ops(model(out_of_pair=False))["Conv"] == 1


def test_a_weight_behind_one_dq_may_be_shared():
    net = Qdq()
    weight = net.weight(16, 16, 3, 3)
    value = net.pair(net.node("Conv", net.quantized_input(1, 16, 8, 8), weight))
    net.output(net.pair(net.node("Conv", value, weight)))
    assert ops(net.model())["QLinearConv"] == 2


@pytest.mark.parametrize("outside", [True, False])
def test_the_dq_of_a_weight_stands_in_the_graph_of_its_reader(outside):
    net, branch, other = Qdq(), Qdq(), Qdq()
    branch._count, other._count = 1000, 2000
    value, condition = net.input(1, 16, 8, 8), net.input(kind=TensorProto.BOOL)
    weight = (net if outside else branch).weight(16, 16, 3, 3)
    branch.output(branch.pair(branch.node("Conv", branch.pair(value), weight)))
    other.output(other.node("MaxPool", value, kernel_shape=[3, 3]))
    branches = {"then_branch": branch.model().graph, "else_branch": other.model().graph}
    net.output(net.node("If", condition, **branches))
    chosen = next(node for node in optimized(net.model()).node if node.op_type == "If")
    then = next(item.g for item in chosen.attribute if item.name == "then_branch")
    assert any(node.op_type == "QLinearConv" for node in then.node) == (not outside)


@pytest.mark.parametrize("opset", [10, 12])
def test_scales_for_each_channel_below_opset_13(opset):
    with pytest.raises(Exception, match="INVALID_GRAPH"):
        ops(kernel("Conv", opset))
    assert ops(kernel("Conv", opset, domain="com.microsoft"))["QLinearConv"] == 1
    assert ops(kernel("Conv", opset, channels=False))["QLinearConv"] == 1


def test_a_float_bias_below_opset_11():
    with pytest.raises(Exception, match="INVALID_GRAPH"):
        ops(kernel("Conv", 10, channels=False, bias="float"))
    assert ops(kernel("Conv", 10, channels=False, bias="int32"))["QLinearConv"] == 1
    assert ops(kernel("Conv", 11, channels=False, bias="float"))["QLinearConv"] == 1


@pytest.mark.parametrize(
    ("op_type", "spec"),
    [
        ("DepthToSpace", Spec(attributes={"blocksize": 2}, opset=10)),
        ("ReduceMax", Spec(attributes={"axes": [2]}, opset=11)),
        ("ReduceMin", Spec(attributes={"axes": [2]}, opset=11)),
        ("AveragePool", FLOATS["AveragePool"]),
    ],
)
def test_pairs_that_would_make_a_model_that_does_not_load(op_type, spec):
    model = around(op_type, spec, same=True)
    assert fusion_table.role(node_of(model, op_type)) is Role.FLOAT
    with pytest.raises(Exception, match=r"INVALID_GRAPH|NOT_IMPLEMENTED"):
        ops(model)


def test_rows_hold_from_their_opset():
    for op_type, opset in (("DepthToSpace", 11), ("ReduceMax", 12), ("ReduceMin", 12), ("MaxPool", 12)):
        spec = Spec(attributes=SPECS[op_type].attributes or {"axes": [2]})
        model = around(op_type, spec, opset=opset, same=True)
        assert row(node_of(model, op_type)).role is Role.SAME_SCALE
        assert ops(model)["QuantizeLinear"] == 1
    assert ops(around("MaxPool", SPECS["MaxPool"], opset=11, same=True))["QuantizeLinear"] == 2


def test_max_pool_with_indices_is_float():
    net = Qdq()
    value, index = net.node("MaxPool", net.quantized_input(1, 8, 8, 8), outputs=2, kernel_shape=[2, 2])
    net.output(net.pair(value))
    net.output(index, kind=TensorProto.INT64)
    assert ops(net.model())["QuantizeLinear"] == 2
    assert row(node_of(net.model(), "MaxPool")).role is Role.FLOAT


@pytest.mark.parametrize("op_type", KERNELS)
@pytest.mark.parametrize("transposed", [0, 1])
def test_weights_alone(op_type, transposed):
    net = Qdq()
    attributes = {"transB": transposed} if op_type == "Gemm" else {}
    value = net.input(1, 16, 8, 8) if op_type == "Conv" else net.input(4, 16)
    shape, axis = ((16, 16, 3, 3), 0) if op_type == "Conv" else ((16, 16), 1 - attributes.get("transB", 0))
    net.output(net.node(op_type, value, net.weight(*shape, axis=axis), **attributes))
    rule = row(node_of(net.model(), op_type))
    found = ops(net.model())
    if rule.weights_only:
        assert set(found) == rule.weights_only
    else:
        assert found == {op_type: 1, "DequantizeLinear": 1}


def test_what_is_not_in_the_table_is_float():
    node = ir.Node("", "Bernoulli", [])
    assert row(node) is None
    assert fusion_table.role(node) is Role.FLOAT
    assert fusion_table.quantized_inputs(node) == ()
    assert row(ir.Node("com.example", "Conv", [])) is None


def test_rows_are_values():
    assert len({(rule.op_type, rule.when, rule.role) for rule in TABLE}) == len(TABLE)
    assert all(
        isinstance(rule, FusionRule) and (rule.runs_as or rule.role.name in "ABSORBED REMOVED FLOAT") for rule in TABLE
    )
