"""The table of operators: it is complete, and what it claims holds in onnx's own implementations."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from optimizer.evaluation.runtime.session import session
from optimizer.graph import operators
from optimizer.graph.operators import Trait, broadcasts, having

SCHEMAS = {schema.name: schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
RANDOM = np.random.default_rng(0)

NOT_CLASSIFIED = {
    "moves, mixes or fills in by its inputs": "CenterCropPad Col2Im Pad ScatterElements ScatterND TensorScatter Trilu",
    "resizes axes that its attributes tell": "Resize",
    "is only elementwise where it does not train": "BatchNormalization Dropout",
    "goes along an axis that its attributes tell": (
        "ArgMax ArgMin CumProd CumSum Hardmax LayerNormalization LogSoftmax LpNormalization MeanVarianceNormalization "
        "RMSNormalization Softmax TopK"
    ),
    "takes two tensors of one shape and broadcasts neither": "SwiGLU",
    "mixes several inputs in its own way": (
        "AffineGrid Attention CausalConvWithState DeformConv Det Einsum GridSample LinearAttention MaxRoiPool "
        "MaxUnpool NegativeLogLikelihoodLoss NonMaxSuppression OneHot RoiAlign RotaryEmbedding SoftmaxCrossEntropyLoss"
    ),
    "quantizes": (
        "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear"
    ),
    "transforms signals": "BlackmanWindow DFT HammingWindow HannWindow MelWeightMatrix STFT",
    "makes a tensor of none, or of a shape": "Constant ConstantOfShape EyeLike Range Shape Size",
    "has as many elements as the data lets it": "NonZero Unique",
    "reads bytes or text": "ImageDecoder StringNormalizer StringSplit TfIdfVectorizer",
    "holds sequences or optionals": (
        "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty "
        "SequenceErase SequenceInsert SequenceLength SplitToSequence"
    ),
    "is deprecated": "Scatter Upsample",
}


def test_every_standard_operator_is_classified_or_left_out_for_a_reason():
    left_out = [name for names in NOT_CLASSIFIED.values() for name in names.split()]
    assert len(left_out) == len(set(left_out))
    assert operators.CLASSIFIED.isdisjoint(left_out)
    lacking = SCHEMAS.keys() - operators.CLASSIFIED - set(left_out)
    assert not lacking, f"new operators: classify {sorted(lacking)} in optimizer/graph/operators.py, or leave them out"
    assert operators.CLASSIFIED | set(left_out) <= SCHEMAS.keys(), "names that no operator has"


def test_no_operator_stands_in_the_table_twice():
    names = [name for _, row in operators._TABLE for name in row.split()]
    assert len(names) == len(set(names))


KINDS = {
    "tensor(float)": lambda *shape: RANDOM.uniform(0.1, 0.9, shape).astype(np.float32),
    "tensor(bool)": lambda *shape: RANDOM.integers(0, 2, shape).astype(bool),
    "tensor(uint32)": lambda *shape: RANDOM.integers(0, 9, shape).astype(np.uint32),
    "tensor(string)": lambda *shape: RANDOM.choice(["a", "b", "cc"], shape).astype(object),
}


def data(op_type: str, *shape: int, position: int = 0) -> np.ndarray:
    """Numbers of a type that the operator takes."""
    slots = SCHEMAS[op_type].inputs
    types = slots[min(position, len(slots) - 1)].types
    array = next(make for kind, make in KINDS.items() if kind in types)(*shape)
    return array + np.float32(1) if op_type == "Acosh" else array  # which is of numbers above 1


# Of these onnx has no implementation, or one that looks at the wrong axis; ONNX Runtime has.
BY_RUNTIME, _OPSET_OF_RUNTIME = frozenset({"GlobalLpPool", "GlobalMaxPool", "LRN"}), 21


def run(op_type: str, *inputs: np.ndarray, **attributes) -> list[np.ndarray]:
    names = [f"i{number}" for number in range(len(inputs))]
    kinds = [
        onnx.TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
        for array in inputs
    ]
    outputs = [f"o{number}" for number in range(attributes.pop("count", 1))]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, outputs, **attributes)],
        "one",
        [helper.make_tensor_value_info(*each, None) for each in zip(names, kinds, strict=True)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    opset = _OPSET_OF_RUNTIME if op_type in BY_RUNTIME else onnx.defs.onnx_opset_version()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    feed = dict(zip(names, inputs, strict=True))
    if op_type in BY_RUNTIME:
        model = onnx.shape_inference.infer_shapes(model)
        return list(session(ir.from_proto(model)).run(feed).values())
    return ReferenceEvaluator(model).run(None, feed)


def assert_equal(actual: np.ndarray, expected: np.ndarray) -> None:
    if np.issubdtype(np.asarray(expected).dtype, np.floating):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(actual, expected)


W = RANDOM.uniform(-1, 1, (4, 3, 2)).astype(np.float32)
# Further inputs and attributes of operators that need some, for data of shape (2, 4, 6).
MORE: dict[str, tuple[tuple[np.ndarray, ...], dict]] = {
    "BitCast": ((), {"to": onnx.TensorProto.INT32}),
    "Cast": ((), {"to": onnx.TensorProto.FLOAT16}),
    "CastLike": ((np.zeros((), np.float16),), {}),
    "Clip": ((np.float32(0.3), np.float32(0.6)), {}),
    "RegexFullMatch": ((), {"pattern": "a|b"}),
    "BitShift": ((), {"direction": "LEFT"}),
    "AveragePool": ((), {"kernel_shape": [3], "pads": [1, 1]}),
    "LpPool": ((), {"kernel_shape": [3]}),
    "MaxPool": ((), {"kernel_shape": [3], "strides": [2]}),
    **dict.fromkeys(having(Trait.REDUCING), ((np.array([1]),), {"keepdims": 0})),
    "Compress": ((np.array([True, False, True]),), {"axis": 2}),
    "Expand": ((np.array([3, 1, 1, 6]),), {}),
    "Gather": ((np.array([1, 0, 0]),), {"axis": 2}),
    "Concat": ((), {"axis": 1}),
    "GatherElements": ((RANDOM.integers(0, 6, (2, 4, 3)),), {"axis": 2}),
    "GatherND": ((np.array([[1, 0], [0, 2]]),), {}),
    "ReverseSequence": ((np.array([2, 4]),), {"batch_axis": 0, "time_axis": 1}),
    "Slice": ((np.array([1]), np.array([6]), np.array([2]), np.array([2])), {}),
    "Split": ((), {"axis": 1, "num_outputs": 2, "count": 2}),
    "Tile": ((np.array([1, 2, 1]),), {}),
    "Transpose": ((), {"perm": [2, 0, 1]}),
    "Reshape": ((np.array([6, 8]),), {}),
    "Unsqueeze": ((np.array([0]),), {}),
    "Squeeze": ((np.array([0]),), {}),
    "DepthToSpace": ((), {"blocksize": 2}),
    "SpaceToDepth": ((), {"blocksize": 2}),
    "Conv": ((W[:, :2],), {"group": 2}),
    "ConvTranspose": ((W,), {}),
    "GroupNormalization": ((W[:, 0, 0], W[:, 0, 1]), {"num_groups": 2}),
    "InstanceNormalization": ((W[:, 0, 0], W[:, 0, 1]), {}),
    "LRN": ((), {"size": 3}),
}
SHAPES = {"Squeeze": (1, 4, 6), **dict.fromkeys(("DepthToSpace", "SpaceToDepth", "LRN"), (2, 4, 6, 2))}


def on(op_type: str, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs for data, with the further inputs and attributes of ``MORE``."""
    inputs, attributes = MORE.get(op_type, ((), {}))
    return run(op_type, *arrays, *inputs, **attributes)


