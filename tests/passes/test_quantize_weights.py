"""quantize-weights: what is stored as integers and in which form, what stays and why, and how large errors may be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import optimizer.algorithms.quantization.rows as quantization_rows
import weight_nets
from optimized_ops import optimized_ops
from optimizer.algorithms.quantization.linear import UINT8, WEIGHT_INT8
from optimizer.algorithms.quantization.rows import INT4, UINT4, quantize_rows, square_sums
from optimizer.algorithms.quantization.weight_rows import RowLayout, divisor, pack, pack_matrix
from optimizer.contract.passes import Context, Sites
from optimizer.errors import PreconditionError, UsageError
from optimizer.graph import traversal
from optimizer.io.model import byte_size, clone, to_proto
from optimizer.testing import check_pass
from passes.quantize_weights import QuantizeWeights, WeightChoices
from weight_nets import assert_close, filled_model

RANDOM = np.random.default_rng(0)
FLOAT = "weights in {} bits"
KERNELS = "weights in {} bits, for integer kernels"
LOOKED_UP = "weights in 8 bits, looked up as integers"


def weight(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) * np.exp(RANDOM.standard_normal(shape[-1]))).astype(np.float32)


W, WT, X = weight(96, 80), weight(80, 96), RANDOM.standard_normal((5, 96)).astype(np.float32)
FILLED = {
    "w": W,
    "wt": WT,
    "even": RANDOM.standard_normal((80, 96)).astype(np.float32),
    "wh": W.astype(np.float16),
    "k": weight(24, 16, 3, 3),
    "d": weight(64, 1, 5, 5),
    "c": weight(16, 24, 3, 3),
    "t": weight(50, 64),
    "l": weight(2, 96, 32) / 10,
    "r": weight(2, 96, 24) / 10,
    "p": weight(1, 40, 64),
    "b3": weight(3, 20, 30),
    "v": weight(1, 5000)[0],
}


def model(text: str, opset: int = 21, ir_version: int = 10) -> ir.Model:
    return filled_model(text, FILLED, opset, ir_version)


def stored(before: ir.Model, sites: Sites | None = None, **options):
    """The result of the pass, checked; small weights count too unless the options say otherwise."""
    return check_pass(QuantizeWeights(**({"min_elements": 64} | options)), before, sites=sites, may_run=False)


KINDS = {
    **weight_nets.KINDS,
    "MatMul of more axes": "g (float[2, M, 96] x) => (float[2, M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }",
}


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "options",
    [{}, {"block": 32}, {"scheme": "asymmetric"}, {"bits": 4, "compute": "float"}, {"bits": 4, "scheme": "symmetric"}],
    ids=str,
)
def test_every_kind_of_weight(text, options):
    before = model(text)
    result = stored(before, **options)
    bits = options.get("bits", 8)
    assert sum(result.changes.values()) == (2 if "LSTM" in text else 1)
    assert_close(before, result.model, 0.02 if bits == 8 else 0.25)
    assert byte_size(result.model) < byte_size(before) * (0.45 if bits == 8 else 0.35)
    if set(result.changes) == {FLOAT.format(bits)}:  # folded when the model is loaded
        assert optimized_ops(result.model) == optimized_ops(before)


def test_old_opsets_hold_8_bits():
    before = model(KINDS["MatMul"], opset=9, ir_version=4)
    for options in ({}, {"block": 16}, {"scheme": "asymmetric", "block": 16}):
        result = stored(before, **options)
        assert result.changes == {FLOAT.format(8): 1}
        assert_close(before, result.model, 0.02)
        assert optimized_ops(result.model) == optimized_ops(before)


PRODUCTS = {
    "MatMul": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }",
    "Gemm": "g (float[M, 96] x) => (float[M, 80] y) <float[1] wt = {0}> { y = Gemm<transB=1>(x, wt) }",
    "Transpose": "g (float[M, 96] x) => (float[M, 80] y) <float[1] wt = {0}> { t = Transpose(wt) y = MatMul(x, t) }",
}


@pytest.mark.parametrize("text", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [0, 16, 64])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_products_run_on_integer_kernels(text, bits, block, scheme):
    before = model(text)
    result = stored(before, bits=bits, block=block, scheme=scheme, compute="integer")
    assert result.changes == {KERNELS.format(bits): 1}
    assert optimized_ops(result.model) == {"MatMulNBits": 1}
    assert_close(before, result.model, 0.03 if bits == 8 else 0.25)


@pytest.mark.parametrize(
    ("text", "compute"),
    [
        ("g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { h = MatMul(x, w) y = Relu(h) }", "integer"),
        ("g (int64[M] x) => (float[M, 80] y) <float[1] w = {0}> { h = Gather(w, x) y = Relu(h) }", "integer"),
        ("g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { h = MatMul(x, w) y = Relu(h) }", "float"),
        (
            """g (float[M, 96] x) => (float[M, 80] y)
               { w = Constant <value = float[1] {0}> () h = MatMul(x, w) y = Relu(h) }""",
            "float",
        ),
    ],
    ids=["product", "table", "initializer", "Constant"],
)
def test_what_is_said_of_a_value_is_said_of_what_takes_its_place(text, compute):
    before = model(text)
    values = dict(before.graph.initializers) | {node.outputs[0].name: node.outputs[0] for node in before.graph}
    for name in "hw":
        values[name].doc_string = f"about {name}"
        values[name].metadata_props["from"] = name
    after = stored(before, compute=compute, min_elements=128).model
    for name in "h" if compute == "integer" else "hw":
        (kept,) = [node.outputs[0] for node in after.graph if node.outputs[0].name == name]
        assert (kept.doc_string, kept.metadata_props) == (f"about {name}", {"from": name})
        assert name == "h" or (kept.dtype, kept.shape) == (ir.DataType.FLOAT, W.shape)
    tensors = [value.const_value.name for value in before.graph.initializers.values()]
    assert tensors == list(before.graph.initializers), "the reference keeps its names"


def test_a_shared_weight_has_no_integer_kernel():
    """ONNX Runtime would dequantize it at each run."""
    before = model(
        """g (float[1, 96] x) => (float[1, 80] y) <float[1] w = {0}>
           { a = MatMul(x, w) n = Relu(x) b = Gemm(n, w) y = Add(a, b) }"""
    )
    for options in ({}, {"compute": "integer"}, {"bits": 4}):
        result = stored(before, block=32, **options)
        assert result.changes == {FLOAT.format(options.get("bits", 8)): 1}
        assert optimized_ops(result.model) == optimized_ops(before)
        assert_close(before, result.model, 0.25)


def test_integer_kernels_hold_their_weight_in_their_own_graph():
    """ONNX Runtime does not load a DequantizeLinear that would fuse but reads a constant of an outer graph."""
    before = model(
        """g (float[5, 96] x, bool q) => (float[5, 80] y) <float[1] w = {0}> {
           y = If(q) <then_branch = t () => (float[5, 80] u) { n = Relu(x) u = MatMul(n, w) },
                      else_branch = e () => (float[5, 80] v)
                      { wt = Constant<value = float[1] {0}> () v = Gemm<transB=1>(x, wt) }> }"""
    )
    result = stored(before, compute="integer", block=32)
    assert not result.model.graph.initializers
    assert optimized_ops(result.model)["MatMulNBits"] == 2
    for q in (True, False):
        assert_close(before, result.model, 0.03, q=np.array(q))


def test_a_gemm_on_an_integer_kernel_keeps_its_addend():
    before = model("g (float[5, 96] x, float[80] c) => (float[5, 80] y) <float[1] w = {0}> { y = Gemm(x, w, c) }")
    result = stored(before, compute="integer")
    assert optimized_ops(result.model).keys() <= {"MatMulNBits", "Add"}
    assert_close(before, result.model, 0.03)


def test_single_rows_run_on_integer_kernels_and_others_in_floats():
    one = model(KINDS["MatMul"].replace("[M", "[1"))
    assert stored(one).changes == {KERNELS.format(8): 1}
    assert stored(one, compute="float").changes == {FLOAT.format(8): 1}
    assert stored(model(KINDS["MatMul"])).changes == {FLOAT.format(8): 1}
    assert stored(model(KINDS["MatMul"]), bits=4).changes == {KERNELS.format(4): 1}


@pytest.mark.parametrize("text", [KINDS["Gather"], KINDS["Gather"].replace("[L", "[3, L")])
def test_tables_are_looked_up_in_integers(text):
    before = model(text)
    assert stored(before).changes == {FLOAT.format(8): 1}
    result = stored(before, compute="integer")
    assert result.changes == {LOOKED_UP: 1}
    assert optimized_ops(result.model) == {"Cast": 1, "Gather": 2, "Mul": 1}
    assert_close(before, result.model, 0.02)


def test_a_tied_embedding_stays_tied():
    before = model(
        """g (float[M, 64] x, int64[L] i) => (float[M, 50] y, float[L, 64] e) <float[1] t = {0}>
           { e = Gather(t, i) f = Transpose(t) y = MatMul(x, f) }"""
    )
    result = stored(before, block=0)
    assert result.changes == {FLOAT.format(8): 1}
    assert list(result.model.graph.initializers) == ["t_int8", "t_scale"]
    assert_close(before, result.model, 0.02)


def test_weights_in_subgraphs_and_functions():
    before = model(
        """<ir_version: 10, opset_import: ["" : 21, "d" : 1]>
           g (float[5, 96] x, bool q) => (float[5, 80] y) {
             z = d.f(x)
             r = If(q) <then_branch = a () => (float[5, 80] u) { n = Relu(x) u = d.f(n) },
                        else_branch = e () => (float[5, 80] h) <float[1] wt = {0}> { h = Gemm<transB=1>(x, wt) }>
             y = Add(z, r) }
           <domain: "d", opset_import: ["" : 21]> f (i) => (o)
           { w = Constant <value = float[1] {0}> () o = MatMul(i, w) }"""
    )
    result = stored(before)
    assert result.changes == {FLOAT.format(8): 2}
    for q in (True, False):
        assert_close(before, result.model, 0.02, q=np.array(q))


LEFT = {
    "fp16": (
        "g (float16[M, 96] x) => (float16[M, 80] y) <float16[1] wh = {0}> { y = MatMul(x, wh) }",
        "is of type float16: only float32 is quantized",
    ),
    "small": (
        "g (float[M, 2] x) => (float[M, 1] y) <float[2, 1] u = {1, 2}> { y = MatMul(x, u) }",
        "has less than 64 elements",
    ),
    "output": (
        "g (float[M, 96] x) => (float[M, 80] y, float[96, 80] w) <float[1] w = {0}> { y = MatMul(x, w) }",
        "is a graph output",
    ),
    "output behind a view": (
        """g (float[M, 96] x) => (float[M, 80] y, float[96, 80] o) <float[1] w = {0}>
           { o = Identity(w) y = MatMul(x, o) }""",
        "is a graph output",
    ),
    "overridable": (
        "g (float[M, 96] x, float[96, 80] w) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }",
        "is a graph input, whose value a caller may override",
    ),
    "read by others": (
        "g (float[96, 96] x) => (float[96, 80] y) <float[1] w = {0}> { m = MatMul(x, w) y = Add(m, w) }",
        "is read by a Add too",
    ),
    "vector": ("g (float[M, 5000] x) => (float[M] y) <float[1] v = {0}> { y = MatMul(x, v) }", "is a vector"),
    "quantized": (
        "g (float[M, 2] x) => (float[M, 1] y) <int8[2, 1] q = {1, 2}> { w = Cast<to=1>(q) y = MatMul(x, w) }",
        "has no float32 weights that a kernel reads",
    ),
    "nothing": ("g (float[M, 2] x) => (float[M, 2] y) { y = Relu(x) }", "has no float32 weights that a kernel reads"),
}


@pytest.mark.parametrize(("text", "reason"), LEFT.values(), ids=LEFT)
def test_what_stays_has_a_reason(text, reason):
    result = stored(model(text))
    assert not result.changes
    assert reason in [note.reason for note in result.notes]


def test_what_is_not_finite_stays():
    before = model(KINDS["MatMul"])
    bad = W.copy()
    bad[3, 4] = np.inf
    before.graph.initializers["w"].const_value = ir.tensor(bad, name="w")
    assert [note.reason for note in stored(before).notes] == ["is not finite"]


def test_include_and_exclude():
    before = model(
        """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}, float[1] wt = {0}>
           { [first] a = MatMul(x, w) [second] b = Gemm<transB=1>(x, wt) }"""
    )
    for options, kept in (
        ({"exclude": ("op:Gemm",)}, "wt"),
        ({"exclude": ("fir*",)}, "w"),
        ({"include": ("op:MatMul",)}, "wt"),
        ({"include": ("wt",)}, "w"),
    ):
        result = stored(before, **options)
        assert sum(result.changes.values()) == 1
        assert kept in result.model.graph.initializers
    assert any(note.reason == "matches no node" for note in stored(before, exclude=("third",)).notes)


def test_the_manager_may_deny_a_weight():
    before = model(KINDS["LSTM"])
    sites = Sites(denied=frozenset({("quantize-weights", "LSTM -> y")}))
    assert not stored(before, sites).changes
    sites = Sites()
    assert stored(before, sites).changes
    assert list(sites.permitted) == [("quantize-weights", "LSTM -> y")]


class Strict:
    """A laboratory for which every model uses twice the budget that ``holds`` does not like."""

    is_timed = False

    def __init__(self, holds) -> None:
        self.holds = holds

    def budget_used(self, given: ir.Model) -> float:
        return 0.5 if self.holds(given) else 2.0

    def time_left(self) -> float:
        return 100.0


def block_of(given: ir.Model) -> int:
    (integers,) = [v.const_value for v in given.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    return integers.shape[-1]


@pytest.mark.parametrize(("most", "chosen"), [(1000, "auto"), (32, "32"), (16, "16")])
def test_blocks_shrink_while_the_aim_is_missed(most, chosen):
    before = model(KINDS["Gemm transB"].replace("wt", "even"))
    evaluator = Strict(lambda given: block_of(given) <= most)
    result = QuantizeWeights().run(clone(before), Context(before, evaluator=evaluator))
    assert result.choices == WeightChoices(chosen, ())
    replayed = QuantizeWeights().run(clone(before), Context(before, choices=result.choices))
    assert to_proto(replayed.model) == to_proto(result.model)


@pytest.mark.parametrize(("bits", "wider"), [(8, ir.DataType.INT16), (4, ir.DataType.INT8)])
def test_a_weight_that_costs_too_much_gets_more_bits(bits, wider):
    before = model(
        """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}, float[1] wt = {0}>
           { a = MatMul(x, w) b = Gemm<transB=1>(x, wt) }"""
    )
    name = f"wt_{wider.name.lower()}"
    evaluator = Strict(lambda given: name in given.graph.initializers)
    result = QuantizeWeights(bits=bits, compute="float").run(clone(before), Context(before, evaluator=evaluator))
    assert result.changes == {FLOAT.format(bits): 1, FLOAT.format(bits * 2): 1}
    assert result.choices == WeightChoices("16", ("wt",))
    assert result.model.graph.initializers[name].dtype == wider
    assert_close(before, result.model, 0.25)
    options = QuantizeWeights(bits=bits, compute="float")
    replayed = options.run(clone(before), Context(before, choices=result.choices))
    assert to_proto(replayed.model) == to_proto(result.model)


class Timed(Strict):
    """A laboratory with a clock: integer kernels take ``factor`` of the float model's time."""

    is_timed = True

    def __init__(self, factor: float) -> None:
        super().__init__(lambda _given: True)
        self.factor = factor

    def seconds(self, given: ir.Model) -> float:
        return self.factor if any(node.op_type == "DequantizeLinear" for node in given.graph) else 1.0


