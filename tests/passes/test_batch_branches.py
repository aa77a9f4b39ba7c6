"""batch-branches: what is batched, what is not, that answers stay equal and files never grow."""

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
from optimizer.graph.constants import constant_ints
from optimizer.io.model import load, to_proto
from optimizer.testing import check_pass
from passes.batch_branches import BATCHED, STEP, BatchBranches
from rewriting import assert_close, feeds_for, outputs

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = np.random.default_rng(0)


def numbers(*shape, kind=np.float32):
    return RANDOM.standard_normal(shape).astype(kind)


def batched(proto, expected, *, sites=None, dims=None, **options):
    """The model after the pass, which batched ``expected`` branches; answers stay and the file does not grow."""
    return held(BatchBranches(**options), proto, {BATCHED: expected} if expected else {}, sites=sites, dims=dims)


SIAMESE = """(float[N, 3, 8, 8] left, float[M, 3, 8, 8] right) => (float[M, 4] y, float[M, 4] z)
    { conv_left = Conv<pads = [1, 1, 1, 1]>(left, w, b)  relu_left = Relu(conv_left)
      pool_left = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(relu_left)
      next_left = Conv<pads = [1, 1, 1, 1]>(pool_left, v)  skip_left = Add(next_left, pool_left)
      mean_left = GlobalAveragePool(skip_left)  flat_left = Flatten(mean_left)
      conv_right = Conv<pads = [1, 1, 1, 1]>(right, w, b)  relu_right = Relu(conv_right)
      pool_right = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(relu_right)
      next_right = Conv<pads = [1, 1, 1, 1]>(pool_right, v)  skip_right = Add(next_right, pool_right)
      mean_right = GlobalAveragePool(skip_right)  flat_right = Flatten(mean_right)
      y = Sub(flat_left, flat_right)  z = Abs(flat_right)  }"""


def siamese(left="2", right="2", opset=17, **more):
    text = SIAMESE.replace("[N,", f"[{left},").replace("[M,", f"[{right},")
    return net(text, opset, w=numbers(4, 3, 3, 3), b=numbers(4), v=numbers(4, 4, 3, 3), **more)


@pytest.mark.parametrize("opset", [7, 11, 13, 18, 21, 24])
@pytest.mark.parametrize("batch", ["1", "3", "n"])
def test_siamese_branches_become_one(opset, batch):
    model = batched(siamese(batch, batch, opset), 2, dims={"n": 3})
    whole = ["Concat", "Conv", "Relu", "MaxPool", "Conv", "Add", "GlobalAveragePool", "Flatten", "Split"]
    assert [op for op in ops(model) if op in whole][: len(whole)] == whole
    assert ops(model).count("Conv") == 2
    (cut,) = [node for node in traversal.nodes(model) if node.op_type == "Split"]
    assert len(cut.inputs) == 1, "equal batches need no sizes"


@pytest.mark.parametrize("opset", [7, 12, 13, 18])
def test_batches_of_other_lengths_are_told_to_the_split(opset):
    model = batched(siamese("1", "3", opset), 2)
    (cut,) = [node for node in traversal.nodes(model) if node.op_type == "Split"]
    if opset < 13:
        assert list(cut.attributes["split"].as_ints()) == [1, 3]
    else:
        assert constant_ints(cut.inputs[1]) == [1, 3]


@pytest.mark.parametrize("opset", [13, 14, 15, 18, 24])
@pytest.mark.parametrize("dims", [{"n": 1, "m": 1}, {"n": 1, "m": 4}, {"n": 3, "m": 3}])
def test_lengths_that_only_a_run_tells_are_read_from_the_shapes(opset, dims):
    model = batched(siamese("n", "m", opset), 2, dims=dims)
    assert "Shape" in ops(model)


def test_before_opset_13_they_are_left_alone():
    proto = siamese("n", "m", 12)
    batched(proto, 0, dims={"n": 2, "m": 2})
    assert "opset 13" in BatchBranches().run(load(proto), Context(load(proto))).notes[0].reason


