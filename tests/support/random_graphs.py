"""Random small graphs of the operators that `simplify` knows, at any operator set from 7 on.

What became an input or an attribute of an operator in a later operator set is written as the operator set asks for.
Shapes are those that onnx infers; a node whose shapes it cannot tell, or that would be empty, is left out again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 20, 21)
NUMBERS = (-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0)
UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Identity", "Tanh", "HardSigmoid", "Dropout", "Exp", "Not", "Cast")
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ArgMax")
MAX_ELEMENTS = 2000
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


@dataclass
class Builder:
    """A graph that grows node by node; ``shapes`` are those of the float values in it."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    opset: int
    shape: tuple[int, ...]
    as_nodes: bool
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nonzero: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.shapes["x"] = self.shape

    def pick(self, choices):
        """One of ``choices``."""
        return self.draw(st.sampled_from(list(choices)))

    def source(self, rank: int | None = None, least: int = 0) -> str | None:
        """A value, most often a late one, of a rank."""
        names = [n for n, s in self.shapes.items() if len(s) >= least and (rank is None or len(s) == rank)]
        if not names:
            return None
        return names[-1] if self.pick([True, True, True, False]) else self.pick(names)

    def constant(self, array: Any, kind: Any = np.float32) -> str:
        """The name of a new constant, or of an equal one that is there."""
        array = np.asarray(array, kind)
        for old in self.constants:
            known = onnx.numpy_helper.to_array(old)
            same = known.dtype == array.dtype and known.shape == array.shape and np.array_equal(known, array)
            if same and not self.pick([True, False]):
                return old.name
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def numbers(self, shape, *, zero: bool = True) -> str:
        """A float constant; small numbers that floats hold exactly."""
        fitting = [old for old in self.constants if list(old.dims) == list(shape) and old.data_type == FLOAT]
        known = [old.name for old in fitting if zero or old.name in self.nonzero]
        if known and self.pick([True, False, False]):  # several nodes read it then
            return self.pick(known)
        choices = [number for number in NUMBERS if zero or number]
        name = self.constant(self.random.choice(choices, shape))
        self.nonzero.update(() if zero else [name])
        return name

    def add(self, op_type: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> bool:
        """Add a node if the shapes of its outputs are known then."""
        names = [f"v{len(self.nodes)}_{index}" if index else f"v{len(self.nodes)}" for index in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op_type, inputs, names, **attributes))
        found = _inferred(self.model(names))
        for name in names:
            shape, _ = found.get(name, (None, None))
            if shape is None or min(shape, default=1) < 1 or np.prod(shape, dtype=int) > MAX_ELEMENTS:
                self.nodes.pop()
                return False
        for name in names:
            if found[name][1] == FLOAT:
                self.shapes[name] = found[name][0]
        return True

    def last(self) -> str:
        """What the last node gives out first."""
        return self.nodes[-1].output[0]

    def model(self, outputs: list[str], *, typed: bool = False, symbols: bool = False) -> onnx.ModelProto:
        """The graph as a model with these outputs; with ``symbols`` it does not say the dimensions."""
        info = onnx.helper.make_tensor_value_info
        shape = [f"x{axis}" for axis in range(len(self.shape))] if symbols else self.shape
        results = [
            info(name, FLOAT, self.shapes[name]) if typed else onnx.ValueInfoProto(name=name) for name in outputs
        ]
        nodes, constants = list(self.nodes), list(self.constants)
        if self.as_nodes:
            nodes = [onnx.helper.make_node("Constant", [], [one.name], value=one) for one in constants] + nodes
            constants = []
        if symbols:
            results = [
                info(name, FLOAT, [f"{name}_{axis}" for axis in range(len(self.shapes[name]))]) for name in outputs
            ]
        made = onnx.helper.make_graph(nodes, "g", [info("x", FLOAT, shape)], results, constants)
        imports = [onnx.helper.make_opsetid("", self.opset)]
        return onnx.helper.make_model(made, opset_imports=imports, ir_version=8)


def _inferred(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...] | None, int]]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return {}
    found = {}
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        known = tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)
        found[value.name] = (tuple(dim.dim_value for dim in tensor.shape.dim) if known else None, tensor.elem_type)
    return found


def unary(b: Builder) -> None:
    """One input, no parameters that matter."""
    source, op_type = b.source(), b.pick(UNARY)
    if op_type == "Cast":
        if b.add("Cast", [source], to=onnx.TensorProto.DOUBLE):
            b.add("Cast", [b.last()], to=FLOAT)
    elif op_type != "Not":
        b.add(op_type, [source])


