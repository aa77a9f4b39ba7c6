"""merge-siblings: what becomes wider, what stays, that answers stay equal and files never grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import optimizer
from body_nets import held, net, ops
from optimizer.contract.passes import Context, Sites
from optimizer.errors import PreconditionError, UsageError
from optimizer.graph import traversal
from optimizer.graph.constants import constant_array, constant_ints
from optimizer.io.model import load, to_proto
from pass_checks import checked_run
from passes.merge_siblings import MERGED, STEP, MergeSiblings
from rewriting import assert_close, feeds_for, outputs

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = np.random.default_rng(0)


def numbers(*shape, kind=np.float32):
    return RANDOM.standard_normal(shape).astype(kind)


def merged(proto, expected, *, sites=None, dims=None, **options):
    """The model after the pass, which merged ``expected`` kernels; answers stay and the file does not grow."""
    return held(MergeSiblings(**options), proto, {MERGED: expected} if expected else {}, sites=sites, dims=dims)


QKV = """(float[b, s, 8] x) => (float[b, 8, s] y)
    { query = MatMul(x, weight_of_query)  key = MatMul(x, weight_of_key)  value = MatMul(x, weight_of_value)
      query_b = Add(bias_of_query, query)  key_b = Add(key, bias_of_key)  value_b = Add(bias_of_value, value)
      turned = Transpose<perm = [0, 2, 1]>(key_b)  scores = MatMul(query_b, turned)
      mixed = MatMul(scores, value_b)  y = Transpose<perm = [0, 2, 1]>(mixed) }"""


def qkv(*widths, bias=True):
    names = ("query", "key", "value")
    found = {f"weight_of_{name}": numbers(8, width) for name, width in zip(names, widths, strict=True)}
    return {**found, **{f"bias_of_{name}": numbers(width) for name, width in zip(names, widths, strict=True)}}


@pytest.mark.parametrize("opset", [7, 9, 12, 13, 17, 18, 21, 24])
def test_projections_and_their_biases_become_one(opset):
    model = merged(net(QKV, opset, **qkv(8, 8, 8)), 3)
    assert ops(model) == ["MatMul", "Add", "Split", "Transpose", "MatMul", "MatMul", "Transpose"]
    (cut,) = [node for node in traversal.nodes(model) if node.op_type == "Split"]
    assert [value.name for value in cut.outputs] == ["query_b", "key_b", "value_b"]
    assert len(cut.inputs) == 1, "equal parts need no sizes"


@pytest.mark.parametrize("opset", [7, 12, 13, 18, 24])
def test_parts_of_other_widths_are_told_to_the_split(opset):
    text = QKV.replace("(float[b, 8, s] y)", "(float[b, 4, s] y)")
    model = merged(net(text, opset, **qkv(8, 8, 4)), 3)
    (cut,) = [node for node in traversal.nodes(model) if node.op_type == "Split"]
    if opset < 13:
        assert list(cut.attributes["split"].as_ints()) == [8, 8, 4]
    else:
        assert constant_ints(cut.inputs[1]) == [8, 8, 4]


BRANCHES = """(float[n, 4, 6, 6] x) => (float[n, c, 6, 6] y)
    { a = Conv<kernel_shape = [1, 1]>(x, weight_of_a, bias_of_a)
      c = Conv<kernel_shape = [1, 1], strides = [1, 1]>(x, weight_of_c, bias_of_c)
      d = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, weight_of_d, bias_of_d)
      relu_a = Relu(a)  relu_c = Relu(c)  relu_d = Relu(d)  y = Concat<axis = 1>(relu_a, relu_c, relu_d) }"""


def branches():
    found = {"weight_of_a": numbers(3, 4, 1, 1), "weight_of_c": numbers(5, 4, 1, 1), "weight_of_d": numbers(2, 4, 3, 3)}
    return {**found, "bias_of_a": numbers(3), "bias_of_c": numbers(5), "bias_of_d": numbers(2)}


@pytest.mark.parametrize("as_nodes", [True, False])
def test_convolutions_of_one_window_become_one_and_so_does_what_follows(as_nodes):
    model = merged(net(BRANCHES, 13, as_nodes=as_nodes, **branches()), 2)
    assert sorted(ops(model)) == ["Concat", "Conv", "Conv", "Relu", "Relu", "Split"]


def test_before_ir_version_4_constants_are_nodes():
    model = merged(net(BRANCHES, 8, ir_version=3, as_nodes=True, **branches()), 2)
    assert not model.graph.initializers


def test_a_missing_bias_is_zeros_where_that_is_cheap():
    text = BRANCHES.replace("(x, weight_of_a, bias_of_a)", "(x, weight_of_a)")
    constants = branches()
    del constants["bias_of_a"]
    model = merged(net(text, 13, **constants), 2)
    (wide,) = [node for node in traversal.nodes(model) if node.op_type == "Conv" and node.outputs[0].name == "wide"]
    assert not constant_array(wide.inputs[2])[:3].any()


def test_where_zeros_cost_too_much_those_with_a_bias_are_merged_without_the_others():
    text = """(float[n, 4] x) => (float[n, 800] y)
        { a = Gemm(x, weight_of_a, bias_of_a)  c = Gemm(x, weight_of_c)  d = Gemm(x, weight_of_d, bias_of_d)
          e = Gemm(x, weight_of_e)
          y = Concat<axis = 1>(a, c, d, e) }"""
    constants = {f"weight_of_{name}": numbers(4, 200) for name in "acde"} | {
        f"bias_of_{name}": numbers(200) for name in "ad"
    }
    model = merged(net(text, 17, **constants), 4)
    assert sorted(ops(model)) == ["Concat", "Gemm", "Gemm", "Split", "Split"]


GEMMS = """(float[n, 4] x) => (float[n, 6] y)
    { a = Gemm<transB = 1, alpha = 2.0>(x, weight_of_a, bias_of_a)
      c = Gemm<alpha = 2.0, transB = 1>(x, weight_of_c, bias_of_c)  y = Mul(a, c) }"""


@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 6), (1, 1)])
def test_biases_of_gemm_that_broadcast(shape):
    constants = {
        "weight_of_a": numbers(6, 4),
        "weight_of_c": numbers(6, 4),
        "bias_of_a": numbers(*shape),
        "bias_of_c": numbers(6),
    }
    assert ops(merged(net(GEMMS, 13, **constants), 2)) == ["Gemm", "Split", "Mul"]


def test_half_precision():
    text = QKV.replace("float[", "float16[")
    constants = {name: array.astype(np.float16) for name, array in qkv(8, 8, 8).items()}
    merged(net(text, 17, **constants), 3)


def test_in_branches_and_functions():
    text = """(float[n, 8] x, bool[1] c) => (float[n, 4] y)
        { y = If(c) <
            then_branch = t () => (float[n, 4] p) { a = MatMul(x, weight_of_a)  d = MatMul(x, weight_of_d)
                p = Mul(a, d) },
            else_branch = e () => (float[n, 4] q) { f = MatMul(x, weight_of_f)  q = Neg(f) }> }"""
    proto = net(text, 17, weight_of_a=numbers(8, 4), weight_of_d=numbers(8, 4), weight_of_f=numbers(8, 4))
    assert sorted(ops(merged(proto, 2))) == ["If", "MatMul", "MatMul", "Mul", "Neg", "Split"]
    body = [
        helper.make_node("Constant", [], [f"weight_of_{name}"], value=numpy_helper.from_array(numbers(8, 4), ""))
        for name in "vw"
    ]
    body += [helper.make_node("MatMul", ["i", f"weight_of_{name}"], [f"m{name}"]) for name in "vw"]
    body += [helper.make_node("Mul", ["mv", "mw"], ["o"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "twice", ["i"], ["o"], body, opsets[:1])
    slots = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 8), ("y", 4))]
    caller = helper.make_graph([helper.make_node("twice", ["x"], ["y"], domain="local")], "g", slots[:1], slots[1:])
    merged(helper.make_model(caller, opset_imports=opsets, functions=[function], ir_version=8), 2)


def test_graph_outputs_keep_their_names():
    text = (
        "(float[n, 8] x) => (float[n, 4] a, float[n, 4] c) { a = MatMul(x, weight_of_a)  c = MatMul(x, weight_of_c) }"
    )
    model = merged(net(text, 13, weight_of_a=numbers(8, 4), weight_of_c=numbers(8, 4)), 2)
    assert [value.name for value in model.graph.outputs] == ["a", "c"]


def test_groups_with_the_same_weights_share_the_wide_one():
    text = """(float[n, 8] x) => (float[n, 4] y)
        { h = MatMul(x, mix)  a = MatMul(x, weight_of_a)  c = MatMul(x, weight_of_c)
          d = MatMul(h, weight_of_c)  e = MatMul(h, weight_of_a)
          k = Sub(a, c)  l = Sub(d, e)  y = Mul(k, l) }"""
    proto = net(text, 17, weight_of_a=numbers(8, 4), weight_of_c=numbers(8, 4), mix=numbers(8, 8))
    model = merged(proto, 4)
    assert len(model.graph.initializers) == 2


def test_groups_of_other_strides_share_the_wide_weight():
    text = """(float[n, 4, 8, 8] x) => (float[n, 3, 8, 8] y, float[n, 3, 4, 4] z)
        { a = Conv(x, weight_of_a)  c = Conv(x, weight_of_c)  y = Mul(a, c)  h = Abs(x)
          d = Conv<strides = [2, 2]>(h, weight_of_c)  e = Conv<strides = [2, 2]>(h, weight_of_a)  z = Sub(d, e) }"""
    model = merged(net(text, 12, weight_of_a=numbers(3, 4, 1, 1), weight_of_c=numbers(3, 4, 1, 1)), 4)
    assert len(model.graph.initializers) == 1


LEFT_ALONE = {
    "other inputs": (
        "(float[2, 4] x, float[2, 4] z) => (float[2, 4] y) { a = MatMul(x, w) c = MatMul(z, v) y = Mul(a, c) }"
    ),
    "other attributes": (
        "(float[2, 4] x) => (float[2, 4] y) { a = Gemm<alpha = 2.0>(x, w) c = Gemm<alpha = 0.5>(x, v) y = Mul(a, c) }"
    ),
    "a weight that another node reads": (
        "(float[2, 4] x) => (float[4, 4] z, float[2, 4] y) "
        "{ z = Neg(w) a = MatMul(x, w) c = MatMul(x, v) y = Mul(a, c) }"
    ),
    "a computed weight": (
        "(float[4, 4] x) => (float[4, 4] y) { u = Relu(x) a = MatMul(x, u) c = MatMul(x, v) y = Mul(a, c) }"
    ),
    "an overridable weight": (
        "(float[2, 4] x, float[4, 4] w) => (float[2, 4] y) { a = MatMul(x, w) c = MatMul(x, v) y = Mul(a, c) }"
    ),
    "one kernel is in a branch": """(float[2, 4] x, bool[1] k) => (float[2, 4] y) { a = MatMul(x, w)
        y = If(k) <then_branch = t () => (float[2, 4] p) { c = MatMul(x, v) p = Mul(a, c) },
                   else_branch = e () => (float[2, 4] q) { q = Neg(a) }> }""",
    "the weight is given out": (
        "(float[2, 4] x) => (float[4, 4] w, float[2, 4] y) { a = MatMul(x, w) c = MatMul(x, v) y = Mul(a, c) }"
    ),
}


@pytest.mark.parametrize("text", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_left_alone(text):
    merged(net(text, 17, w=numbers(4, 4), v=numbers(4, 4)), 0)


def test_groups_of_channels_are_left_alone():
    text = """(float[1, 4, 3, 3] x) => (float[1, 4, 1, 1] y)
        { a = Conv<group = 2>(x, w)  c = Conv<group = 2>(x, v)  y = Mul(a, c) }"""
    proto = net(text, 17, w=numbers(4, 2, 3, 3), v=numbers(4, 2, 3, 3))
    merged(proto, 0)
    notes = MergeSiblings().run(load(proto), Context(load(proto))).notes
    assert notes[0].reason == "has groups of channels"


def test_quantized_weights_are_left_alone():
    text = """(float[2, 4] x) => (float[2, 4] y) { w = DequantizeLinear(q, s)  v = DequantizeLinear(r, s)
        a = MatMul(x, w)  c = MatMul(x, v)  y = Mul(a, c) }"""
    integers = {name: RANDOM.integers(-9, 9, (4, 4)).astype(np.int8) for name in "qr"}
    merged(net(text, 17, s=np.float32(0.1), **integers), 0)


def test_half_precision_weights_that_are_cast_are_left_alone():
    text = """(float[2, 4] x) => (float[2, 4] y) { w = Cast<to = 1>(q)  v = Cast<to = 1>(r)
        a = MatMul(x, w)  c = MatMul(x, v)  y = Mul(a, c) }"""
    merged(net(text, 17, q=numbers(4, 4, kind=np.float16), r=numbers(4, 4, kind=np.float16)), 0)


def test_the_options_and_the_manager_choose():
    proto = net(BRANCHES, 13, **branches())
    merged(proto, 0, exclude=("op:Conv",))
    merged(proto, 2, include=("op:Conv",))
    merged(proto, 0, sites=Sites(denied=frozenset({(STEP.name, "Conv -> a")})))
    with pytest.raises(UsageError):
        MergeSiblings(include=("",))


def test_the_whole_run_keeps_it_by_size_where_nothing_is_timed():
    report = optimizer.optimize(net(QKV, 17, **qkv(8, 8, 8)), passes=["merge-siblings"], timing=False).report
    assert report.stages[0].kept
    assert report.after.bytes < report.before.bytes


def test_old_opsets_are_refused():
    proto = net("(float[2] x) => (float[2] y) { y = Relu(x) }", 6, ir_version=3)
    with pytest.raises(PreconditionError, match="opset 7"):
        MergeSiblings().requires(load(proto), Context(load(proto)))


@dataclass
class Random:
    """A net in the making, whose kernels all are of one operator."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    opset: int
    kind: Any
    op_type: str
    width: int
    nodes: list[onnx.NodeProto] = field(default_factory=lambda: [helper.make_node("Neg", ["x"], ["z"])])
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def add(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, name, array):
        """A new constant, in one of three places, or an old one of its shape."""
        array = np.asarray(array, self.kind)
        same = [old for old, other in self.constants.items() if other.shape == array.shape]
        place = self.pick("initializer", "node", "identity", "shared")
        if place == "shared" and same:
            return self.pick(*same)
        if place == "node":
            return self.add("Constant", [], name, value=numpy_helper.from_array(array, ""))
        self.constants[name] = array
        return self.add("Identity", [name], f"{name}_again") if place == "identity" else name

    def weight(self, outputs):
        """A weight, and the attributes of the kernel that reads it."""
        if self.op_type == "Conv":
            window = self.pick([1, 1], [1, 1], [2, 2])
            attributes = self.pick({"pads": [window[0] - 1, window[0] - 1, 0, 0]}, {"auto_pad": "SAME_UPPER"})
            named = {"kernel_shape": window} if self.pick(True, False) else {}
            return numbers(outputs, self.width, *window), {**attributes, **named}
        array = numbers(self.width, outputs)
        if self.op_type == "Gemm" and self.pick(True, False, False):
            return array.T, {"transB": 1}
        return array, {}

    def branch(self, number):
        """A kernel, its bias, what follows; returns the name of the last value."""
        outputs = self.pick(2, 3)
        array, attributes = self.weight(outputs)
        inputs = [self.pick("x", "x", "z"), self.constant(f"w{number}", array)]
        must = self.op_type == "Gemm" and self.opset < 11
        if self.op_type != "MatMul" and (must or self.pick(True, False)):
            inputs.append(self.constant(f"b{number}", numbers(outputs)))
        end = self.add(self.op_type, inputs, f"k{number}", **attributes)
        if self.op_type == "MatMul" and self.pick(True, False):
            pair = [end, self.constant(f"a{number}", numbers(outputs))]
            end = self.add("Add", pair if self.pick(True, False) else pair[::-1], f"s{number}")
        follows = self.pick("", "Relu", "Relu", "LeakyRelu")
        return self.add(follows, [end], f"f{number}") if follows else end