def test_weights_in_nodes_and_ir_version_3():
    batched(siamese(opset=8, ir_version=3, as_nodes=True), 2)


def test_half_precision():
    text = SIAMESE.replace("float[", "float16[").replace("[N,", "[2,").replace("[M,", "[2,")
    weights = {"w": numbers(4, 3, 3, 3), "b": numbers(4), "v": numbers(4, 4, 3, 3)}
    batched(net(text, 17, **{name: array.astype(np.float16) for name, array in weights.items()}), 2)


def test_quantized_branches():
    text = """(float[1, 8] left, float[1, 8] right) => (float[1, 4] y)
        { real = DequantizeLinear(integers, scale)
          product_left = MatMul(left, real)  first_left = Relu(product_left)  second_left = Sigmoid(first_left)
          product_right = MatMul(right, real)  first_right = Relu(product_right)  second_right = Sigmoid(first_right)
          y = Sub(second_left, second_right) }"""
    integers = RANDOM.integers(-9, 9, (8, 4)).astype(np.int8)
    assert ops(batched(net(text, 17, integers=integers, scale=np.float32(0.1)), 2)).count("MatMul") == 1


UNROLLED = """(float[2, 8] x, float[2, 8] z) => (float[2, 8] y)
    { in_one = MatMul(x, w_in)  relu_one = Relu(in_one)  exp_one = Exp(relu_one)  act_one = Tanh(exp_one)
      state_one = MatMul(act_one, w_state)  end_one = Tanh(state_one)
      in_two = MatMul(z, w_in)  relu_two = Relu(in_two)  exp_two = Exp(relu_two)  act_two = Tanh(exp_two)
      sum_two = Add(act_two, end_one)
      state_two = MatMul(sum_two, w_state)  y = Tanh(state_two) }"""


def test_of_an_unrolled_loop_only_what_needs_no_step_before_is_batched():
    model = batched(net(UNROLLED, w_in=numbers(8, 8), w_state=numbers(8, 8)), 2)
    assert ops(model).count("MatMul") == 3


def test_branches_in_a_subgraph():
    text = """(float[2, 8] x, float[2, 8] z, bool[1] c) => (float[2, 4] y)
        { y = If(c) <
            then_branch = t () => (float[2, 4] p)
                { one_left = MatMul(x, w)  two_left = Relu(one_left)  end_left = Exp(two_left)
                  one_right = MatMul(z, w)  two_right = Relu(one_right)  end_right = Exp(two_right)
                  p = Sub(end_left, end_right) },
            else_branch = e () => (float[2, 4] q) { f = MatMul(x, w)  q = Neg(f) }> }"""
    model = batched(net(text, w=numbers(8, 4)), 2)
    assert ops(model).count("MatMul") == 2


def test_what_is_read_in_between_and_given_out_keeps_its_name():
    text = """(float[2, 8] x, float[2, 8] z) => (float[2, 4] middle_left, float[2, 4] end_right, float[2, 4] y)
        { one_left = MatMul(x, w)  middle_left = Relu(one_left)  end_left = Exp(middle_left)
          one_right = MatMul(z, w)  middle_right = Relu(one_right)  end_right = Exp(middle_right)
          more_left = Abs(end_left)  more_right = Abs(end_right)
          again_left = Sqrt(more_left)  again_right = Sqrt(more_right)
          inner_left = Sigmoid(again_left)  inner_right = Sigmoid(again_right)
          y = Sub(inner_left, inner_right) }"""
    model = batched(net(text, w=numbers(8, 4)), 2)
    assert [value.name for value in model.graph.outputs] == ["middle_left", "end_right", "y"]


