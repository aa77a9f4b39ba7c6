"""Channel dependencies: which channels stand and fall together, and which may not go at all."""

from __future__ import annotations

import numpy as np
import pytest

from optimizer.algorithms.channels.dependency.operators import channel_groups
from optimizer.analysis import shape_inference
from optimizer.io.model import load
from rewriting import built


def found(text, opset=17, **constants):
    """The channels of the graph ``text``, and its model."""
    model = load(built(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}', constants))
    shape_inference.infer(model)
    return channel_groups(model.graph, opset), model


def units(groups, model, name):
    """The units of the channels of a value, numbered as they come."""
    value = next(output for node in model.graph for output in node.outputs if output.name == name)
    lane = groups.axis_of(value)
    return None if lane is None else groups.roots(lane.channel_ids).tolist()


def reasons(groups):
    return sorted(set(groups.frozen().values()))


def ones(*shape):
    return np.ones(shape, np.float32)


def test_an_addition_ties_what_it_adds():
    groups, model = found(
        """(float[1,2,4,4] x, float[3,2,1,1] w1, float[3,2,1,1] w2, float[5,3,1,1] w3) => (float[1,5,4,4] y)
        { a = Conv(x, w1)  b = Conv(x, w2)  c = Add(a, b)  y = Conv(c, w3) }""",
        w1=ones(3, 2, 1, 1),
        w2=ones(3, 2, 1, 1),
        w3=ones(5, 3, 1, 1),
    )
    assert units(groups, model, "a") == units(groups, model, "b") == units(groups, model, "c")
    assert [sink.node.outputs[0].name for sink in groups.consumers] == ["y"]
    assert reasons(groups) == ["y is an output of the graph"]


def test_concat_and_split_shift_channels():
    groups, model = found(
        """(float[1,2,4,4] x, float[3,2,1,1] w1, float[2,2,1,1] w2, int64[2] s, float[4,4,1,1] w3, float[4,1,1,1] w4)
        => (float[1,4,4,4] y, float[1,4,4,4] z)
        { a = Conv(x, w1)  b = Conv(x, w2)  c = Concat<axis = 1>(a, b)  d, e = Split<axis = 1>(c, s)
          y = Conv(d, w3)  z = Conv(e, w4) }""",
        w1=ones(3, 2, 1, 1),
        w2=ones(2, 2, 1, 1),
        s=[4, 1],
        w3=ones(4, 4, 1, 1),
        w4=ones(4, 1, 1, 1),
    )
    a, b = units(groups, model, "a"), units(groups, model, "b")
    assert units(groups, model, "c") == a + b
    assert units(groups, model, "d") == [*a, b[0]]
    assert units(groups, model, "e") == [b[1]]


def test_depthwise_carries_and_groups_are_whole():
    groups, model = found(
        """(float[1,2,4,4] x, float[4,2,1,1] w1, float[8,1,1,1] w2, float[6,4,1,1] w3, float[2,6,1,1] w4)
        => (float[1,2,4,4] y)
        { a = Conv(x, w1)  b = Conv<group = 4>(a, w2)  c = Conv<group = 2>(b, w3)  y = Conv(c, w4) }""",
        w1=ones(4, 2, 1, 1),
        w2=ones(8, 1, 1, 1),
        w3=ones(6, 4, 1, 1),
        w4=ones(2, 6, 1, 1),
    )
    first, second = units(groups, model, "a")[0], units(groups, model, "a")[2]
    assert units(groups, model, "a") == [first, first, second, second]
    assert units(groups, model, "b") == [first] * 4 + [second] * 4
    assert units(groups, model, "c") == [first] * 3 + [second] * 3


def test_flatten_repeats_and_heads_are_whole():
    groups, model = found(
        """(float[1,2,3,2] x, float[4,2,1,1] w1, float[5,24] w2, int64[1] axis, int64[5] parts)
        => (float[1,5] y, float[1,3,2,2] z)
        { a = Conv(x, w1)  b = Flatten(a)  y = Gemm<transB = 1>(b, w2)
          c = Transpose<perm = [0, 2, 3, 1]>(a)  d = Reshape(c, parts)  z = ReduceSum<keepdims = 0>(d, axis) }""",
        w1=ones(4, 2, 1, 1),
        w2=ones(5, 24),
        parts=[1, 3, 2, 2, 2],
        axis=[4],
    )
    a = units(groups, model, "a")
    assert units(groups, model, "b") == np.repeat(a, 6).tolist()
    assert a[0] == a[1] != a[2] == a[3]
    assert units(groups, model, "d") == [a[0], a[2]]


def test_a_kernel_that_two_nodes_read_ties_both():
    groups, model = found(
        """(float[1,2,4,4] x, float[1,2,4,4] z, float[3,2,1,1] w1, float[4,3,1,1] w2) => (float[1,4,4,4] y)
        { a = Conv(x, w1)  b = Conv(z, w1)  c = Conv(a, w2)  d = Conv(b, w2)  y = Sub(c, d) }""",
        w1=ones(3, 2, 1, 1),
        w2=ones(4, 3, 1, 1),
    )
    assert units(groups, model, "a") == units(groups, model, "b")


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        ("Softmax<axis = 1>(a)", "read by Softmax over the channels"),
        ("ReduceMean<axes = [1]>(a)", "read by ReduceMean over the channels"),
        ("LRN<size = 3>(a)", "read by LRN"),
        ("DepthToSpace<blocksize = 2>(a)", "read by DepthToSpace"),
        ("Add(a, r)", "read by Add beside a value of unknown channels"),
    ],
)
def test_what_is_not_understood_pins(operator, reason):
    groups, _ = found(
        f"""(float[1,2,4,4] x, float[1,4,4,4] r, float[4,2,1,1] w1) => (float[N,M,K,L] y)
        {{ a = Conv(x, w1)  y = {operator} }}""",
        w1=ones(4, 2, 1, 1),
    )
    assert [text.partition(" (")[0] for text in reasons(groups)] == [reason]


