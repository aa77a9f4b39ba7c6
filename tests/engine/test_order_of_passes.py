"""Pairs of passes in the recommended order: what one has removed stays removed behind the next, which finds its work.

The order: exact passes, prune-channels, prune-magnitude, and then one of insert-qdq, quantize-dynamic,
quantize-weights and cluster-weights, with refit-weights behind what has no repair of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

import optimizer
from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.evaluation.calibration.sweep import with_outputs
from optimizer.evaluation.feeds.sets import split
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.graph import constants, linear_nodes
from optimizer.graph.sparse import SparseTensor
from optimizer.io.model import byte_size, clone, load, to_proto
from optimizer.recipes.spec import parse_pass
from planted_nets import Planter
from rewriting import feeds_for
from small_nets import Net, feeds

if TYPE_CHECKING:
    import onnx_ir as ir

IMAGE, ROWS = (1, 8, 10, 10), (16, 64)
FEW = "prune-magnitude:guard=false"
PRUNE = "prune-channels:macs=0.4,multiple=4"
INT8 = "insert-qdq:search=false"
INTEGERS = "quantize-weights:compute=float,min-elements=0"
CODEBOOKS = "cluster-weights:entries=16,group=auto,min-elements=64"


def conv_net(opset: int = 21) -> tuple[onnx.ModelProto, tuple[int, ...], tuple[str, ...]]:
    """A net, the shape of its input, and the outputs of its kernels."""
    net = Net(*IMAGE, opset=opset)
    first = net.conv("x", 8, 24)
    second = net.conv(net.node("Relu", first), 24, 16)
    pooled = net.node("Flatten", net.node("AveragePool", net.node("Relu", second), kernel_shape=[5, 5], strides=[5, 5]))
    last = net.node("Gemm", pooled, net.weight(16, 64), net.weight(16), transB=1)
    return net.model(last), IMAGE, (first, second, last)


def product_net(opset: int = 21) -> tuple[onnx.ModelProto, tuple[int, ...], tuple[str, ...]]:
    """The same of products, as in a transformer's block."""
    net = Net(*ROWS, opset=opset)
    first = net.node("MatMul", "x", net.weight(64, 96, scale=0.12))
    hidden = net.node("Relu", net.node("Add", first, net.weight(96)))
    second = net.node("MatMul", hidden, net.weight(96, 64, scale=0.1))
    return net.model(second), ROWS, (first, second)


NETS = {"convolutions": conv_net, "products": product_net}