LEFT_ALONE = {
    "one node is less than a Concat and a Split": "one_l = MatMul(x, w)  one_r = MatMul(z, w)  y = Sub(one_l, one_r)",
    "other weights": """one_l = MatMul(x, w)  two_l = Relu(one_l)  end_l = Exp(two_l)
        one_r = MatMul(z, v)  two_r = Relu(one_r)  end_r = Exp(two_r)  y = Sub(end_l, end_r)""",
    "one needs the other": """one_l = MatMul(x, w)  two_l = Relu(one_l)  end_l = Exp(two_l)
        one_r = MatMul(end_l, w)  two_r = Relu(one_r)  end_r = Exp(two_r)  y = Sub(end_l, end_r)""",
    "the batch is what is transposed": """one_l = Transpose(x)  two_l = MatMul(one_l, w)  y_l = Transpose(two_l)
        one_r = MatMul(v, w)  two_r = Relu(one_r)  y = Sub(y_l, two_r)""",
}


@pytest.mark.parametrize("body", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_left_alone(body):
    text = f"(float[4, 4] x, float[4, 4] z) => (float[4, 4] y) {{ {body} }}"
    batched(net(text, w=numbers(4, 4), v=numbers(4, 4)), 0)


STOPS = {
    "a constant for each element": "Add(one_{0}, rows)",
    "a softmax over the batch": "Softmax<axis = 0>(one_{0})",
    "a mean over the batch": "ReduceMean<axes = [0], keepdims = 1>(one_{0})",
    "a shape that mixes elements": "Reshape(one_{0}, mixed)",
    "a transposed batch": "Transpose<perm = [1, 0]>(one_{0})",
    "a padded batch": "Pad(one_{0}, pads)",
}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_branches_end_where_the_elements_of_the_batch_meet(stop):
    half = f"""begin_{{0}} = MatMul(in_{{0}}, w)  middle_{{0}} = Relu(begin_{{0}})  more_{{0}} = Exp(middle_{{0}})
        one_{{0}} = Sigmoid(more_{{0}})  stop_{{0}} = {stop}  end_{{0}} = Neg(stop_{{0}})"""
    text = f"""(float[2, 4] in_left, float[2, 4] in_right) => (float[a, b] y)
        {{ {half.format("left")}  {half.format("right")}  y = Sub(end_left, end_right) }}"""
    constants = {"rows": numbers(2, 4), "mixed": np.array([4, 2]), "pads": np.array([1, 0, 0, 0])}
    model = batched(net(text, 13, w=numbers(4, 4), **constants), 2)
    assert ops(model).count("Sigmoid") == 1
    assert ops(model).count("Neg") == 2


GOES_ON = {
    "a constant for each channel": "Add(one_{0}, bias)",
    "a constant with a leading one": "Mul(row, one_{0})",
    "a softmax of each element": "Softmax<axis = -1>(one_{0})",
    "a mean of each element": "ReduceMean<axes = [1], keepdims = 1>(one_{0})",
    "a shape of each element": "Reshape(one_{0}, each)",
    "a shape that keeps the batch": "Reshape(one_{0}, kept)",
    "padded elements": "Pad(one_{0}, pads)",
    "joined elements": "Concat<axis = 1>(one_{0}, middle_{0})",
    "a sum of two values of a branch": "Add(one_{0}, middle_{0})",
    "a kernel": "MatMul(one_{0}, v)",
}


@pytest.mark.parametrize("inside", GOES_ON.values(), ids=GOES_ON)
def test_branches_go_on_where_they_do_not(inside):
    half = f"""begin_{{0}} = MatMul(in_{{0}}, w)  middle_{{0}} = Relu(begin_{{0}})  one_{{0}} = Exp(middle_{{0}})
        inside_{{0}} = {inside}  end_{{0}} = Neg(inside_{{0}})"""
    text = f"""(float[2, 4] in_left, float[2, 4] in_right) => (float[a, b] y)
        {{ {half.format("left")}  {half.format("right")}  y = Sub(end_left, end_right) }}"""
    constants = {"bias": numbers(4), "row": numbers(1, 4), "each": np.array([-1, 2, 2]), "kept": np.array([0, 4, 1])}
    text = text.replace("(float[a, b] y)", "(float[a, b, c] y)") if "Reshape" in inside else text
    constants |= {"pads": np.array([0, 1, 0, 0]), "v": numbers(4, 3)}
    model = batched(net(text, 13, w=numbers(4, 4), **constants), 2)
    assert ops(model).count("Neg") == 1


def test_the_options_and_the_manager_choose():
    proto = siamese()
    batched(proto, 0, exclude=("op:Conv",))
    batched(proto, 2, include=("conv_*",))
    batched(proto, 0, sites=Sites(denied_steps=frozenset({STEP.name})))
    with pytest.raises(UsageError):
        BatchBranches(include=("",))


def test_the_whole_run_keeps_it_by_size_where_nothing_is_timed():
    report = optimizer.optimize(siamese("n", "m"), passes=["batch-branches"], timing=False).report
    assert report.stages[0].kept
    assert report.after.bytes < report.before.bytes


def test_old_opsets_are_refused():
    proto = net("(float[2] x) => (float[2] y) { y = Relu(x) }", 6, ir_version=3)
    with pytest.raises(PreconditionError, match="opset 7"):
        BatchBranches().requires(load(proto), Context(load(proto)))


@dataclass
class Random:
    """Branches in the making, side by side; now and then one of them does something else."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    opset: int
    count: int
    widths: list[list[int]]
    ends: list[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    given_out: list[str] = field(default_factory=list)

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def constant(self, array):
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def layer(self, number):
        """One operator in every branch, on what it made last; sometimes on its own output before that, too."""
        kind = self.pick("MatMul", "MatMul", "Relu", "Add", "Mul", "self", "Softmax", "cross", "odd")
        width = self.widths[-1][-1]
        old, self.ends = self.ends, [f"layer_{number}_of_branch_{i}" for i in range(self.count)]
        weight = self.constant(numbers(width, 3)) if kind == "MatMul" else ""
        rows = self.pick(1, 2)
        added = self.constant(numbers(rows, width)) if kind in {"Add", "Mul"} else ""
        odd = self.draw(st.integers(0, self.count - 1))
        for i, (end, new) in enumerate(zip(old, self.ends, strict=True)):
            match kind:
                case "MatMul" | "Add" | "Mul":
                    self.nodes.append(helper.make_node(kind, [end, weight or added], [new]))
                case "self":
                    self.nodes.append(helper.make_node("Add", [end, end], [new]))
                case "cross":  # the first branch feeds all
                    self.nodes.append(helper.make_node("Add", [end, old[0]], [new]))
                case "odd":
                    self.nodes.append(helper.make_node("Neg" if i == odd else "Abs", [end], [new]))
                case _:
                    self.nodes.append(
                        helper.make_node(kind, [end], [new], **({"axis": 1} if kind == "Softmax" else {}))
                    )
        if kind == "MatMul":
            self.widths.append([2, 3])
        if self.pick(True, False, False, False):
            self.given_out.append(self.pick(*self.ends))


@st.composite
def nets(draw):
    opset, count = draw(st.sampled_from([7, 11, 12, 13, 15, 18, 21, 24])), draw(st.integers(2, 4))
    net = Random(draw, opset, count, [[2, 4]], [f"in_{i}" for i in range(count)])
    for number in range(draw(st.integers(2, 7))):
        net.layer(number)
    given_out = dict.fromkeys([*net.given_out, *net.ends])
    lengths = draw(st.sampled_from([[2] * count, ["n"] * count, [f"n{i}" for i in range(count)]]))
    made = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info(f"in_{i}", TensorProto.FLOAT, [lengths[i], 4]) for i in range(count)],
        [onnx.ValueInfoProto(name=name) for name in given_out],
        [numpy_helper.from_array(array, name) for name, array in net.constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.value_info[:]
    return model


@given(nets())
@settings(max_examples=150)
def test_random_branches(proto):
    quick = ("works or refuses", "keeps the reference", "counts changes", "rests")
    result = check_pass(BatchBranches(), load(proto), may_run=False, promises=quick)
    after = to_proto(result.model)
    assert after.ByteSize() <= proto.ByteSize()
    given = feeds_for(proto, {})
    for one, other in zip(outputs(proto, given, optimize=False), outputs(after, given, optimize=False), strict=True):
        assert_close(one, other)