@pytest.mark.parametrize(("factor", "changes"), [(1.04, KERNELS.format(4)), (1.2, FLOAT.format(4))])
def test_integer_kernels_that_are_slower_here_are_left_out(factor, changes):
    before = model("g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }")
    result = QuantizeWeights(bits=4).run(clone(before), Context(before, evaluator=Timed(factor)))
    assert result.changes == {changes: 1}
    assert result.choices.compute == (None if factor < 1.05 else "float")
    replayed = QuantizeWeights(bits=4).run(clone(before), Context(before, choices=result.choices))
    assert to_proto(replayed.model) == to_proto(result.model)
    asked_for = QuantizeWeights(bits=4, compute="integer").run(clone(before), Context(before, evaluator=Timed(factor)))
    assert asked_for.changes == {KERNELS.format(4): 1}


def test_what_an_opset_cannot_hold_is_refused():
    for options, opset, needed in (
        ({"bits": 4}, 20, 21),
        ({"compute": "integer", "block": 0}, 12, 13),
        ({"compute": "integer"}, 20, 21),
        ({}, 6, 7),
    ):
        chosen = QuantizeWeights(**options)
        for version in (opset, needed):
            given = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": version}), ir_version=8)
            if version < needed:
                with pytest.raises(PreconditionError, match=rf"needs opset {needed}, .*:version={needed} first"):
                    chosen.requires(given, Context(given))
            else:
                chosen.requires(given, Context(given))


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 2},
        {"block": 8},
        {"block": 24},
        {"block": -1},
        {"scheme": "both"},
        {"compute": "fast"},
        {"min_elements": -1},
        {"include": ("",)},
        {"exclude": ("op:",)},
    ],
)
def test_wrong_options_are_named(options):
    with pytest.raises(UsageError):
        QuantizeWeights(**options)