def inputs(shape: tuple[int, ...], count: int = 24, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Inputs that move together along the second axis, so that weights can make up for each other."""
    given, mixing = feeds(*shape, count=count, seed=seed), np.random.default_rng(7).normal(size=(shape[1],) * 2)
    mixing[:, shape[1] // 2 :] *= 0.1
    return [{"x": np.einsum("ij,nj...->ni...", mixing, feed["x"]).astype(np.float32) / 2} for feed in given]


class Chain:
    """A model, and passes that are run on it one after the other, each result checked."""

    def __init__(self, proto: onnx.ModelProto, data: list[dict[str, np.ndarray]]) -> None:
        self.reference, self.data = load(proto), data
        several = split(data.__getitem__, len(data), "iterable")
        self.evaluator = RuntimeEvaluator(self.reference, several, Budget.parse("rel_l2=1000"), is_timed=False)
        self.model, self.changes = clone(self.reference), {}

    def run(self, *specs: str, is_needed: bool = True) -> Chain:
        for spec in specs:
            member = parse_pass(spec)
            context = Context(self.reference, evaluator=self.evaluator, budget_limit=math.inf)
            member.requires(self.model, context)
            result = member.run(clone(self.model), context)
            assert result.changes or not is_needed, f"{spec} changed nothing"
            if result.changes:
                proto = to_proto(result.model)
                onnx.checker.check_model(proto, full_check=not proto.graph.sparse_initializer)  # it infers none of them
                self.model, self.changes = result.model, result.changes
        return self

    def error(self, reference: ir.Model | None = None) -> float:
        """Relative L2 on inputs that no pass has seen."""
        first, second = session(reference or self.reference), session(self.model)
        pairs = [(first.run(feed), second.run(feed)) for feed in inputs(self.data[0]["x"].shape, 8, seed=9)]
        squares = sum(float(((one[name] - other[name]) ** 2).sum()) for one, other in pairs for name in one)
        return (squares / sum(float((one[name] ** 2).sum()) for one, _ in pairs for name in one)) ** 0.5

    def weight(self, output: str) -> np.ndarray:
        """What the kernel of ``output`` multiplies with, in floats; integers less their zero point."""
        nodes = {value.name: node for node in self.model.graph for value in node.outputs}
        node = nodes.get(f"{output}_MatMulInteger") or nodes[output]
        while node.op_type not in {"Conv", "Gemm", "MatMul", "MatMulInteger"}:
            node = node.inputs[0].producer()
        found = constants.constant_array(node.inputs[1])
        if found is None:
            found = session(with_outputs(self.model, [node.inputs[1].name])).run(self.data[0])[node.inputs[1].name]
        middle = constants.constant_array(node.inputs[3]) if len(node.inputs) > 3 else 0
        return found.astype(np.float64) - middle


def chain(kind: str, opset: int = 21) -> tuple[Chain, tuple[str, ...]]:
    proto, shape, outputs = NETS[kind](opset)
    return Chain(proto, inputs(shape)), outputs


def hold_zeros(work: Chain, outputs: tuple[str, ...], *specs: str, most: float) -> None:
    """Hold that ``specs`` keep all zeros of the weights, and add few."""
    before = {output: work.weight(output) for output in outputs}
    work.run(*specs)
    for output, old in before.items():
        new = work.weight(output)
        assert 0.4 < np.mean(old == 0) < 0.6
        assert not new[old == 0].any(), f"{output}: {np.mean(new[old == 0] != 0):.1%} of the zeros are none any more"
        assert np.mean(new[old != 0] == 0) <= most
        assert not np.array_equal(old, new)


@pytest.mark.parametrize("then", [INT8, f"{INT8},rounding=nearest", f"{INT8},granularity=tensor"])
@pytest.mark.parametrize("first", [FEW, f"{FEW},pattern=2:4"])
@pytest.mark.parametrize("kind", NETS)
def test_static_int8_keeps_zeros(kind, first, then):
    work, outputs = chain(kind)
    hold_zeros(work.run(first), outputs, then, most=0.05)
    assert any(node.op_type == "QuantizeLinear" for node in work.model.graph)


@pytest.mark.parametrize(
    "then",
    ["block=0", "block=32", "scheme=asymmetric", "bits=4,block=32", "bits=4,block=16,scheme=symmetric"],
)
@pytest.mark.parametrize("kind", NETS)
def test_integer_weights_keep_zeros(kind, then):
    work, outputs = chain(kind)
    hold_zeros(work.run(FEW), outputs, f"{INTEGERS},{then}", most=0.2)


@pytest.mark.parametrize("then", ["weight-type=uint8", "weight-type=int8,reduced-range=true", "granularity=tensor"])
def test_dynamic_int8_keeps_zeros(then):
    work, outputs = chain("products")
    hold_zeros(work.run(FEW), outputs, f"quantize-dynamic:min-elements=0,{then}", most=0.05)
    assert any(node.op_type == "MatMulInteger" for node in work.model.graph)


@pytest.mark.parametrize(
    "then",
    [CODEBOOKS, "cluster-weights:entries=16,min-elements=64", "cluster-weights:entries=8,group=8,min-elements=64"],
)
@pytest.mark.parametrize("has_data", [False, True])
@pytest.mark.parametrize("kind", NETS)
def test_codebooks_keep_zeros(kind, has_data, then):
    work, outputs = chain(kind)
    work.run(FEW)
    work.evaluator.has_data = has_data
    hold_zeros(work, outputs, then, most=0.1)


def test_vectors_keep_blocks_of_zeros():
    work, outputs = chain("products")
    hold_zeros(work.run(f"{FEW},pattern=block2x1"), outputs, "cluster-weights:dims=2,min-elements=64", most=0.1)


@pytest.mark.parametrize("then", [INT8, INTEGERS, f"{INTEGERS},bits=4", CODEBOOKS])
@pytest.mark.parametrize("kind", NETS)
def test_removed_channels_stay_removed(kind, then):
    work, outputs = chain(kind)
    wide = {output: work.weight(output).size for output in outputs}
    pruned = work.run(PRUNE).model
    narrow = {output: work.weight(output).shape for output in outputs}
    assert sum(map(math.prod, narrow.values())) < 0.7 * sum(wide.values())
    lost = work.error()
    work.run(then)
    assert {output: work.weight(output).shape for output in outputs} == narrow
    assert byte_size(work.model) < byte_size(pruned)
    assert 0 < work.error(pruned) < 0.2
    assert work.error() < lost + 0.1


def test_dynamic_int8_behind_pruned_channels():
    work, outputs = chain("products")
    work.run(PRUNE)
    narrow = {output: work.weight(output).shape for output in outputs}
    pruned = work.model
    work.run("quantize-dynamic:min-elements=0")
    assert {output: work.weight(output).shape for output in outputs} == narrow
    assert 0 < work.error(pruned) < 0.05


@pytest.mark.parametrize("kind", NETS)
def test_single_weights_behind_channels_are_counted_among_those_that_are_left(kind):
    work, outputs = chain(kind)
    pruned = work.run(PRUNE).model
    sizes = {output: work.weight(output).size for output in outputs}
    bare = work.run(f"{FEW},sparsity=0.5,repair=false").error(pruned)
    work.model = pruned
    assert work.run(f"{FEW},sparsity=0.5").error(pruned) < 0.8 * bare
    assert work.changes["weights set to 0"] == sum(round(size / 2) for size in sizes.values())
    assert {output: 2 * np.sum(work.weight(output) == 0) for output in outputs} == sizes


def planted(seed: int) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A net with channels that fold-shared-kernels removes, and its widths without them."""
    planter = Planter(seed)
    value, source = planter.source(3)
    for width in (8, 12):
        value = planter.unary(planter.conv(value, width), "Relu")
    return planter.model(source, planter.head(value)), planter.widths


def widths(model: ir.Model) -> dict[str, int]:
    found = {node.name: linear_nodes.as_linear(node) for node in model.graph}
    return {name: kernel.outputs for name, kernel in found.items() if kernel is not None}


@pytest.mark.parametrize("seed", range(4))
def test_channels_are_pruned_of_what_folding_leaves(seed):
    proto, compact = planted(seed)
    work = Chain(proto, [feeds_for(proto, {}, number) for number in range(24)])
    work.run("fold-shared-kernels:multiple=1")
    folded = {name: widths(work.model)[name] for name in compact}
    assert folded == compact != {name: widths(work.reference)[name] for name in compact}
    work.run("prune-channels:macs=0.7,multiple=1")
    left = widths(work.model)
    assert all(left[name] <= width for name, width in compact.items())
    assert any(left[name] < width for name, width in compact.items())


@pytest.mark.parametrize("kind", NETS)
def test_fitting_behind_bare_zeros_repairs_them(kind):
    work, outputs = chain(kind)
    work.run(f"{FEW},repair=false")
    lost, before = work.error(), {output: work.weight(output) for output in outputs}
    work.run("refit-weights")
    assert work.error() < 0.8 * lost
    for output, old in before.items():
        np.testing.assert_array_equal(work.weight(output) == 0, old == 0)


@pytest.mark.parametrize("first", [CODEBOOKS, "cluster-weights:entries=5,min-elements=64"])
@pytest.mark.parametrize("kind", NETS)
def test_fitting_behind_codebooks_moves_their_entries(kind, first):
    work, outputs = chain(kind)
    work.run(first)
    lost, size = work.error(), byte_size(work.model)
    before = {output: work.weight(output) for output in outputs}
    work.run("refit-weights")
    assert work.changes["codebooks fitted"] == len(outputs)
    assert work.error() < (0.9 if kind == "convolutions" else 1.0) * lost
    assert byte_size(work.model) <= size + 200  # a bias may be new
    for output, old in before.items():
        moves = set(zip(old.flat, work.weight(output).flat, strict=True))
        assert any(one != other for one, other in moves)
        assert "group" in first or len(moves) <= 5, "each entry moves to one place"


@pytest.mark.parametrize("kind", NETS)
def test_fitting_behind_zeros_in_codebooks_keeps_them(kind):
    work, outputs = chain(kind)
    hold_zeros(work.run(FEW), outputs, CODEBOOKS, "refit-weights", most=0.1)
    assert work.changes["codebooks fitted"] == len(outputs)


@pytest.mark.parametrize("kind", NETS)
def test_fitting_leaves_integers_alone(kind):
    work, _ = chain(kind)
    work.run(INT8)
    work.changes = {}
    assert not work.run("refit-weights:everything=true", is_needed=False).changes


LOSSY = {
    "zeros": (FEW,),
    "sparse": (f"{FEW},sparsity=0.8,store=sparse",),
    "codebooks": (CODEBOOKS,),
    "zeros in codebooks": (FEW, CODEBOOKS),
    "integers": (INTEGERS,),
    "static int8": (INT8,),
    "channels": (PRUNE,),
    "channels in static int8": (PRUNE, INT8),
}


def raw_net() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A net with something for all exact passes: a normalization, weights stored twice, nodes without a purpose."""
    net = Net(*IMAGE, opset=21)
    first = net.conv("x", 8, 24)
    scales = [net.constant(net.random.uniform(0.5, 2, 24).astype(np.float32)) for _ in range(4)]
    hidden = net.node("Relu", net.node("BatchNormalization", first, *scales))
    weight = net.weight(16, 24, 3, 3)
    twin = net.constant(onnx.numpy_helper.to_array(net.weights[-1]))
    branches = [net.node("Conv", value, weight, pads=[1] * 4) for value in (hidden, net.node("Identity", hidden))]
    branches.append(net.node("Conv", net.node("Tanh", hidden), twin, pads=[1] * 4))
    total = net.node("Add", net.node("Add", *branches[:2]), branches[2])
    return net.model(net.conv(total, 16, 8)), IMAGE


@pytest.mark.parametrize("lossy", LOSSY)
def test_exact_passes_behind_lossy_ones_keep_what_these_gained(lossy):
    proto, shape = raw_net()
    work, did = Chain(proto, inputs(shape)), {}
    changed = work.run(*LOSSY[lossy]).model
    for exact in ("dedup-initializers", "simplify", "fold-shared-kernels"):
        size, kinds, zeros = byte_size(work.model), stored(work.model), zero_count(work.model)
        work.changes = {}
        work.run(exact, is_needed=False)
        did.update(work.changes)
        assert byte_size(work.model) <= size - bool(work.changes)
        assert stored(work.model) == kinds
        assert zero_count(work.model) == zeros or "dedup" in exact
        assert work.error(changed) < 1e-6
    assert did["drop-identities"] == 1
    assert ("fuse-batch-norm" in did) == (lossy in {"zeros", "sparse", "channels"})  # integers and codebooks stay
    assert did.get("initializers merged", 0) == ("int" in lossy)  # zeros and codebooks go by what each kernel reads


def zero_count(model: ir.Model) -> int:
    """Zeros of constants that are no scales or zero points."""
    arrays = [value.const_value.numpy() for value in model.graph.initializers.values()]
    return sum(int(np.sum(array == 0)) for array in arrays if array.size > 64)


def stored(model: ir.Model) -> set[str]:
    """How constants of more than 64 elements are stored."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return {f"{type(tensor) is SparseTensor} {tensor.dtype}" for tensor in tensors if tensor.size > 64}


def test_channels_and_int8_share_the_budget():
    """Two stages: each is judged against the float model, the second finds room, and what the first removed is gone."""
    proto, shape, outputs = conv_net()
    options = {"data": inputs(shape, 48), "budget": "rel_l2=0.05", "timing": False}
    report = {name: optimizer.optimize(proto, preset=name, **options) for name in ("pruned", "int8", "pruned-int8")}
    both = report["pruned-int8"]
    channels, int8 = (stage for stage in both.report.stages if not all(record.exact for record in stage.passes))
    assert channels.kept
    assert int8.kept
    removed = channels.changes["output channels of kernels removed"]
    assert 0 < removed <= report["pruned"].report.stages[-1].changes["output channels of kernels removed"]
    assert both.report.coverage.text() == "int8: 2 of 2 Conv, 1 of 1 Gemm"
    assert both.report.outputs[0].rel_l2 < 0.05
    work = Chain(proto, options["data"])
    work.model = load(both.model)
    assert sum(work.weight(output).shape[0] for output in outputs) == 24 + 16 + 16 - removed
    assert both.report.after.bytes < 0.9 * report["int8"].report.after.bytes
