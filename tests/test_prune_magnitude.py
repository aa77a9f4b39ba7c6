"""prune-magnitude: how many weights go, which, and that what stays is fitted."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import built, feeds_for, outputs

import optimizer
from optimizer.errors import UsageError
from optimizer.model import load, to_proto
from optimizer.pass_base import Context
from passes.prune_magnitude import PruneMagnitude

WIDTH = 16


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chain(layers=3, kind="float"):
    """Products with a Relu between them."""
    body = "".join(f"m{at} = MatMul(v{at}, w{at}) v{at + 1} = Relu(m{at}) " for at in range(layers))
    weights = ", ".join(f"{kind}[{WIDTH},{WIDTH}] w{at}" for at in range(layers))
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind}[N,{WIDTH}] v0, {weights}) => ({kind}[N,{WIDTH}] v{layers})'
    )
    return built(f"{text} {{ {body} }}", {f"w{at}": numbers(WIDTH, WIDTH, seed=at) for at in range(layers)})


def pruned(model, **options):
    result = PruneMagnitude(**options).run(load(model), Context(load(model)))
    after = to_proto(result.model)
    onnx.checker.check_model(after, full_check=True)
    return result, {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.sampled_from(["layer", "global"]))
def test_the_share_of_zeros_is_what_was_asked_for(sparsity, scope):
    _, weights = pruned(chain(), sparsity=sparsity, scope=scope, guard=False)
    zeros = [np.mean(array == 0) for array in weights.values()]
    assert np.mean(zeros) == pytest.approx(sparsity, abs=1 / WIDTH**2)
    if scope == "layer":
        assert max(zeros) - min(zeros) <= 1 / WIDTH**2


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (1, 4), (4, 8)])
def test_a_pattern_holds_in_each_group_along_the_inputs(kept, of):
    _, weights = pruned(chain(), pattern=f"{kept}:{of}", guard=False)
    for array in weights.values():
        assert ((array.T.reshape(WIDTH, -1, of) != 0).sum(axis=2) == kept).all()


def test_the_smallest_go():
    _, weights = pruned(chain(), sparsity=0.5, guard=False)
    before = numbers(WIDTH, WIDTH, seed=1)
    gone = weights["w1"] == 0
    assert np.abs(before[gone]).max() <= np.abs(before[~gone]).min()
    assert np.array_equal(weights["w1"][~gone], before[~gone])


def test_the_first_and_the_last_kernel_are_guarded():
    _, weights = pruned(chain(), sparsity=0.5)
    assert [bool((weights[f"w{at}"] == 0).any()) for at in range(3)] == [False, True, False]


def test_a_threshold():
    _, weights = pruned(chain(), threshold=0.3, guard=False)
    for at, array in enumerate(weights[f"w{at}"] for at in range(3)):
        before = numbers(WIDTH, WIDTH, seed=at)
        assert np.array_equal(array == 0, np.abs(before) < 0.3)


def test_zeros_that_are_there_are_no_gain():
    model = chain()
    result, weights = pruned(model, sparsity=0.5, guard=False)
    again = onnx.ModelProto()
    again.CopyFrom(to_proto(result.model))
    second, same = pruned(again, sparsity=0.5, guard=False)
    assert not second.changes
    assert all(np.array_equal(weights[name], same[name]) for name in weights)


def test_a_weight_that_two_nodes_read_is_pruned_once():
    text = f"(float[N,{WIDTH}] x, float[{WIDTH},{WIDTH}] w) => (float[N,{WIDTH}] y)"
    body = "{ a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) d = Relu(c) y = MatMul(d, w) }"
    model = built(f'<ir_version: 8, opset_import: ["" : 17]> g {text} {body}', {"w": numbers(WIDTH, WIDTH)})
    result, weights = pruned(model, sparsity=0.5, guard=False)
    assert list(weights) == ["w"]
    assert np.mean(weights["w"] == 0) == 0.5
    assert result.changes["kernels pruned"] == 1


def test_sparse_storage_answers_the_same():
    model = chain()
    dense, _ = pruned(model, sparsity=0.9, guard=False)
    sparse = PruneMagnitude(sparsity=0.9, guard=False, store="sparse").run(load(model), Context(load(model)))
    feeds = feeds_for(model, {"N": 3})
    want, got = (outputs(to_proto(one.model), feeds, optimize=True)[0] for one in (dense, sparse))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_repair_makes_answers_better():
    model = chain()
    mix = numbers(4, WIDTH, seed=9)  # inputs of which four numbers say all
    data = [{"v0": numbers(8, 4, seed=seed) @ mix} for seed in range(60)]
    errors = {}
    for repair in (True, False):
        stage = PruneMagnitude(sparsity=0.5, guard=False, repair=repair)
        result = optimizer.optimize(model, passes=[stage], data=data, budget="none", timing=False)
        errors[repair] = result.report.outputs[0].rel_l2
    assert errors[True] < 0.5 * errors[False]


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 1.0},
        {"threshold": -1.0},
        {"sparsity": 0.5, "threshold": 0.1},
        {"pattern": "4:2"},
        {"pattern": "star"},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(UsageError):
        PruneMagnitude(**options)