FLOATS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)
GRIDS = [(WEIGHT_INT8, True), (UINT8, False), (INT4, True), (UINT4, False)]


@pytest.mark.parametrize(("grid", "symmetric"), GRIDS, ids=lambda value: str(getattr(value, "dtype", value)))
@hypothesis_given(rows=FLOATS)
@settings(max_examples=60)
def test_no_element_is_off_by_more_than_half_a_scale(grid, symmetric, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization_rows, "_FACTORS", (1.0,))
        plain = quantize_rows(rows, grid, symmetric=symmetric)
    limit = plain.scale[:, None] * 0.5001
    assert np.all(np.abs(rows - plain.floats()) <= limit + 1e-6 * np.abs(rows))
    found = quantize_rows(rows, grid, symmetric=symmetric)
    inside = (found.integers > grid.qmin) & (found.integers < grid.qmax)
    off = np.abs(rows - found.floats())
    assert np.all(off[inside] <= np.broadcast_to(found.scale[:, None] * 0.5001, off.shape)[inside] + 1e-6)
    assert np.all(square_sums(rows - found.floats()) <= square_sums(rows - plain.floats()) * 1.0001 + 1e-12)


@hypothesis_given(st.integers(1, 400), st.sampled_from([0, 16, 32, 128]))
def test_blocks_divide_their_row(length, block):
    size = divisor(length, block)
    assert length % size == 0
    assert size == length or block / 2 <= size <= block