SHAPES = {"Conv": [2, None, 3, 4], "Gemm": [3, None], "MatMul": [2, 3, None]}


@st.composite
def nets(draw):
    """Kernels that read one of two values, with or without biases and what follows, given out or read on."""
    opset = draw(st.sampled_from([7, 9, 11, 12, 13, 15, 17, 18, 21, 24]))
    kind = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    net = Random(draw, opset, kind, draw(st.sampled_from(list(SHAPES))), draw(st.sampled_from([2, 4])))
    ends = [net.branch(number) for number in range(draw(st.integers(2, 5)))]
    given_out = ends if draw(st.booleans()) else [net.add("Sigmoid", [end], f"{end}_out") for end in ends]
    given_out = dict.fromkeys([*given_out, *draw(st.sampled_from([[], ["k0"]]))])
    dims = [size or net.width for size in SHAPES[net.op_type]]
    dims = ["n", *dims[1:]] if draw(st.booleans()) else dims
    made = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), dims)],
        [onnx.ValueInfoProto(name=name) for name in given_out],
        [numpy_helper.from_array(array, name) for name, array in net.constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.value_info[:]
    return model


@given(nets())
@settings(max_examples=150)
def test_random_siblings(proto):
    result = checked_run(MergeSiblings(), load(proto))
    after = to_proto(result.model)
    assert after.ByteSize() <= proto.ByteSize()
    given = feeds_for(proto, {})
    for one, other in zip(outputs(proto, given, optimize=False), outputs(after, given, optimize=False), strict=True):
        assert_close(one, other)