def sample(op_type: str) -> np.ndarray:
    return data(op_type, *SHAPES.get(op_type, (2, 4, 6)))


def each(traits: Trait):
    return pytest.mark.parametrize("op_type", sorted(having(traits)))


@each(Trait.UNARY)
def test_a_unary_operator_computes_each_element_from_the_one_at_its_place(op_type):
    slots = SCHEMAS[op_type].inputs
    assert len(SCHEMAS[op_type].outputs) == 1
    assert all(slot.option.name == "Optional" for slot in slots[1:]) or op_type == "CastLike"
    x, order = sample(op_type), RANDOM.permutation(48)
    (result,), (shuffled,) = on(op_type, x), on(op_type, x.reshape(-1)[order])
    assert result.shape == x.shape
    assert_equal(shuffled, result.reshape(-1)[order])


@each(Trait.BROADCASTING)
def test_a_broadcasting_operator_computes_each_element_from_one_of_each_input(op_type):
    count = 3 if op_type == "Where" else 2
    shapes = [(2, 4, 6), (4, 1), (1, 6)][:count]
    arrays = [data(op_type, *shape, position=position) for position, shape in enumerate(shapes)]
    wide = [np.broadcast_to(array, (2, 4, 6)).copy() for array in arrays]
    order = RANDOM.permutation(48)
    (result,) = on(op_type, *arrays)
    assert result.shape == (2, 4, 6)
    assert_equal(on(op_type, *wide)[0], result)
    assert_equal(on(op_type, *(array.reshape(-1)[order] for array in wide))[0], result.reshape(-1)[order])


