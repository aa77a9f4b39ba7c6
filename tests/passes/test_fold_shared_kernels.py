"""fold-shared-kernels: planted nets come back to their compact widths, and answer the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.contract.memo import Memo
from optimizer.contract.passes import Context
from optimizer.errors import UsageError
from optimizer.graph import linear_nodes
from optimizer.io.model import load, to_proto
from optimizer.testing import check_pass
from passes.fold_shared_kernels import FoldChoices, FoldSharedKernels
from planted_nets import Planter
from rewriting import built, feeds_for, outputs

QUICK = ("works or refuses", "keeps the reference", "counts changes", "rests")  # of many random nets


def folded(planted, *, multiple=1, rounding=1, promises=()):
    """The folded net, whose answers are held to be the same."""
    result = check_pass(FoldSharedKernels(multiple=multiple), load(planted), may_run=False, promises=promises)
    after = to_proto(result.model)
    feeds = feeds_for(planted, {})
    for optimize in (False, True):
        pairs = zip(outputs(planted, feeds, optimize=optimize), outputs(after, feeds, optimize=optimize), strict=True)
        for want, got in pairs:
            scale = np.abs(want.astype(np.float64)).max()
            assert np.abs(want - got).max() <= 4e-6 * rounding * max(scale, 1)
    return result


def widths(model):
    found = {node.name or node.outputs[0].name: linear_nodes.as_linear(node) for node in model.graph}
    return {name: kernel.outputs for name, kernel in found.items() if kernel is not None}


def compact(planter, model):
    """Hold that every dense kernel has the width that it was planted from."""
    assert {name: width for name, width in widths(model).items() if name in planter.widths} == planter.widths


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_chain(seed, dims):
    planter = Planter(seed, dims=dims)
    value, source = planter.source(3)
    value = planter.unary(planter.conv(value, 4), "Relu")
    value = planter.unary(planter.conv(value, 5), "LeakyRelu", alpha=0.2)
    value = planter.pool(planter.conv(value, 3), "MaxPool")
    planted = planter.model(source, planter.head(value))
    compact(planter, folded(planted).model)


HOMOGENEOUS = ("Relu", "LeakyRelu", "Abs", "Neg")
OTHERS = ("Sigmoid", "Tanh", "Elu", "HardSigmoid", "Softplus")


@st.composite
def planted_nets(draw):
    """A net of several branches and operators, with what was planted in it."""
    scaled = draw(st.booleans())
    planter = Planter(
        draw(st.integers(0, 10**6)),
        opset=draw(st.sampled_from([9, 11, 13, 17, 21])),
        dims=draw(st.integers(1, 2)),
        scaled=scaled,
        padded=scaled and draw(st.booleans()),
    )
    value, source = planter.source(draw(st.integers(1, 4)))
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 4))
        kinds = ["conv", "residual", "branches", *(["transposed"] if planter.padded else [])]  # its borders differ
        kind = draw(st.sampled_from(kinds))
        if kind == "residual":
            channels = planter.plant(width)
            value = planter.sum(*(planter.conv(value, width, channels, taps=1) for _ in range(2)))
        elif kind == "branches":
            one, other = planter.conv(value, width, taps=1), planter.conv(value, draw(st.integers(1, 3)), taps=1)
            width = 1000 + width
            value = planter.parts(planter.concat(one, other))
        else:
            value = planter.conv(value, width, transposed=kind == "transposed")
        for _ in range(draw(st.integers(0, 2))):
            operators = HOMOGENEOUS if scaled else HOMOGENEOUS + OTHERS
            pools = ["AveragePool", "MaxPool"] if not planter.padded else ["MaxPool"]
            step = draw(st.sampled_from(["unary", "depthwise", "norm", "pool"]))
            if step == "unary":
                value = planter.unary(value, draw(st.sampled_from(operators)))
            elif step == "pool":
                value = planter.pool(value, draw(st.sampled_from(pools)))
            elif width < 1000 and step == "depthwise":
                value = planter.depthwise(value, width)
            elif width < 1000:
                value = planter.batch_norm(value, width)
    return planter, planter.model(source, planter.head(value))


@settings(max_examples=120, deadline=None)
@given(planted_nets())
def test_any_planted_net_comes_back(made):
    planter, planted = made
    compact(planter, folded(planted, promises=QUICK).model)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def doubled(*shape, seed=0, axis=0):
    """Weights whose second half along ``axis`` is twice the first."""
    first = numbers(*shape, seed=seed)
    return np.concatenate([first, 2 * first], axis=axis)


def net(text, opset=17, **constants):
    return built(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}', constants)


@pytest.mark.parametrize("gates", [("LSTM", 4, True), ("GRU", 3, False), ("RNN", 1, True)])
def test_what_a_recurrent_node_reads(gates):
    op, count, has_bias = gates
    first = np.concatenate([numbers(3, 4, 1), 3 * numbers(3, 4, 1), np.zeros((1, 4, 1), np.float32)])
    shift = np.concatenate([numbers(3, seed=1), 3 * numbers(3, seed=1), [0.7]])
    bias = ", b" if has_bias else ""
    declared = f", float[2,{2 * count * 5}] b" if has_bias else ""
    planted = net(
        f"""(float[2,4,6] x, float[7,4,1] w1, float[7] s, float[2,{count * 5},7] w, float[2,{count * 5},5] r{declared})
        => (float[6,2,2,5] y)
        {{ c = Conv(x, w1, s)  a = Relu(c)  t = Transpose<perm = [2, 0, 1]>(a)
           y = {op}<hidden_size = 5, direction = "bidirectional">(t, w, r{bias}) }}""",
        w1=first,
        s=shift,
        w=numbers(2, count * 5, 7, seed=2),
        r=numbers(2, count * 5, 5, seed=3),
        b=numbers(2, 2 * count * 5, seed=4),
    )
    result = folded(planted)
    assert widths(result.model) == {"c": 3}
    assert dict(result.changes) == {"dead channels removed": 1, "shared channels removed": 3}


def test_a_constant_moves_behind_a_product():
    planted = net(
        """(float[2,5,4] x, float[4,6] w1, float[6] b1, float[6,3] w2) => (float[2,5,3] y)
        { m = MatMul(x, w1)  a = Add(m, b1)  s = Sigmoid(a)  y = MatMul(s, w2) }""",
        w1=np.concatenate([numbers(4, 4), np.zeros((4, 2))], axis=1),
        b1=numbers(6, seed=1),
        w2=numbers(6, 3, seed=2),
    )
    for node in planted.graph.node:
        node.name = f"/{node.output[0]}"
    result = folded(planted)
    assert [node.op_type for node in result.model.graph] == ["MatMul", "Add", "Sigmoid", "MatMul", "Add"]
    assert [node.name for node in result.model.graph] == ["/m", "/a", "/s", "/y", "/y_bias"]
    assert result.changes["dead channels removed"] == 2


def test_siamese_kernels_are_cut_once_and_stay_shared():
    planted = net(
        """(float[1,2,7,7] x, float[1,2,7,7] z, float[6,2,3,3] w1, float[6] b1, float[4,6,3,3] w2) => (float[1,4,3,3] y)
        { a = Conv(x, w1, b1)  b = Conv(z, w1, b1)  c = Relu(a)  d = Relu(b)
          e = Conv(c, w2)  f = Conv(d, w2)  y = Sub(e, f) }""",
        w1=doubled(3, 2, 3, 3),
        b1=doubled(3, seed=1),
        w2=numbers(4, 6, 3, 3, seed=2),
    )
    after = folded(planted).model
    assert [node.inputs[1].name for node in after.graph if node.op_type == "Conv"] == ["w1", "w1", "w2", "w2"]
    assert list(after.graph.initializers["w1"].shape) == [3, 2, 3, 3]


def test_a_gate_for_each_channel_is_cut_with_the_channels():
    planted = net(
        """(float[1,2,6,6] x, float[6,2,3,3] w1, float[6] b1, float[5,6,1,1] w2, float[6,5,1,1] w3, float[3,6,1,1] w4)
        => (float[1,3,4,4] y)
        { c = Conv(x, w1, b1)  a = Relu(c)  p = GlobalAveragePool(a)  q = Conv(p, w2)  r = Relu(q)
          s = Conv(r, w3)  g = HardSigmoid(s)  m = Mul(a, g)  y = Conv(m, w4) }""",
        w1=np.concatenate([numbers(3, 2, 3, 3)] * 2),
        b1=np.concatenate([numbers(3, seed=1)] * 2),
        w2=numbers(5, 6, 1, 1, seed=2),
        w3=np.concatenate([numbers(3, 5, 1, 1, seed=3)] * 2),
        w4=numbers(3, 6, 1, 1, seed=4),
    )
    after = folded(planted).model
    assert [kernel.shape for kernel in map(linear_nodes.as_linear, after.graph) if kernel] == [
        (3, 2, 3, 3),
        (5, 3, 1, 1),
        (3, 5, 1, 1),
        (3, 3, 1, 1),
    ]


@pytest.mark.parametrize("opset", [9, 17])
def test_channels_that_nobody_takes_go(opset):
    slicing = "Slice<starts = [1], ends = [4], axes = [1]>(a)" if opset < 10 else "Slice(a, from, to, axes)"
    planted = net(
        f"""(float[1,2,4,4] x, float[8,2,1,1] w1, float[3,3,1,1] w2, float[2,2,1,1] w3, int64[1] from, int64[1] to,
        int64[1] axes, int64[2] which) => (float[1,3,4,4] y, float[1,2,4,4] z)
        {{ a = Conv(x, w1)  s = {slicing}  y = Conv(s, w2)
           t = Gather<axis = 1>(a, which)  z = Conv(t, w3) }}""",
        opset,
        w1=numbers(8, 2, 1, 1),
        w2=numbers(3, 3, 1, 1, seed=1),
        w3=numbers(2, 2, 1, 1, seed=2),
        which=[6, -1],
        **({} if opset < 10 else {"from": [1], "to": [4], "axes": [1]}),
    )
    result = folded(planted)
    assert result.changes == {"unused channels removed": 3}


def test_a_border_of_zeros_keeps_a_constant_channel():
    text = """(float[1,2,6,6] x, float[4,2,1,1] w1, float[4] b1, float[3,4,3,3] w2) => (float[1,3,N,N] y)
    { a = Conv(x, w1, b1)  y = Conv<pads = PADS>(a, w2) }"""
    constants = {
        "w1": np.concatenate([numbers(3, 2, 1, 1), np.zeros((1, 2, 1, 1))]),
        "b1": np.array([0.1, 0.2, 0.3, 0.9]),
        "w2": numbers(3, 4, 3, 3, seed=1),
    }
    assert folded(net(text.replace("PADS", "[0, 0, 0, 0]").replace("N", "4"), **constants)).changes
    assert not folded(net(text.replace("PADS", "[1, 1, 1, 1]").replace("N", "6"), **constants)).changes


def test_what_is_given_out_keeps_its_channels():
    planted = net(
        """(float[1,2,4,4] x, float[6,2,1,1] w1, float[3,6,1,1] w2) => (float[1,6,4,4] a, float[1,3,4,4] y)
        { a = Conv(x, w1)  y = Conv(a, w2) }""",
        w1=doubled(3, 2, 1, 1),
        w2=numbers(3, 6, 1, 1, seed=1),
    )
    result = folded(planted)
    assert not result.changes
    assert [(note.subject, note.reason) for note in result.notes] == [
        ("Conv -> a", "3 channels that could go stay: a is an output of the graph")
    ]


def test_widths_stay_multiples():
    planted = net(
        """(float[1,2,4,4] x, float[9,2,1,1] w1, float[3,9,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1)  y = Conv(a, w2) }""",
        w1=np.concatenate([numbers(6, 2, 1, 1), np.zeros((3, 2, 1, 1))]),
        w2=numbers(3, 9, 1, 1, seed=1),
    )
    assert widths(folded(planted, multiple="auto").model) == {"a": 8, "y": 3}
    result = folded(planted, multiple="auto")
    assert result.changes == {"dead channels removed": 1}
    assert [note.reason for note in result.notes] == ["2 channels that could go stay: widths are multiples of 4"]
    assert folded(planted, multiple=1).changes == {"dead channels removed": 3}


def test_a_layer_that_is_dead_altogether_keeps_one_channel():
    planted = net(
        """(float[1,2,4,4] x, float[4,2,1,1] w1, float[4] b1, float[3,4,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1, b1)  y = Conv(a, w2) }""",
        w1=np.zeros((4, 2, 1, 1)),
        b1=numbers(4),
        w2=numbers(3, 4, 1, 1, seed=1),
    )
    assert folded(planted).changes == {"dead channels removed": 3}


def test_one_bias_for_two_layers_ties_them_not():
    planted = net(
        """(float[1,2,4,4] x, float[4,2,1,1] w1, float[4] b, float[4,4,1,1] w2, float[3,4,1,1] w3) => (float[1,3,4,4] y)
        { a = Conv(x, w1, b)  c = Conv(a, w2, b)  y = Conv(c, w3) }""",
        w1=doubled(2, 2, 1, 1),
        b=np.zeros(4),
        w2=numbers(4, 4, 1, 1, seed=1),
        w3=numbers(3, 4, 1, 1, seed=2),
    )
    assert folded(planted).changes == {"shared channels removed": 2}


def test_a_head_that_gives_nothing_goes():
    head = numbers(8, 4)
    planted = net(
        """(float[2,5,8] x, float[8,12] q, float[8,12] k, float[8,12] v, float[12,3] o, int64[4] parts, int64[3] whole)
        => (float[2,5,3] y)
        { a = MatMul(x, q)  b = MatMul(x, k)  c = MatMul(x, v)
          d = Reshape(a, parts)  e = Reshape(b, parts)  f = Reshape(c, parts)
          g = Transpose<perm = [0, 2, 1, 3]>(d)  h = Transpose<perm = [0, 2, 3, 1]>(e)
          i = Transpose<perm = [0, 2, 1, 3]>(f)  j = MatMul(g, h)  l = Softmax(j)  m = MatMul(l, i)
          n = Transpose<perm = [0, 2, 1, 3]>(m)  p = Reshape(n, whole)  y = MatMul(p, o) }""",
        q=np.concatenate([numbers(8, 4, seed=5), numbers(8, 8, seed=6)], axis=1),
        k=np.concatenate([numbers(8, 4, seed=7), numbers(8, 8, seed=8)], axis=1),
        v=np.concatenate([np.zeros((8, 4)), head, numbers(8, 4, seed=9)], axis=1),
        o=numbers(12, 3, seed=1),
        parts=[0, 0, 3, 4],
        whole=[0, 0, 12],
    )
    result = folded(planted)
    assert result.changes == {"dead channels removed": 1}
    assert list(result.model.graph.initializers["q"].shape) == [8, 8]


def nearly(noise):
    first, other, short = numbers(4, 2, 1, 1), numbers(4, 2, 1, 1, seed=3), numbers(1, 2, 1, 1, seed=9)
    return net(
        """(float[1,2,4,4] x, float[9,2,1,1] w1, float[3,9,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1)  r = Relu(a)  y = Conv(r, w2) }""",
        w1=np.concatenate([first, first * 1.5 + noise * other, noise * short]),
        w2=numbers(3, 9, 1, 1, seed=1),
    )


def test_nearly_parallel_channels_go_with_a_tolerance():
    planted = nearly(1e-3)
    assert not folded(planted).changes
    result = FoldSharedKernels(multiple=1, tolerance=0.02).run(load(planted), Context(load(planted)))
    assert result.changes == {"dead channels removed": 1, "shared channels removed": 4}
    feeds = feeds_for(planted, {})
    want, got = (outputs(one, feeds, optimize=True)[0] for one in (planted, to_proto(result.model)))
    assert 0 < np.linalg.norm(want - got) / np.linalg.norm(want) < 0.02


class Limit:
    """An evaluator that lets the outputs move by so much, relatively."""

    calibration, has_data, is_timed = (), True, False

    def __init__(self, planted, limit):
        self.planted, self.limit, self.memo = planted, limit, Memo()

    def budget_used(self, model):
        feeds = feeds_for(self.planted, {})
        want, got = (outputs(one, feeds, optimize=True)[0] for one in (self.planted, to_proto(model)))
        return float(np.linalg.norm(want - got) / np.linalg.norm(want)) / self.limit


def test_the_tolerance_is_lowered_until_the_budget_holds():
    planted = nearly(0.05)
    whole = load(planted)
    wide = FoldSharedKernels(multiple=1, tolerance=0.4)
    free = wide.run(load(planted), Context(whole, evaluator=Limit(planted, 1.0)))
    tight = wide.run(load(planted), Context(whole, evaluator=Limit(planted, 0.005)))
    assert free.choices == FoldChoices(0.4)
    assert tight.choices is None or tight.choices.tolerance < 0.4
    assert Limit(planted, 0.005).budget_used(tight.model) <= 1
    again = wide.run(load(planted), Context(whole, choices=free.choices))
    assert to_proto(again.model) == to_proto(free.model)


@pytest.mark.parametrize("options", [{"multiple": 0}, {"tolerance": 1.0}, {"tolerance": -0.1}])
def test_options_are_checked(options):
    with pytest.raises(UsageError):
        FoldSharedKernels(**options)


def test_steps_that_share_a_bias_share_it_when_it_is_cut():
    planted = net(
        """(float[3,4] x, float[4,6] w1, float[6] s, float[6,6] w2, float[6] b) => (float[3,6] y)
        { a = Gemm(x, w1, s)  h = Relu(a)  c = Gemm(h, w2, b)  d = Relu(c)  e = Gemm(d, w2, b)  f = Relu(e)
          g = Gemm(f, w2, b)  k = Relu(g)  y = Gemm(k, w2) }""",
        w1=numbers(4, 6),
        s=numbers(6, seed=1),
        w2=numbers(6, 6, seed=2),
        b=numbers(6, seed=3),
    )
    assert not folded(planted).changes  # the last gives its channels out
    hidden = net(
        """(float[3,4] x, float[4,6] w1, float[6] s, float[6,6] w2, float[6] b, float[6,2] w3) => (float[3,2] y)
        { a = Gemm(x, w1, s)  h = Relu(a)  c = Gemm(h, w2, b)  d = Relu(c)  e = Gemm(d, w2, b)  f = Relu(e)
          y = Gemm(f, w3) }""",
        w1=np.concatenate([numbers(4, 5), np.zeros((4, 1))], axis=1),
        s=np.zeros(6),
        w2=np.pad(numbers(5, 5, seed=2), (0, 1)),
        b=np.concatenate([numbers(5, seed=3), [0]]),
        w3=numbers(6, 2, seed=4),
    )
    after = folded(hidden).model
    assert sorted(tuple(value.shape) for value in after.graph.initializers.values()) == [
        (4, 5),
        (5,),
        (5,),
        (5, 2),
        (5, 5),
    ]


def test_half_precision_and_constants_in_nodes():
    planted = net(
        """(float16[1,2,6,6] x, float16[6,2,3,3] w1, float16[4,6,1,1] w2) => (float16[1,4,4,4] y)
        { a = Conv(x, w1)  b = Relu(a)  y = Conv(b, w2) }""",
        w1=doubled(3, 2, 3, 3),
        w2=numbers(4, 6, 1, 1, seed=2),
    )
    as_nodes = [onnx.helper.make_node("Constant", [], [one.name], value=one) for one in planted.graph.initializer]
    everything = [*as_nodes, *planted.graph.node]
    del planted.graph.initializer[:], planted.graph.node[:]
    planted.graph.node.extend(everything)
    result = folded(planted, rounding=1000)
    assert result.changes == {"shared channels removed": 3}
    assert widths(result.model) == {"a": 3, "y": 4}


def test_bodies_of_ifs_are_folded():
    planted = net(
        """(float[1,2,4,4] x, bool c, float[4,2,1,1] w1, float[3,4,1,1] w2) => (float[1,3,4,4] y)
        { y = If(c) <then_branch = t () => (float[1,3,4,4] p) { a = Conv(x, w1)  b = Relu(a)  p = Conv(b, w2) },
                     else_branch = e () => (float[1,3,4,4] q) { d = Conv(x, w1)  f = Abs(d)  q = Conv(f, w2) }> }""",
        w1=np.concatenate([numbers(2, 2, 1, 1)] * 2),
        w2=numbers(3, 4, 1, 1, seed=1),
    )
    assert not folded(planted).changes  # both branches read the kernels, and each is looked at alone
    alone = net(
        """(float[1,2,4,4] x, bool c, float[4,2,1,1] w1, float[3,4,1,1] w2, int64[1] from, int64[1] to, int64[1] axes)
        => (float[1,3,4,4] y)
        { y = If(c) <then_branch = t () => (float[1,3,4,4] p) { a = Conv(x, w1)  b = Relu(a)  p = Conv(b, w2) },
                     else_branch = e () => (float[1,3,4,4] q) { d = Concat<axis = 1>(x, x)  s = Neg(d)
                       f = Slice(s, from, to, axes)  q = Relu(f) }> }""",
        w1=np.concatenate([numbers(2, 2, 1, 1)] * 2),
        w2=numbers(3, 4, 1, 1, seed=1),
        **{"from": [0], "to": [3], "axes": [1]},
    )
    assert folded(alone).changes == {"shared channels removed": 2}


def test_a_constant_along_another_axis_of_the_same_size_says_nothing_of_channels():
    planted = net(
        """(float[1,2,4,4] x, float[4,2,1,1] w1, float[1,1,1,4] m, float[3,4,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1)  b = Mul(a, m)  y = Conv(b, w2) }""",
        w1=numbers(4, 2, 1, 1),
        m=[[[[0, 1, 1, 1]]]],
        w2=numbers(3, 4, 1, 1, seed=1),
    )
    assert not folded(planted).changes


def test_equal_channels_that_are_normalized_differently_stay():
    text = """(float[1,2,4,4] x, float[4,2,1,1] w1, float[4] s, float[4] b, float[3,4,1,1] w2) => (float[1,3,4,4] y)
    { a = Conv(x, w1)  n = InstanceNormalization(a, s, b)  y = Conv(n, w2) }"""
    constants = {"w1": np.concatenate([numbers(2, 2, 1, 1)] * 2), "w2": numbers(3, 4, 1, 1, seed=1)}
    assert not folded(net(text, s=[1, 2, 3, 4], b=[0, 0, 0, 0], **constants)).changes
    assert folded(net(text, s=[1, 2, 1, 2], b=[5, 6, 5, 6], **constants), rounding=10).changes == {
        "shared channels removed": 2
    }


def test_a_bias_for_each_row_stops_what_reads_it():
    planted = net(
        """(float[3,4] x, float[4,5] w1, float[5] s, float[5,4] w2, float[3,4] c, float[4,2] w3) => (float[3,2] y)
        { a = Gemm(x, w1, s)  b = Sigmoid(a)  d = Gemm(b, w2, c)  y = Gemm(d, w3) }""",
        w1=np.pad(numbers(4, 4), ((0, 0), (0, 1))),
        s=numbers(5, seed=1),
        w2=numbers(5, 4, seed=2),
        c=numbers(3, 4, seed=3),
        w3=numbers(4, 2, seed=4),
    )
    assert not folded(planted).changes


def test_the_last_of_equal_channels_stays_though_its_own_weights_are_zero():
    planted = net(
        """(float[1,2,4,4] x, float[3,2,1,1] w1, float[3,3,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1)  y = Conv(a, w2) }""",
        w1=np.concatenate([numbers(1, 2, 1, 1)] * 3),
        w2=numbers(3, 3, 1, 1, seed=1) * np.array([0, 0, 1]).reshape(1, 3, 1, 1),
    )
    assert widths(folded(planted).model) == {"a": 1, "y": 3}


def test_no_part_of_the_channels_is_left_empty():
    planted = net(
        """(float[1,2,4,4] x, float[4,2,1,1] w1, int64[2] s, float[3,4,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1)  b, c = Split<axis = 1>(a, s)  d = Concat<axis = 1>(c, b)  y = Conv(d, w2) }""",
        w1=np.concatenate([numbers(2, 2, 1, 1), np.zeros((2, 2, 1, 1))]),
        s=[2, 2],
        w2=numbers(3, 4, 1, 1, seed=1),
    )
    result = folded(planted)
    assert result.changes == {"dead channels removed": 1}
    assert [note.reason for note in result.notes] == ["1 channel that could go stay: no width is 0"]


def test_channels_on_an_axis_that_a_product_does_not_sum_over_say_nothing_of_its_columns():
    planted = net(
        """(float[4,4,4,4] x, float[4,4,1,1] w1, float[4] b, float[4,4] w2, float[4,3] w3) => (float[4,4,4,3] y)
        { a = Conv(x, w1, b)  c = MatMul(a, w2)  d = Relu(c)  y = MatMul(d, w3) }""",
        w1=np.concatenate([np.zeros((1, 4, 1, 1)), numbers(3, 4, 1, 1)]),
        b=[-1, 2, 1, 0],
        w2=np.concatenate([[[1, 1, 1, 1], [0, 1, 0, 1]], [[2, 0, 0, 3], [1, 2, 0, 1]]]),
        w3=numbers(4, 3, seed=1),
    )
    assert not folded(planted).changes


def test_a_constant_channel_is_not_clipped_by_a_bound_that_a_run_tells():
    planted = net(
        """(float[1,2,4,4] x, float[3,2,1,1] w1, float[3] s, float[3,3,1,1] w2) => (float[1,3,4,4] y)
        { a = Conv(x, w1, s)  m = ReduceMax<keepdims = 0>(x)  b = Clip(a, m)  y = Conv(b, w2) }""",
        w1=np.pad(numbers(2, 2, 1, 1), ((0, 1), (0, 0), (0, 0), (0, 0))),
        s=[1, 2, -3],
        w2=numbers(3, 3, 1, 1, seed=1),
    )
    assert not folded(planted).changes


@pytest.mark.parametrize(
    "step",
    [
        "b = LpPool<kernel_shape = [2, 2]>(a)",
        "b = GlobalLpPool<p = 2>(a)",
        "c = Abs(a)  b = Mean(a, c)",
        "b = Tan(a)",
        "b = Shrink<lambd = 0.1>(a)",
    ],
)
def test_parallel_or_equal_channels_behind_any_operator_of_the_table(step):
    is_homogeneous = "Tan" not in step and "Shrink" not in step
    one = numbers(2, 2, 1, 1) / 4
    planted = net(
        f"""(float[1,2,4,4] x, float[4,2,1,1] w1, float[3,4,1,1] w2) => (float[N,3,H,W] y)
        {{ a = Conv(x, w1)  {step}  y = Conv(b, w2) }}""",
        w1=np.concatenate([one, 2 * one if is_homogeneous else one]),
        w2=numbers(3, 4, 1, 1, seed=1),
    )
    assert folded(planted, rounding=10).changes == {"shared channels removed": 2}
