"""insert-qdq: what becomes int8 really runs so, the rest is named with its reason, answers stay inside the budget."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import optimizer
from optimized_ops import optimized_ops
from optimizer.algorithms.quantization.static.placement import place
from optimizer.errors import UsageError
from optimizer.evaluation.runtime.integer_coverage import coverage
from optimizer.evaluation.runtime.session import session
from optimizer.graph import traversal
from optimizer.io.model import load
from small_nets import Net, feeds

SHAPE = (1, 8, 12, 12)
BUDGET = "rel_l2=0.3"


def quantized(model, *specs, data=None, budget=BUDGET, **options):
    passes = list(specs) or ["insert-qdq:search=false"]
    return optimizer.optimize(model, passes=passes, data=data or feeds(*SHAPE), budget=budget, timing=False, **options)


def notes(result):
    return {note.subject: note.reason for stage in result.report.stages for one in stage.passes for note in one.notes}


def error(model, result, data):
    first, second = session(load(model)), session(load(result.model))
    pairs = [(first.run(feed), second.run(feed)) for feed in data]
    squares = sum(float(((a[name] - b[name]) ** 2).sum()) for a, b in pairs for name in a)
    return (squares / sum(float((a[name] ** 2).sum()) for a, _ in pairs for name in a)) ** 0.5


def conv_net(**options):
    net = Net(*SHAPE, **options)
    first = net.node("Relu", net.conv("x", 8, 16))
    pooled = net.node("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2])
    second = net.node("Relu", net.conv(pooled, 16, 16))
    added = net.node("Add", second, net.conv(pooled, 16, 16, 1))
    flat = net.node("Flatten", net.node("GlobalAveragePool", added))
    return net.model(net.node("Gemm", flat, net.weight(16, 5), net.weight(5)))


def test_a_conv_net_runs_in_integers_from_end_to_end():
    model = conv_net()
    result = quantized(model)
    found = coverage(load(result.model))
    assert found.text() == "int8: 3 of 3 Conv, 1 of 1 Gemm"
    assert found.round_trips == ()
    assert found.dequantized_weights == ()
    assert found.quantize == 1, "only the input is quantized"
    assert error(model, result, feeds(*SHAPE, seed=9)) < 0.05
    assert result.report.coverage.to_dict() == found.to_dict()
    onnx.checker.check_model(result.model, full_check=True)


def test_float_weights_are_gone_and_the_file_shrinks():
    model = conv_net()
    result = quantized(model)
    assert result.report.after.bytes < 0.7 * result.report.before.bytes, "a small net: names and scales weigh"
    kinds = [tensor.data_type for tensor in result.model.graph.initializer if len(tensor.dims) > 1]
    assert set(kinds) == {onnx.TensorProto.INT8}


def test_outputs_keep_their_names_and_what_else_reads_them():
    net = Net(*SHAPE)
    shown = net.conv("x", 8, 8)
    model = net.model(shown, net.conv(net.node("Relu", shown), 8, 8))
    result = quantized(model)
    assert [value.name for value in result.model.graph.output] == [value.name for value in model.graph.output]
    assert error(model, result, feeds(*SHAPE)) < 0.05


def test_a_value_that_float_nodes_read_as_well_stays_exact_for_them():
    net = Net(*SHAPE)
    exact = net.node("Tanh", "x")
    model = net.model(net.node("Sin", exact), net.conv(exact, 8, 8))
    result = quantized(model)
    reader = next(node for node in result.model.graph.node if node.op_type == "Sin")
    assert reader.input[0] == exact


def test_a_shared_weight_is_quantized_once():
    net = Net(*SHAPE)
    weight = net.weight(8, 8, 3, 3)
    first = net.node("Conv", "x", weight, pads=[1] * 4)
    model = net.model(net.node("Conv", first, weight, pads=[1] * 4))
    result = quantized(model)
    big = [tensor for tensor in result.model.graph.initializer if len(tensor.dims) == 4]
    assert len(big) == 1
    assert coverage(load(result.model)).text() == "int8: 2 of 2 Conv"


def test_weights_rounded_by_their_inputs_change_the_answers_less():
    net = Net(*SHAPE)
    model, data = net.model(net.conv("x", 8, 32)), feeds(*SHAPE, count=24)
    for feed in data:
        feed["x"][:, 1:] = feed["x"][:, :1] + 0.1 * feed["x"][:, 1:]  # channels that say nearly the same
    nearest = quantized(model, "insert-qdq:search=false,rounding=nearest", data=data)
    adaptive = quantized(model, "insert-qdq:search=false", data=data)
    assert error(model, adaptive, data) < 0.9 * error(model, nearest, data)


def test_a_clip_is_absorbed():
    net = Net(*SHAPE)
    bounds = [net.constant(np.float32(0)), net.constant(np.float32(0.7))]
    inner = net.node("Clip", net.conv("x", 8, 8), *bounds)
    model = net.model(net.conv(inner, 8, 8))
    result = quantized(model)
    ops = optimized_ops(load(result.model))
    assert "Clip" not in ops
    assert ops["QLinearConv"] == 2


def test_a_matmul_with_its_bias_needs_no_pair_behind_it():
    net = Net(4, 16)
    hidden = net.node("Add", net.node("MatMul", "x", net.weight(16, 32)), net.weight(32))
    model = net.model(net.node("Tanh", hidden))
    result = quantized(model, data=feeds(4, 16))
    found = coverage(load(result.model))
    assert found.text() == "int8: 1 of 1 MatMul"
    assert found.dequantized_weights == ()
    assert sum(node.op_type == "QuantizeLinear" for node in result.model.graph.node) == 1


def test_products_of_activations_may_have_other_lengths_in_each_feed():
    net = Net("n", 16)
    scores = net.node("MatMul", "x", net.node("Transpose", "x", perm=[1, 0]))
    model = net.model(net.node("MatMul", net.node("Softmax", scores, axis=-1), net.node("Tanh", "x")))
    data = [feed for length in (4, 7, 9, 12) for feed in feeds(length, 16, count=4)]
    result = quantized(model, data=data)
    assert coverage(load(result.model)).kernels["MatMul"].integer == 2


def test_patterns_leave_nodes_out_and_those_that_match_nothing_are_named():
    model = conv_net()
    result = quantized(model, "insert-qdq:search=false,exclude=[op:Gemm,nowhere*]")
    assert coverage(load(result.model)).text() == "int8: 3 of 3 Conv, 0 of 1 Gemm; 1 left float"
    assert notes(result)["nowhere*"] == "matches no node"
    only = quantized(model, "insert-qdq:search=false,include=[op:Gemm]")
    assert coverage(load(only.model)).kernels["Conv"].integer == 0


def test_the_search_leaves_out_what_the_budget_does_not_allow():
    net = Net(*SHAPE)
    wild = net.weight(8, 8, 3, 3)
    inner = net.node("Conv", "x", wild, pads=[1] * 4)
    array = onnx.numpy_helper.to_array(net.weights[-1]).copy()
    array[:, 0, 0, 0] *= 300  # one huge weight in each row: the others vanish in 7 or 8 bits
    array[:, 0, 0, 0] -= array[:, 0, 0, 0].mean()
    net.weights[-1].CopyFrom(onnx.numpy_helper.from_array(array, net.weights[-1].name))
    model = net.model(net.conv(net.node("Relu", inner), 8, 8))
    data = feeds(*SHAPE)
    for feed in data:
        feed["x"][:, 0] *= 1e-3  # so that the huge weights matter as little as the others
    result = quantized(model, "insert-qdq", data=data, budget="rel_l2=0.05")
    assert coverage(load(result.model)).text() == "int8: 1 of 2 Conv; 1 left float"
    assert "of the budget" in next(reason for name, reason in notes(result).items() if "conv" in name)
    assert result.report.outputs[0].rel_l2 < 0.05


def test_nothing_inside_the_budget_gives_the_model_back():
    model = conv_net()
    result = quantized(model, "insert-qdq", budget="rel_l2=1e-9")
    assert result.report.verdict == "unchanged"
    assert result.model.graph == model.graph


def test_a_replay_repeats_the_choice_byte_by_byte(tmp_path):
    model, data = conv_net(), feeds(*SHAPE)
    first = quantized(model, "insert-qdq", data=data)
    report = tmp_path / "report.json"
    report.write_text(__import__("json").dumps(first.report.to_dict()))
    again = quantized(model, "insert-qdq", data=data, replay=report)
    assert again.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)


def test_a_second_run_has_nothing_to_do():
    once = quantized(conv_net())
    twice = quantized(once.model)
    assert twice.report.verdict == "unchanged"
    assert "quantized already" in twice.report.stages[0].reason


@pytest.mark.parametrize(
    ("opset", "spec", "text"),
    [(11, "insert-qdq", "upgrade-opset:version=13"), (9, "insert-qdq:granularity=tensor", "upgrade-opset:version=10")],
)
def test_an_opset_that_is_too_low_is_named(opset, spec, text):
    result = quantized(conv_net(opset=opset), spec)
    assert text in result.report.stages[0].reason


def test_per_tensor_works_from_opset_10():
    model = conv_net(opset=11)
    result = quantized(model, "insert-qdq:granularity=tensor,search=false")
    assert coverage(load(result.model)).kernels["Conv"].integer == 3


@pytest.mark.parametrize(("opset", "is_integer"), [(11, False), (12, True)])
def test_the_table_goes_by_the_opset_of_the_model(opset, is_integer):
    model = load(conv_net(opset=opset))
    placed = place(model, {node.outputs[0].name for node in model.graph})
    assert ("MaxPool" in {node.op_type for node in placed.nodes}) is is_integer


def test_generated_inputs_are_refused_unless_allowed():
    model = conv_net()
    refused = optimizer.optimize(model, passes=["insert-qdq"], timing=False)
    assert "--allow-generated-data" in refused.report.stages[0].reason
    allowed = optimizer.optimize(model, passes=["insert-qdq"], timing=False, budget=BUDGET, allow_generated_data=True)
    assert allowed.report.coverage.integer > 0


def test_the_upgrade_goes_with_what_needs_it():
    model = conv_net(opset=11)
    stage = "upgrade-opset:version=13+unique-names+insert-qdq"
    assert quantized(model, stage).model.opset_import[0].version == 13
    back = quantized(model, stage, budget="rel_l2=1e-9")
    assert back.model.opset_import[0].version == 11


def test_kernels_in_branches_are_named():
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["inner"])], "branch", [], [onnx.ValueInfoProto(name="inner")]
    )
    net = Net(2, 8)
    net.weights.append(onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"))
    condition = net.constant(np.array(True))
    chosen = net.node("If", condition, then_branch=inner, else_branch=inner)
    model = net.model(net.node("MatMul", chosen, net.weight(8, 8)))
    result = quantized(model, data=feeds(2, 8))
    assert any("subgraph" in reason for reason in notes(result).values())


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match="min-max"):
        quantized(conv_net(), "insert-qdq:ranges=magic")


@st.composite
def nets(draw):
    """Chains of convolutions with branches, pools and activations that meet again."""
    net = Net(*SHAPE, seed=draw(st.integers(0, 99)))
    values = [("x", 8)]
    for _ in range(draw(st.integers(2, 6))):
        value, channels = draw(st.sampled_from(values))
        kind = draw(st.sampled_from(["conv", "depthwise", "1x1", "relu", "clip", "sigmoid", "add", "concat", "mul"]))
        partners = [name for name, width in values if width == channels]
        match kind:
            case "conv" | "1x1":
                values.append((net.conv(value, channels, 8, 3 if kind == "conv" else 1), 8))
            case "depthwise":
                values.append((net.conv(value, channels, channels, groups=channels, bias=False), channels))
            case "relu" | "sigmoid":
                values.append((net.node(kind.capitalize(), value), channels))
            case "clip":
                bounds = [net.constant(np.float32(0)), net.constant(np.float32(1.5))]
                values.append((net.node("Clip", value, *bounds), channels))
            case "concat":
                values.append((net.node("Concat", value, draw(st.sampled_from(partners)), axis=1), 2 * channels))
            case _:
                values.append((net.node(kind.capitalize(), value, draw(st.sampled_from(partners))), channels))
    last, channels = values[-1]
    return net.model(net.conv(last, channels, 4, 1))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=25)
@given(nets(), st.sampled_from(["channel", "tensor"]))
def test_any_net_loads_stays_near_and_keeps_no_pair_that_does_not_fuse(model, granularity):
    data = feeds(*SHAPE, count=6)
    spec = f"insert-qdq:search=false,granularity={granularity},ranges=min-max"
    result = quantized(model, spec, data=data, budget="none")
    made = load(result.model)
    found = coverage(made)
    assert found.integer == found.total, found.text()
    assert found.dequantized_weights == ()
    assert error(model, result, data) < 0.25
    names = [node.name for node in traversal.nodes(made)]
    assert len(set(names)) == len(names)
    assert isinstance(made, ir.Model)