@each(Trait.POOLING)
def test_a_pool_looks_at_each_channel_alone(op_type):
    x = sample(op_type)
    (result,) = on(op_type, x)
    assert result.shape[:2] == x.shape[:2]
    for channel in range(4):
        assert_equal(on(op_type, x[:, [channel]])[0], result[:, [channel]])


@each(Trait.REDUCING)
def test_a_reduction_makes_one_number_of_each_axis_that_is_told(op_type):
    x = sample(op_type)
    (result,) = on(op_type, x)
    assert result.shape == (2, 6)
    assert_equal(on(op_type, x[:, ::-1])[0], result)
    assert_equal(on(op_type, x[:, :, ::-1])[0], result[:, ::-1])
    assert run(op_type, x)[0].shape == (1, 1, 1)


@each(Trait.MOVING)
def test_a_moving_operator_gives_out_nothing_but_elements_of_its_data(op_type):
    x = np.arange(np.prod(SHAPES.get(op_type, (2, 4, 6))), dtype=np.float32).reshape(SHAPES.get(op_type, (2, 4, 6)))
    results = on(op_type, x)
    assert all(np.isin(result, x).all() for result in results)
    for result, other in zip(results, on(op_type, x * 3 + 1), strict=True):
        assert_equal(other, result * 3 + 1)
    if op_type in having(Trait.RESHAPING):
        assert_equal(results[0].reshape(-1), x.reshape(-1))


@each(Trait.HOMOGENEOUS)
def test_a_homogeneous_operator_hands_on_a_positive_factor(op_type):
    x = sample(op_type) - np.float32(0.5)
    arrays = [x, x[:1] + 1] if op_type in having(Trait.BROADCASTING) else [x]
    for result, scaled in zip(on(op_type, *arrays), on(op_type, *(array * 4 for array in arrays)), strict=True):
        assert_equal(scaled, result * 4)


@each(Trait.UNARY)
def test_a_unary_operator_is_homogeneous_if_the_table_says_so(op_type):
    x = data(op_type, 48)
    if x.dtype != np.float32:
        return
    x = np.concatenate([x, -x, x * 8, x * -8])
    with np.errstate(invalid="ignore", divide="ignore"):
        (result,), (scaled,) = on(op_type, x), on(op_type, x * 4)
    is_homogeneous = result.dtype == np.float32 and np.allclose(scaled, result * 4, rtol=1e-5)
    assert is_homogeneous == (op_type in having(Trait.HOMOGENEOUS))


@each(Trait.IDEMPOTENT)
def test_an_idempotent_operator_keeps_a_constant(op_type):
    x = np.full(SHAPES.get(op_type, (2, 4, 6)), -0.7, np.float32)
    arrays = [x, x[:1]] if op_type in having(Trait.BROADCASTING) else [x]
    for result in on(op_type, *arrays):
        assert_equal(result, np.full(result.shape, -0.7, np.float32))


@each(Trait.BATCH_INDEPENDENT)
def test_a_batch_independent_operator_looks_at_each_sample_alone(op_type):
    count = {"Where": 3}.get(op_type, 2 if op_type in having(Trait.BROADCASTING) else 1)
    arrays = [data(op_type, *SHAPES.get(op_type, (2, 4, 6)), position=position) for position in range(count)]
    (result,) = on(op_type, *arrays)
    for sample_number in range(2):
        alone = on(op_type, *(array[[sample_number]] for array in arrays))[0]
        assert_equal(alone, result[[sample_number]])


def test_broadcasting_by_attribute_is_not_broadcasting():
    for op_type in having(Trait.BROADCASTING):
        since = min(opset for opset in range(1, 30) if broadcasts(op_type, opset))
        schema = onnx.defs.get_schema(op_type, max(since, SCHEMAS_SINCE.get(op_type, 1)))
        assert "broadcast" not in schema.attributes
        if SCHEMAS_SINCE.get(op_type, 1) < since:
            old = onnx.defs.get_schema(op_type, since - 1)
            variadic = [slot.option.name == "Variadic" for slot in old.inputs]
            assert "broadcast" in old.attributes or "axis" in old.attributes or any(variadic) or op_type == "PRelu"


SCHEMAS_SINCE = {
    name: min(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.name == name)
    for name in having(Trait.BROADCASTING)
}
