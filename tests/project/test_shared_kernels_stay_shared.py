"""Weights that several nodes share stay shared through every preset: siamese nets, repeated layers, branches of If."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import optimizer
from optimizer.analysis.model_facts import constants_of, weight_facts
from optimizer.recipes.presets import PRESETS
from small_nets import Net

WIDTH = 128  # what every preset changes
PRUNING = {"pruned", "pruned-int8"}  # whose kernels become smaller
LARGE = 1 << 13  # elements of kernels, of packed ones too, and of nothing that comes with them


def siamese():
    """Two inputs through the same three kernels; the last one is a Gemm."""
    net = Net(4, 16, 8, 8, opset=17)
    net.inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [4, 16, 8, 8]))
    first, second, last = net.weight(WIDTH, 16, 3, 3), net.weight(WIDTH, WIDTH, 3, 3), net.weight(WIDTH, WIDTH)
    ends = []
    for value in ("x", "z"):
        for weight in (first, second):
            value = net.node("Relu", net.node("Conv", value, weight, pads=[1, 1, 1, 1]))  # noqa: PLW2901 - a chain
        value = net.node("Flatten", net.node("GlobalAveragePool", value))  # noqa: PLW2901 - as above
        ends.append(net.node("Gemm", value, last))
    return net.model(net.node("Sub", *ends)), ("x", "z"), (4, 16, 8, 8)


def repeated():
    """One layer of two products, applied three times, as in ALBERT."""
    net = Net(4, WIDTH, opset=17)
    up, down = net.weight(WIDTH, 4 * WIDTH), net.weight(4 * WIDTH, WIDTH)
    value = "x"
    for _ in range(3):
        value = net.node("Add", net.node("MatMul", net.node("Relu", net.node("MatMul", value, up)), down), value)
    return net.model(value), ("x",), (4, WIDTH)


def doubled(build):
    """The same with a copy of each weight for each reader, as exporters write it."""
    model, names, shape = build()
    copies = []
    for number, node in enumerate(model.graph.node):
        for tensor in model.graph.initializer:
            if tensor.name in node.input:
                array = numpy_helper.to_array(tensor)
                copies.append(numpy_helper.from_array(array, f"{tensor.name}_for_{number}"))
                node.input[list(node.input).index(tensor.name)] = copies[-1].name
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    onnx.checker.check_model(model, full_check=True)
    return model, names, shape


def feeds(names, shape, count=12):
    random = np.random.default_rng(1)
    return [{name: random.standard_normal(shape).astype(np.float32) for name in names} for _ in range(count)]


def kernels(model):
    """How many constants there are of the size of a kernel."""
    return sum(tensor.size >= LARGE for _, tensor in constants_of(model))


def kernel_names(model):
    """The constants that kernels multiply with, dequantized or not."""
    read = [node.inputs[1] for node in model.graph if node.op_type in {"Conv", "Gemm"}]
    return [(value if value.producer() is None else value.producer().inputs[0]).name for value in read]


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("preset", sorted(PRUNING))
def test_pruning_keeps_one_of_each_kernel(preset, copied):
    model, names, shape = doubled(siamese) if copied else siamese()
    result = optimizer.optimize(
        model, preset=preset, data=feeds(names, shape), timing=False, budget="none", allow_generated_data=True
    )
    assert result.report.stages[-1].kept
    after = optimizer.load(result.model)
    assert len(kernel_names(after)) == 6
    assert len(set(kernel_names(after))) == 3


@pytest.mark.parametrize("build", [siamese, repeated])
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - PRUNING))
def test_every_preset_keeps_one_of_each_kernel(preset, build, copied):
    model, names, shape = doubled(build) if copied else build()
    wanted = len(build()[0].graph.initializer)
    result = optimizer.optimize(
        model, preset=preset, data=feeds(names, shape), timing=False, budget="none", allow_generated_data=True
    )
    after = optimizer.load(result.model)
    lossy = [stage for stage in result.report.stages if not all(member.exact for member in stage.passes)]
    assert all(stage.kept for stage in lossy), [stage.reason for stage in lossy]
    assert kernels(after) == wanted
    assert weight_facts(after).duplicate_bytes < LARGE


@pytest.mark.parametrize("preset", PRESETS)
def test_what_branches_of_if_repeat_is_stored_once(preset):
    weight = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    branches = {}
    for branch in ("then_branch", "else_branch"):
        tensor = numpy_helper.from_array(weight, "")
        nodes = [helper.make_node("Constant", [], [f"{branch}_w"], value=tensor)]
        nodes.append(helper.make_node("MatMul", ["x", f"{branch}_w"], [f"{branch}_m"]))
        nodes.append(helper.make_node("Relu" if branch == "then_branch" else "Neg", [f"{branch}_m"], [branch]))
        branches[branch] = helper.make_graph(nodes, branch, [], [onnx.ValueInfoProto(name=branch)])
    info = helper.make_tensor_value_info
    slots = [
        info("x", TensorProto.FLOAT, [4, WIDTH]),
        info("c", TensorProto.BOOL, []),
        info("y", TensorProto.FLOAT, [4, WIDTH]),
    ]
    nodes = [helper.make_node("If", ["c"], ["y"], **branches)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", slots[:2], slots[2:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    data = [{**feed, "c": np.array(number % 2 == 0)} for number, feed in enumerate(feeds(("x",), (4, WIDTH)))]
    result = optimizer.optimize(model, preset=preset, data=data, timing=False, budget="none")
    after = optimizer.load(result.model)
    assert kernels(after) == 1