@pytest.mark.parametrize(
    "layout", [RowLayout((6, 35), 0), RowLayout((35, 6), 1), RowLayout((2, 3, 35), 2), RowLayout((4, 3, 5, 7), 1)]
)
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize(("grid", "symmetric"), GRIDS, ids=lambda value: str(getattr(value, "dtype", value)))
def test_integers_times_scales_are_the_weight(layout, block, grid, symmetric):
    array = weight(*layout.shape)
    packed = pack(array, layout, grid, symmetric=symmetric, block=block)
    zero = 0 if packed.zero_point is None else packed.zero_point.astype(np.float32)
    back = ((packed.integers.astype(np.float32) - zero) * packed.scale).reshape(layout.shape)
    error = np.linalg.norm(back - array) / np.linalg.norm(array)
    assert error < (0.02 if grid.qmax - grid.qmin > 15 else 0.25)
    assert (packed.shape is None) == (packed.block == 0)


@pytest.mark.parametrize("block", [0, 16, 32, 64])
def test_the_last_block_of_a_column_may_be_shorter(block):
    array = weight(72, 5)
    packed = pack_matrix(array, WEIGHT_INT8, symmetric=True, block=block)
    scale = packed.scale if packed.block == 0 else np.repeat(packed.scale, packed.block, axis=0)[:72]
    np.testing.assert_allclose(packed.integers * scale, array, atol=float(packed.scale.max()) * 8)
    assert packed.integers.shape == array.shape


def test_blocks_hold_an_outlier_in():
    array = weight(8, 256)
    array[:, 7] *= 100
    layout = RowLayout(array.shape, 1)
    errors = [pack(array, layout, WEIGHT_INT8, symmetric=True, block=block).error for block in (0, 128, 32)]
    assert errors[0] > errors[1] > errors[2]


def test_names_stay():
    result = stored(model(KINDS["Conv"])).model
    assert next(node for node in result.graph if node.op_type == "Conv").inputs[1].name == "k"
    names = [node.name for node in traversal.nodes(result) if node.name]
    assert len(set(names)) == len(names)