def scaling(b: Builder) -> None:
    """Mul, Add, Sub, Div with a constant on either side; of one number, of one a channel, or of any that broadcasts."""
    source = b.source()
    shape = list(b.shapes[source])
    form = b.pick(["number", "one", "channel", "last", "full", "wider"])
    if form == "number":
        size: list[int] = []
    elif form == "one":
        size = [1] * b.draw(st.integers(1, max(1, len(shape))))
    elif form == "channel" and len(shape) > 1:
        size = [shape[1], *[1] * (len(shape) - 2)]
    elif form == "wider":
        size = [1, *shape]
    else:
        size = shape[-1:] if form == "last" else shape
    op_type = b.pick(["Mul", "Add", "Sub", "Div", "Pow"])
    if op_type == "Pow":
        b.add("Pow", [source, b.constant(b.pick([1.0, 2.0]))])
        return
    pair = [source, b.numbers(size, zero=op_type != "Div")]
    b.add(op_type, pair if op_type == "Div" or b.pick([True, False]) else pair[::-1])


def binary(b: Builder) -> None:
    """Two values that broadcast."""
    one = b.source()
    same = [name for name, shape in b.shapes.items() if shape == b.shapes[one]]
    b.add(b.pick(["Add", "Mul", "Sub", "Max", "Min"]), [one, b.pick(same)])


def reciprocal(b: Builder) -> None:
    """x / y by way of 1 / y."""
    source = b.source()
    if not b.add("Abs", [source]) or not b.add("Add", [b.last(), b.constant(1.0)]):
        return
    root = b.last()
    made = b.add("Reciprocal", [root]) if b.pick([True, False]) else b.add("Div", [b.constant(1.0), root])
    if made:
        pair = [source, b.last()]
        b.add("Mul", pair if b.pick([True, False]) else pair[::-1])


def limit(b: Builder) -> None:
    """Clip with one, both or no limits, or Max or Min with a number."""
    source = b.source()
    low, high = b.pick([None, -1.0, 0.0, 0.5]), b.pick([None, 0.5, 1.0, 6.0])
    if b.opset >= 8 and b.pick([True, False, False]):
        b.add(b.pick(["Max", "Min"]), [source, b.constant(b.pick(NUMBERS))])
    elif b.opset < 11:
        given = {"min": low, "max": high}
        b.add("Clip", [source], **{key: number for key, number in given.items() if number is not None})
    else:
        limits = ["" if number is None else b.constant(number) for number in (low, high)]
        while limits and not limits[-1]:
            limits.pop()
        b.add("Clip", [source, *limits])


def hard_sigmoid(b: Builder) -> None:
    """What exporters spell out: Add, Clip, and Div or Mul before or after a product."""
    source = b.source()
    offset, height = b.pick([(3.0, 6.0), (1.0, 2.0), (0.5, 1.0)])
    if not b.add("Add", [source, b.constant(offset)]):
        return
    ramp = b.last()
    if b.opset < 11:
        made = b.add("Clip", [ramp], min=0.0, max=height)
    else:
        made = b.add("Clip", [ramp, b.constant(0.0), b.constant(height)])
    last = b.last()
    order = b.pick(["scale", "scale product", "product scale"])
    for step in order.split() if made else ():
        pair = [source, last] if b.pick([True, False]) else [last, source]
        if step == "scale":
            factor = b.pick([("Div", height), ("Mul", 1.0 / height)])
            b.add(factor[0], [last, b.constant(factor[1])])
        else:
            b.add("Mul", pair)
        last = b.last()