def test_a_subgraph_pins_what_it_reads():
    groups, _ = found(
        """(float[1,2,4,4] x, bool c, float[4,2,1,1] w1) => (float[1,4,4,4] y)
        { a = Conv(x, w1)
          y = If(c) <then_branch = t () => (float[1,4,4,4] p) { p = Relu(a) },
                     else_branch = e () => (float[1,4,4,4] q) { q = Neg(a) }> }""",
        w1=ones(4, 2, 1, 1),
    )
    assert "a is read in a subgraph" in reasons(groups)


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_goes_over_one_axis_since_opset_13(opset):
    groups, _ = found(
        """(float[1,2,4,4] x, float[4,2,1,1] w1, float[1,4,1,1] w2) => (float[1,1,4,4] y)
        { a = Conv(x, w1)  s = Softmax<axis = AXIS>(a)  y = Conv(s, w2) }""".replace(
            "AXIS", "2" if opset == 13 else "1"
        ),
        opset,
        w1=ones(4, 2, 1, 1),
        w2=ones(1, 4, 1, 1),
    )
    is_pinned = any("Softmax" in reason for reason in reasons(groups))
    assert is_pinned == (opset == 11)


def test_a_sum_that_broadcasts_by_attribute_stops_what_it_reads():
    text = """(float[1,2,4,4] x, float[3,2,1,1] w1, float[3] b, float[5,3,1,1] w2) => (float[1,5,4,4] y)
    { a = Conv(x, w1)  c = Add<axis = 1, broadcast = 1>(a, b)  y = Conv(c, w2) }"""
    groups, _ = found(text, opset=6, w1=ones(3, 2, 1, 1), b=ones(3), w2=ones(5, 3, 1, 1))
    assert "read by Add of an opset that broadcasts by attribute" in " ".join(reasons(groups))
    assert not groups.consumers
