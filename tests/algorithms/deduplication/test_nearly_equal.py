"""dedup-initializers with a tolerance: what becomes one, how near it stays, and that the budget decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import optimizer
from optimizer.algorithms.deduplication.nearly_equal import NearChoices, near_groups
from optimizer.contract.passes import Context, Sites
from optimizer.errors import UsageError
from optimizer.io.model import clone, load, to_proto
from passes.dedup_initializers import MERGES, NEARS, DedupInitializers

RANDOM = np.random.default_rng(0)


def numbers(*shape, kind=np.float32):
    return RANDOM.standard_normal(shape).astype(kind)


def away(array, distance):
    """``array`` moved by a relative L2 distance."""
    step = RANDOM.standard_normal(array.shape)
    return (array + step * distance * np.linalg.norm(array) / np.linalg.norm(step)).astype(array.dtype)


def chain(*weights, opset=17, as_nodes=False):
    """A product with each of ``weights`` in turn."""
    arrays = [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(weights)]
    nodes = [helper.make_node("Constant", [], [one.name], value=one) for one in arrays] if as_nodes else []
    for number, array in enumerate(arrays):
        end = f"v{number + 1}" if number + 1 < len(arrays) else "y"
        nodes.append(helper.make_node("MatMul", ["x" if number == 0 else f"v{number}", array.name], [end]))
    kind = helper.np_dtype_to_tensor_dtype(weights[0].dtype)
    size = weights[0].shape[0]
    slots = [helper.make_tensor_value_info(name, kind, ["n", size]) for name in "xy"]
    made = helper.make_graph(nodes, "g", slots[:1], slots[1:], [] if as_nodes else arrays)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(proto, *, evaluator=None, allowance=1.0, choices=None, sites=None, **options):
    model = load(proto)
    context = Context(model, sites or Sites(), evaluator=evaluator, budget_limit=allowance, choices=choices)
    result = DedupInitializers(**options).run(clone(model), context)
    assert to_proto(model) == to_proto(load(proto)), "the reference was changed"
    onnx.checker.check_model(to_proto(result.model), full_check=True)
    return result


def weights_of(model):
    return [value.const_value.numpy() for value in model.graph.initializers.values()]


def relative(array, shared):
    return np.linalg.norm(array.astype(np.float64) - shared) / np.linalg.norm(shared.astype(np.float64))


BASE = numbers(16, 16)


def test_it_is_exact_without_a_tolerance_and_lossy_with_one():
    assert DedupInitializers().exact
    assert not DedupInitializers(tolerance=0.01).exact
    assert [step.name for step in DedupInitializers(tolerance=0.01).steps()][-1] == "near"
    assert str(DedupInitializers(tolerance=0.01)) == "dedup-initializers:tolerance=0.01"


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_what_is_no_distance_is_refused(tolerance):
    with pytest.raises(UsageError, match="from 0 to less than 1"):
        DedupInitializers(tolerance=tolerance)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("as_nodes", [True, False])
def test_near_weights_become_their_mean(kind, as_nodes):
    base = BASE.astype(kind)
    pair = [base, away(base, 0.02)]
    result = run(chain(*pair, as_nodes=as_nodes), tolerance=0.02)
    assert result.changes == {NEARS: 1}
    (shared,) = weights_of(result.model)
    assert shared.dtype == kind
    np.testing.assert_allclose(shared, (pair[0].astype(np.float64) + pair[1]) / 2, rtol=2e-3)
    assert max(relative(array, shared) for array in pair) <= 0.02


def test_the_mean_is_weighted_by_use():
    near = away(BASE, 0.02)
    result = run(chain(BASE, BASE, BASE, near), tolerance=0.02)
    assert result.changes == {MERGES: 2, NEARS: 1}
    np.testing.assert_allclose(weights_of(result.model)[0], (3 * BASE + near) / 4, rtol=1e-4, atol=1e-6)


LEFT_ALONE = {
    "too far": [BASE, away(BASE, 0.1)],
    "opposite": [BASE, -BASE],
    "scaled": [BASE, BASE * np.float32(1.2)],
    "mirrored": [BASE, np.ascontiguousarray(away(BASE, 0.001)[:, ::-1])],
    "not finite": [np.where(BASE > 2, np.float32(np.inf), BASE), away(np.where(BASE > 2, np.float32(0), BASE), 0.01)],
    "zero": [np.zeros((16, 16), np.float32), BASE * np.float32(1e-12)],
    "small": [BASE[:2, :2].copy(), away(BASE[:2, :2], 0.001)],
}


@pytest.mark.parametrize("weights", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_left_alone(weights):
    assert not run(chain(*weights), tolerance=0.02).changes


def test_without_a_tolerance_near_weights_are_left_alone():
    assert not run(chain(BASE, away(BASE, 1e-6))).changes


def test_what_a_caller_may_override_and_what_is_excluded_is_left_alone():
    proto = chain(BASE, away(BASE, 0.001))
    assert not run(proto, tolerance=0.02, exclude=("w0",)).changes
    assert not run(proto, tolerance=0.02, min_bytes=4096).changes
    assert not run(proto, tolerance=0.02, sites=Sites(denied=frozenset({("near", "w0")}))).changes
    proto.graph.input.append(helper.make_tensor_value_info("w0", onnx.TensorProto.FLOAT, [16, 16]))
    assert not run(proto, tolerance=0.02).changes


def test_a_drift_does_not_chain_far_weights_together():
    drift = [BASE * np.float32(1.01**step) for step in range(12)]
    result = run(chain(*drift), tolerance=0.02)
    left = weights_of(result.model)
    assert 1 < len(left) < 12
    assert all(min(relative(array, shared) for shared in left) <= 0.02 for array in drift)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.2)), min_size=2, max_size=10), st.floats(0.001, 0.2))
def test_groups_hold_the_tolerance_are_disjoint_and_the_same_each_time(drawn, tolerance):
    random = np.random.default_rng(1)
    bases = random.standard_normal((4, 8, 8))
    tensors = [ir.tensor((bases[kind] + d * random.standard_normal((8, 8))).astype(np.float32)) for kind, d in drawn]
    uses = [1 + number % 3 for number in range(len(tensors))]
    groups = list(near_groups(tensors, uses, tolerance, seed=0))
    members = [member for group in groups for member in group.members]
    assert len(members) == len(set(members))
    for group in groups:
        arrays = np.stack([tensors[member].numpy() for member in group.members]).astype(np.float64)
        mean = np.average(arrays, axis=0, weights=[uses[member] for member in group.members])
        np.testing.assert_allclose(group.shared, mean, rtol=1e-5, atol=1e-6)
        assert max(relative(array, group.shared) for array in arrays) <= tolerance
    again = near_groups(tensors, uses, tolerance, seed=0)
    assert [group.members for group in again] == [group.members for group in groups]


def test_pairs_at_half_the_tolerance_are_all_found_among_many():
    random = np.random.default_rng(2)
    firsts = random.standard_normal((60, 24, 24))
    step = random.standard_normal(firsts.shape)
    seconds = firsts + 0.05 * step * np.linalg.norm(firsts) / np.linalg.norm(step)
    tensors = [ir.tensor(array.astype(np.float32)) for array in (*firsts, *seconds)]
    groups = near_groups(tensors, [1] * 120, 0.05, seed=0)
    assert sorted(group.members for group in groups) == [(number, number + 60) for number in range(60)]


@dataclass
class Lab:
    """Uses as much of the budget as there are weights fewer."""

    weights: int
    each: float = 0.3
    has_data: bool = True
    is_timed: bool = True

    def budget_used(self, model):
        return self.each * (self.weights - len(model.graph.initializers))


def test_as_many_groups_as_the_budget_allows_the_nearest_first():
    bases = [numbers(16, 16) for _ in range(4)]
    weights = [array for number, base in enumerate(bases) for array in (base, away(base, 0.004 * (4 - number)))]
    proto = chain(*weights)
    result = run(proto, tolerance=0.05, evaluator=Lab(8))
    assert result.changes == {NEARS: 3}
    assert result.choices == NearChoices(3)
    assert {"w0", "w1"} < set(result.model.graph.initializers), "the farthest pair stays"
    assert run(proto, tolerance=0.05, evaluator=Lab(8), allowance=0.5).changes == {NEARS: 1}
    assert run(proto, tolerance=0.05, evaluator=Lab(8, each=2.0)).changes == {}
    again = run(proto, tolerance=0.05, evaluator=Lab(8, each=9.0), choices=result.choices)
    assert to_proto(again.model) == to_proto(result.model)


def test_the_whole_run_keeps_the_budget():
    proto = chain(BASE, away(BASE, 0.02))
    feeds = [{"x": numbers(4, 16)} for _ in range(12)]
    kept = optimizer.optimize(proto, passes=["dedup-initializers:tolerance=0.02"], data=feeds, timing=False)
    assert kept.report.stages[0].kept
    assert kept.report.after.bytes < kept.report.before.bytes
    strict = "dedup-initializers:tolerance=0.02"
    undone = optimizer.optimize(proto, passes=[strict], data=feeds, timing=False, budget="rel_l2=0.0001")
    assert not undone.report.stages[0].kept