def convolution(b: Builder) -> None:
    """Conv or ConvTranspose, with groups, a bias, padding."""
    source = b.source(rank=4)
    if source is None:
        return
    channels = b.shapes[source][1]
    groups = b.pick([1, channels] if channels > 1 else [1])
    per_group = b.pick([1, 2])
    window = [b.pick([1, 2]), b.pick([1, 3])]
    padding = b.pick([{}, {"pads": [1, 0, 0, 1]}, {"auto_pad": "VALID"}, {"auto_pad": "SAME_UPPER"}])
    if b.pick([True, True, False]):
        weight, outputs, op_type = (
            b.numbers([groups * per_group, channels // groups, *window]),
            groups * per_group,
            "Conv",
        )
    else:
        weight, outputs, op_type = b.numbers([channels, per_group, *window]), groups * per_group, "ConvTranspose"
        padding = {}
    bias = [b.numbers([outputs])] if b.pick([True, False]) else []
    b.add(op_type, [source, weight, *bias], group=groups, kernel_shape=window, **padding)


def kernel_and_scalings(b: Builder) -> None:
    """A kernel with scalings and shifts before or after it, all for one number or one a channel."""
    for step in b.pick(["KS", "KSS", "SK", "SSK", "SKS", "KB", "BK", "KBS"]):
        if step == "K":
            b.pick([convolution, convolution, product])(b)
        elif step == "B":
            batch_norm(b)
        else:
            source = b.source()
            shape = b.shapes[source]
            channel = [shape[1], *[1] * (len(shape) - 2)] if len(shape) == 4 else [shape[-1]] if shape else []
            op_type = b.pick(["Mul", "Add", "Sub", "Div", "Neg"])
            if op_type == "Neg":
                b.add("Neg", [source])
                continue
            pair = [source, b.numbers(b.pick([channel, []]), zero=op_type != "Div")]
            b.add(op_type, pair if op_type == "Div" or b.pick([True, True, False]) else pair[::-1])


def sum_of_products(b: Builder) -> None:
    """A product of matrices, and something that is added to it."""
    source = b.source(rank=2)
    if source is None:
        return
    rows, inner = b.shapes[source]
    columns = b.pick([1, 2, 3])
    weight = b.numbers([inner, columns])
    made = (
        b.add("MatMul", [source, weight]) if b.pick([True, False]) or b.opset < 11 else b.add("Gemm", [source, weight])
    )
    same = [name for name, shape in b.shapes.items() if made and shape == b.shapes[b.last()]]
    if made:
        added = b.numbers(b.pick([[columns], [rows, columns], [1], [rows, 1], []]))
        pair = [b.last(), b.pick([*same, added, added])]
        b.add("Add", pair if b.pick([True, False]) else pair[::-1])


def squeezed_transpose(b: Builder) -> None:
    """An axis of 1 that is made, transposed and dropped."""
    source = b.source(least=1)
    if source is None or len(b.shapes[source]) > 4:
        return
    shape = b.shapes[source]
    axis = b.draw(st.integers(0, len(shape)))
    wide = [*shape[:axis], 1, *shape[axis:]]
    if b.pick([True, False]):
        made = _by_axes(b, "Unsqueeze", source, [axis])
    else:
        made = b.add("Reshape", [source, b.constant(wide, np.int64)])
    perm = list(b.draw(st.permutations(range(len(wide)))))
    if made and b.add("Transpose", [b.last()], perm=perm):
        ones = [place for place, old in enumerate(perm) if wide[old] == 1]
        _by_axes(b, "Squeeze", b.last(), [b.pick(ones)])


def constants_only(b: Builder) -> None:
    """Something that is computed from constants and then used."""
    source = b.source()
    made = b.add(b.pick(["Add", "Mul", "Sub"]), [b.numbers([2]), b.numbers([2, 1])])
    if made and b.add(b.pick(["ReduceMean", "ReduceMax"]), [b.last()], keepdims=0):
        b.add(b.pick(["Add", "Mul"]), [source, b.last()])


def batch_norm(b: Builder) -> None:
    """BatchNormalization at test time."""
    source = b.source(least=2)
    if source is None:
        return
    channels = b.shapes[source][1]
    gain, offset, mean = (b.numbers([channels]) for _ in range(3))
    variance = b.constant(b.random.choice([0.25, 1.0, 4.0], channels))
    b.add("BatchNormalization", [source, gain, offset, mean, variance], epsilon=b.pick([1e-5, 1e-3]))


def product(b: Builder) -> None:
    """MatMul with a constant, or Gemm with or without a bias."""
    source = b.source(least=2)
    if source is None:
        return
    shape, columns = b.shapes[source], b.pick([1, 2, 3])
    if len(shape) != 2 or b.pick([True, False]):
        b.add("MatMul", [source, b.numbers([shape[-1], columns])])
        return
    flip_a, flip_b = b.pick([0, 1]), b.pick([0, 1])
    inner, rows = (shape[0], shape[1]) if flip_a else (shape[1], shape[0])
    weight = b.numbers([columns, inner] if flip_b else [inner, columns])
    forms = [[columns], [1, columns], [rows, 1], [rows, columns], [1]]
    bias = [b.numbers(b.pick(forms))] if b.opset < 11 or b.pick([True, False]) else []
    b.add(
        "Gemm", [source, weight, *bias], transA=flip_a, transB=flip_b, alpha=b.pick([1.0, 0.5]), beta=b.pick([1.0, 2.0])
    )


def pad(b: Builder) -> None:
    """Pad, mostly of the last two axes, and often what can pad by itself after it."""
    source = b.source(rank=4)
    if source is None:
        return
    amounts = [0, 0, *b.pick([[1, 1], [0, 1], [0, 0]])]
    pads = [*amounts, *[0, 0, *b.pick([[1, 1], [1, 0], [0, 0]])]]
    if b.pick([False, False, False, True]):
        pads[b.pick([0, 1, 4, 5])] = 1
    mode, value = b.pick(["constant", "constant", "edge"]), b.pick([0.0, 0.0, -3.4028235e38, 1.0])
    if b.opset < 11:
        made = b.add("Pad", [source], pads=pads, mode=mode, value=value)
    else:
        extra = [b.constant(value)] if mode == "constant" and b.pick([True, False]) else []
        made = b.add("Pad", [source, b.constant(pads, np.int64), *extra], mode=mode)
    if made and b.pick([True, True, False]):
        pool(b, b.last())


def pool(b: Builder, source: str | None = None) -> None:
    """MaxPool or AveragePool."""
    source = source or b.source(rank=4)
    if source is None:
        return
    op_type, window = b.pick(["MaxPool", "AveragePool"]), [b.pick([1, 2]), b.pick([2, 3])]
    more: dict[str, Any] = b.pick([{}, {"pads": [0, 1, 0, 1]}, {"strides": [1, 2]}, {"auto_pad": "VALID"}])
    if op_type == "AveragePool" and b.pick([True, False]):
        more = {**more, "count_include_pad": 1}
    if b.opset >= 10 and b.pick([True, False, False]):
        more = {**more, "ceil_mode": 1}
    b.add(op_type, [source], kernel_shape=window, **more)


def transpose(b: Builder) -> None:
    """Transpose by any permutation, sometimes the one that turns rows and columns."""
    source = b.source(least=2)
    if source is None:
        return
    rank = len(b.shapes[source])
    perm = b.draw(st.permutations(range(rank)))
    if b.pick([True, False, False]) and rank == 4:
        perm = b.pick([[0, 2, 3, 1], [0, 3, 1, 2]])
    b.add("Transpose", [source], **({"perm": list(perm)} if b.pick([True, True, False]) else {}))


def reshape(b: Builder) -> None:
    """Reshape by a constant, Flatten, Squeeze or Unsqueeze."""
    source = b.source(least=1)
    if source is None:
        return
    shape = b.shapes[source]
    kind = b.pick(["Reshape", "Flatten", "Squeeze", "Unsqueeze"])
    if kind == "Flatten":
        b.add("Flatten", [source], axis=b.draw(st.integers(0, len(shape))))
    elif kind == "Reshape":
        cut = b.draw(st.integers(0, len(shape)))
        target = b.pick([[-1], [0, -1], [*shape[:cut], 1, *shape[cut:]], [*shape[:cut], -1], list(shape)])
        b.add("Reshape", [source, b.constant(target, np.int64)])
    else:
        axes = (
            [axis for axis, size in enumerate(shape) if size == 1] if kind == "Squeeze" else list(range(len(shape) + 1))
        )
        if axes and len(shape) < 6:
            _by_axes(b, kind, source, [b.pick(axes)])


def _by_axes(b: Builder, op_type: str, source: str, axes: list[int], since: int = 13, **attributes: Any) -> bool:
    if b.opset < since:
        return b.add(op_type, [source], axes=axes, **attributes)
    return b.add(op_type, [source, b.constant(axes, np.int64)], **attributes)


def reduction(b: Builder) -> None:
    """A reduction, and sometimes the Squeeze or Unsqueeze of what it reduced."""
    source = b.source(least=1)
    if source is None:
        return
    op_type, keeps = b.pick(REDUCTIONS), b.pick([0, 1])
    axis = b.draw(st.integers(0, len(b.shapes[source]) - 1))
    if op_type == "ArgMax":
        if b.add("ArgMax", [source], axis=axis, keepdims=keeps):
            made = b.add("Cast", [b.last()], to=FLOAT)
        else:
            return
    else:
        made = _by_axes(b, op_type, source, [axis], since=13 if op_type == "ReduceSum" else 18, keepdims=keeps)
    if made and b.pick([True, False]):
        _by_axes(b, "Squeeze" if keeps else "Unsqueeze", b.last(), [axis])


def slicing(b: Builder) -> None:
    """A Slice, sometimes of one element that is squeezed, or that does nothing, or two in a row."""
    source = b.source(least=1)
    if source is None:
        return
    for _ in range(b.pick([1, 1, 2])):
        shape = b.shapes[source]
        axis = b.draw(st.integers(0, len(shape) - 1))
        start, end = b.pick([(0, 1), (0, 1 << 31), (1, 2), (-1, 1 << 31), (0, shape[axis]), (-2, -1)])
        step = b.pick([1, 1, 2]) if b.opset >= 10 else 1
        if b.opset < 10:
            made = b.add("Slice", [source], axes=[axis], starts=[start], ends=[end])
        else:
            parts = [b.constant([number], np.int64) for number in (start, end, axis, step)]
            made = b.add("Slice", [source, *(parts if step != 1 or b.pick([True, False]) else parts[:3])])
        if not made:
            return
        source = b.last()
    if b.shapes[source][axis] == 1 and b.pick([True, False]):
        _by_axes(b, "Squeeze", source, [axis])


def joining(b: Builder) -> None:
    """Concat of values of one shape, one or several, or Split."""
    source = b.source(least=1)
    if source is None:
        return
    shape = b.shapes[source]
    axis = b.draw(st.integers(0, len(shape) - 1))
    if b.pick([True, False]):
        same = [name for name, other in b.shapes.items() if other == shape]
        b.add("Concat", [source, *(b.pick(same) for _ in range(b.pick([0, 1, 2])))], axis=axis)
    elif shape[axis] > 1:
        sizes = [1, shape[axis] - 1]
        if b.opset < 13:
            b.add("Split", [source], outputs=2, axis=axis, split=sizes)
        else:
            b.add("Split", [source, b.constant(sizes, np.int64)], outputs=2, axis=axis)


def softmax(b: Builder) -> None:
    """Softmax along an axis."""
    source = b.source(least=1)
    if source is not None:
        b.add("Softmax", [source], axis=b.draw(st.integers(0, len(b.shapes[source]) - 1)))


def view_arithmetic(b: Builder) -> None:
    """A Reshape or Expand by a computed shape."""
    source = b.source(least=2)
    if source is None or not b.add("Shape", [source]):
        return
    whole = b.last()
    rank = len(b.shapes[source])
    parts: list[str] = []
    axes = b.pick([range(rank - 1), range(rank), b.draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=3))])
    for axis in axes:
        if not b.add("Gather", [whole, b.constant([axis], np.int64)]):
            return
        parts.append(b.last())
    parts.insert(b.draw(st.integers(0, len(parts))), b.constant([b.pick([-1, 1])], np.int64))
    if b.add("Concat", parts, axis=0):
        b.add("Reshape", [source, b.last()])


