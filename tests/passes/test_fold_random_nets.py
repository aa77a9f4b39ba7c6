"""Whatever is folded, answers stay: random nets whose weights repeat by chance, and whose axes all have one size."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from optimizer.contract.passes import Context
from optimizer.io.model import load, to_proto
from passes.fold_shared_kernels import FoldSharedKernels
from rewriting import outputs

SIZE = 4
SHAPE = (SIZE,) * 4
FEW = (0.0, 0.0, 1.0, 2.0, -1.0)
UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Identity", "Softplus")
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "PRelu", "Sum", "Mean")


class Wild:
    """Grows a net of values that all have the same shape."""

    def __init__(self, draw):
        self.draw, self.nodes, self.constants, self.values = draw, [], [], ["x"]
        self.random = np.random.default_rng(draw(st.integers(0, 10**6)))

    def pick(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def value(self):
        """A value, most often the last."""
        return self.values[-1] if self.pick([True, True, False]) else self.pick(self.values)

    def constant(self, *shape, kind=np.float32, array=None):
        name = f"c{len(self.constants)}"
        array = self.random.choice(FEW, shape) if array is None else array
        self.constants.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def add(self, op, *inputs, keep=True, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        if keep:
            self.values.extend(names)
        return names[0] if outputs == 1 else names

    def grow(self):
        getattr(
            self,
            self.pick(["kernel", "kernel", "kernel", "unary", "binary", "shift", "moved", "over", "joined", "pool"]),
        )()

    def kernel(self):
        kind = self.pick(["Conv", "padded", "depthwise", "grouped", "ConvTranspose", "MatMul"])
        bias = [self.constant(SIZE)] if self.pick([True, False]) else []
        if kind == "MatMul":
            self.add("MatMul", self.value(), self.constant(SIZE, SIZE))
        elif kind == "padded":
            self.add("Conv", self.value(), self.constant(SIZE, SIZE, 3, 3), *bias, pads=[1] * 4)
        elif kind == "depthwise":
            self.add("Conv", self.value(), self.constant(SIZE, 1, 1, 1), *bias, group=SIZE)
        elif kind == "grouped":
            self.add("Conv", self.value(), self.constant(SIZE, 2, 1, 1), *bias, group=2)
        else:
            self.add(kind, self.value(), self.constant(SIZE, SIZE, 1, 1), *bias)

    def unary(self):
        self.add(self.pick(UNARY), self.value())

    def binary(self):
        op = self.pick([*BINARY, "MatMul", "Where"])
        if op == "Where":
            below = self.add("Less", self.value(), self.value(), keep=False)
            self.add("Where", below, self.value(), self.value())
        else:
            self.add(op, self.value(), self.value())

    def shift(self):
        """Arithmetic with a constant along some of the axes."""
        shape = [self.pick([1, SIZE]) for _ in range(self.pick([0, 1, 3, 4]))]
        op, value, constant = self.pick(["Add", "Sub", "Mul", "Max", "PRelu"]), self.value(), self.constant(*shape)
        self.add(op, *([value, constant] if op == "PRelu" or self.pick([True, False]) else [constant, value]))

    def moved(self):
        kind = self.pick(["Transpose", "Reshape", "Heads"])
        if kind == "Transpose":
            self.add("Transpose", self.value(), perm=self.draw(st.permutations(range(4))))
            return
        middle = self.pick(
            [(SIZE, SIZE * SIZE, SIZE), (SIZE, -1), (SIZE, 2, 2, SIZE, SIZE), (SIZE, SIZE, 2, 2, SIZE), (0, 0, -1)]
        )
        wide = self.add("Reshape", self.value(), self.constant(array=middle, kind=np.int64), keep=False)
        self.add("Reshape", wide, self.constant(array=SHAPE, kind=np.int64))

    def over(self):
        op = self.pick(["Softmax", "ReduceMean", "ReduceMax", "InstanceNormalization", "BatchNormalization"])
        if op == "Softmax":
            self.add(op, self.value(), axis=self.pick(range(4)))
        elif op == "InstanceNormalization":
            self.add(op, self.value(), self.constant(SIZE), self.constant(SIZE), epsilon=0.1)
        elif op == "BatchNormalization":
            spread = self.constant(array=self.random.choice([1.0, 2.0], SIZE))
            self.add(op, self.value(), self.constant(SIZE), self.constant(SIZE), self.constant(SIZE), spread)
        else:
            small = self.add(op, self.value(), axes=[self.pick(range(4))], keep=False)
            self.add(self.pick(["Add", "Mul"]), self.value(), small)

    def joined(self):
        axis = self.pick(range(4))
        both = self.add("Concat", self.value(), self.value(), axis=axis, keep=False)
        kind = self.pick(["Slice", "Gather", "Split"])
        if kind == "Split":
            self.add("Split", both, self.constant(array=[SIZE, SIZE], kind=np.int64), axis=axis, outputs=2)
        elif kind == "Gather":
            self.add("Gather", both, self.constant(array=self.random.integers(-8, 8, SIZE), kind=np.int64), axis=axis)
        else:
            start = self.pick(range(5))
            bounds = [self.constant(array=[at], kind=np.int64) for at in (start, start + SIZE, axis)]
            self.add("Slice", both, *bounds)

    def pool(self):
        op = self.pick(["MaxPool", "AveragePool", "Pad", "GlobalAveragePool"])
        if op == "Pad":
            wide = self.add(
                "Pad", self.value(), self.constant(array=[0, 0, 1, 1, 0, 0, 1, 1], kind=np.int64), keep=False
            )
            self.add("Conv", wide, self.constant(SIZE, SIZE, 3, 3))
        elif op == "GlobalAveragePool":
            self.add("Mul", self.value(), self.add(op, self.value(), keep=False))
        else:
            extra = {"count_include_pad": self.pick([0, 1])} if op == "AveragePool" else {}
            self.add(op, self.value(), kernel_shape=[3, 3], pads=[1] * 4, **extra)

    def model(self):
        ends = [helper.make_tensor_value_info(self.values[-1], TensorProto.FLOAT, SHAPE)]
        start = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
        whole = helper.make_graph(self.nodes, "wild", start, ends, self.constants)
        made = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made


@st.composite
def wild_nets(draw):
    wild = Wild(draw)
    for _ in range(draw(st.integers(3, 14))):
        wild.grow()
    wild.add("Conv", wild.values[-1], wild.constant(SIZE, SIZE, 1, 1))
    return wild.model()


@settings(max_examples=200, deadline=None)
@given(wild_nets(), st.integers(0, 100))
def test_answers_stay(model, seed):
    feeds = {"x": np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)}
    wanted = outputs(model, feeds, optimize=False)[0].astype(np.float64)
    assume(np.isfinite(wanted).all() and np.abs(wanted).max() < 1e6)
    result = FoldSharedKernels(multiple=1).run(load(model), Context(load(model)))
    after = to_proto(result.model)
    onnx.checker.check_model(after, full_check=True)
    got = outputs(after, feeds, optimize=False)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * max(np.abs(wanted).max(), 1))