GROUPS: dict[str, tuple[Callable[[Builder], None], ...]] = {
    "clips": (unary, limit, limit, binary),
    "affine": (kernel_and_scalings, kernel_and_scalings, kernel_and_scalings, unary, reshape, pad),
    "constants": (scaling, scaling, scaling, unary, reciprocal, binary, constants_only),
    "hard": (hard_sigmoid, scaling, limit, unary),
    "gemm": (product, sum_of_products, sum_of_products, scaling, transpose, binary, reshape),
    "pads": (pad, pad, pool, convolution, unary, scaling),
    "views": (reshape, reshape, reduction, slicing, squeezed_transpose, transpose, joining, view_arithmetic),
    "transposes": (
        transpose,
        transpose,
        transpose,
        unary,
        scaling,
        binary,
        reduction,
        softmax,
        joining,
        slicing,
        pad,
        reshape,
    ),
}
GROUPS["all"] = tuple(dict.fromkeys(each for group in GROUPS.values() for each in group))


@st.composite
def graphs(draw, group: str = "all", most: int = 8, symbols: bool | None = None):
    """A model with one float input ``x`` of rank 4 or 2 and one to three outputs, and the shape of that input."""
    shape = draw(st.sampled_from([(2, 3, 4, 5), (1, 2, 3, 4), (1, 1, 4, 4), (3, 4)]))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    builder = Builder(draw, draw(st.sampled_from(OPSETS)), shape, draw(st.booleans()), random)
    for _ in range(draw(st.integers(2, most))):
        draw(st.sampled_from(GROUPS[group]))(builder)
    names = [name for name in builder.shapes if name != "x"]
    if not names:
        builder.add("Relu", ["x"])
        names = [builder.nodes[-1].output[0]]
    outputs = dict.fromkeys([names[-1], *draw(st.lists(st.sampled_from(names), max_size=2))])
    hide = draw(st.booleans()) if symbols is None else symbols
    return builder.model(list(outputs), typed=True, symbols=hide), shape
