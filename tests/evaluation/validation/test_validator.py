"""The promise: limits before candidates, and no wrong candidate passes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from optimizer.analysis.randomness import random_outputs
from optimizer.errors import DataError, ReferenceRunError
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation import reference_noise, reference_outputs
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.output_error import difference
from optimizer.evaluation.validation.tolerance import shrunk_by_an_ulp, tolerance
from optimizer.evaluation.validation.validator import Validator
from optimizer.io.model import load

HEAD = '<ir_version: 10, opset_import: ["": 17]>'


def built(body, signature="(float[N,4] x) => (float[N,4] y)"):
    return ir.from_onnx_text(f"{HEAD} g {signature} {{ {body} }}")


def feeds(count=8, rows=3):
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((rows + number % 2, 4), np.float32)} for number in range(count)]


@pytest.fixture
def validator():
    return Validator(built("a = Tanh(x) y = Mul(a, x)"), feeds())


def test_a_model_is_equal_to_itself(validator):
    verdict = validator.check_exact(built("a = Tanh(x) y = Mul(a, x)"))
    assert (verdict.ok, verdict.reason) == (True, "")
    assert [output.name for output in verdict.outputs] == ["y"]
    assert validator.notes == ()


def test_rounding_is_no_difference(validator):
    assert validator.check_exact(built("a = Tanh(x) b = Neg(a) c = Neg(x) y = Mul(b, c)")).ok


def test_a_small_error_is_found_and_named(validator):
    verdict = validator.check_exact(built("k = Constant<value_float=1.001>() a = Tanh(x) b = Mul(a, k) y = Mul(b, x)"))
    assert not verdict.ok
    assert verdict.reason == "output 'y' has relative L2 0.001, the limit is 1e-05"
    assert verdict.outputs[0].rel_l2 == pytest.approx(1e-3, rel=1e-3)


def test_a_frozen_size_is_found(validator):
    verdict = validator.check_exact(
        built("s = Constant<value_ints=[3, 4]>() a = Tanh(x) b = Mul(a, x) y = Reshape(b, s)")
    )
    assert not verdict.ok
    assert "cannot run" in verdict.reason


def test_a_wrong_shape_is_named(validator):
    body = (
        "k = Constant<value_ints=[0]>() e = Constant<value_ints=[1]>() a = Tanh(x) b = Mul(a, x) y = Slice(b, k, e, k)"
    )
    assert "has shape [1, 4] instead of [3, 4]" in validator.check_exact(built(body)).reason


def test_nan_is_found(validator):
    verdict = validator.check_exact(built("a = Tanh(x) b = Mul(a, x) c = Neg(b) d = Sqrt(c) y = Add(b, d)"))
    assert "NaN or infinity" in verdict.reason


def test_a_candidate_that_does_not_load_is_a_verdict(validator):
    verdict = validator.check_exact(built("y = Nonsense(x)"))
    assert not verdict.ok
    assert verdict.reason.startswith("the candidate: ONNX Runtime cannot load the model")
    assert verdict.outputs == ()
    assert not validator.check_budget(built("y = Nonsense(x)"), Budget()).ok


def test_a_missing_output_is_a_verdict(validator):
    candidate = built("z = Tanh(x)", "(float[N,4] x) => (float[N,4] z)")
    assert "no output 'y'" in validator.check_exact(candidate).reason


def test_a_reference_that_does_not_load_names_the_way_out():
    with pytest.raises(ReferenceRunError, match="--no-run"):
        Validator(built("y = Nonsense(x)"), feeds())


def test_no_feeds_are_no_evidence():
    with pytest.raises(DataError, match="no validation feeds"):
        Validator(built("y = Tanh(x)"), [])


def test_maps_are_compared():
    text = """<ir_version: 10, opset_import: ["": 17, "ai.onnx.ml": 3]>
        g (float[N,2] x) => (seq(map(int64, float)) y) {
            a = OP(x)
            y = ai.onnx.ml.ZipMap<classlabels_int64s=[3, 5]>(a)
        }"""
    same, other = (load(onnx.parser.parse_model(text.replace("OP", op))) for op in ("Abs", "Neg"))
    checked = Validator(same, [{"x": np.array([[0.25, -0.75]], np.float32)}] * 8)
    assert checked.check_exact(same).ok
    assert not checked.check_exact(other).ok


def test_few_feeds_are_weak_evidence():
    assert Validator(built("y = Tanh(x)"), feeds(2)).notes == ("weak evidence: 2 validation feeds, eight are enough",)


def test_random_outputs_are_compared_by_shape_and_named():
    signature = "(float[N,4] x) => (float[N,4] y, float[N,4] z)"
    model = built("r = RandomNormalLike(x) a = Relu(r) y = Add(a, x) z = Tanh(x)", signature)
    checked = Validator(model, feeds())
    assert checked.random == {"y"}
    assert "y" in checked.notes[0]
    assert checked.check_exact(built("y = Relu(x) z = Tanh(x)", signature)).ok
    assert not checked.check_exact(built("y = Relu(x) z = Tan(x)", signature)).ok
    assert not checked.check_exact(
        built("y = Transpose(x) z = Tanh(x)", "(float[N,4] x) => (float[M,K] y, float[N,4] z)")
    ).ok


def test_randomness_goes_through_branches():
    model = built("""
        t = Constant<value = bool {1}>()
        y = If(t) <
            then_branch = a () => (float[N,4] p) { p = RandomNormalLike(x) },
            else_branch = b () => (float[N,4] q) { q = Identity(x) } >""")
    assert random_outputs(model) == {"y"}
    assert random_outputs(built("y = Dropout(x)")) == frozenset()


def test_answers_that_do_not_fit_are_computed_again(monkeypatch):
    monkeypatch.setattr("optimizer.evaluation.validation.reference_outputs._MOST_BYTES", 100)
    checked = Validator(built("y = Tanh(x)"), feeds())
    assert checked.check_exact(built("y = Tanh(x)")).ok
    assert not checked.check_exact(built("y = Sin(x)")).ok


def test_slow_models_are_not_run_without_optimizations(monkeypatch):
    monkeypatch.setattr(reference_noise, "_SLOW_SECONDS", 0.0)
    checked = Validator(built("y = Tanh(x)"), feeds())
    assert "not checked without" in checked.notes[0]
    assert checked.check_exact(built("y = Tanh(x)")).ok


def test_integers_must_be_equal():
    signature = "(float[N,4] x) => (int64[N,4] y)"
    checked = Validator(built("y = Cast<to=7>(x)", signature), feeds())
    verdict = checked.check_exact(built("a = Ceil(x) y = Cast<to=7>(a)", signature))
    assert not verdict.ok
    assert "of its" in verdict.reason
    assert verdict.outputs[0].agreement < 1


def test_sequences_are_compared():
    signature = "(float[N,4] x) => (seq(float[A,B]) y)"
    checked = Validator(built("y = SplitToSequence<axis=1>(x)", signature), feeds())
    assert checked.check_exact(built("y = SplitToSequence<axis=1>(x)", signature)).ok
    assert not checked.check_exact(built("a = Abs(x) y = SplitToSequence<axis=1>(a)", signature)).ok


def test_budget_allows_what_exact_does_not(validator):
    blurred = built("k = Constant<value_float=1.01>() a = Tanh(x) b = Mul(a, k) y = Mul(b, x)")
    assert not validator.check_exact(blurred).ok
    assert validator.check_budget(blurred, Budget()).ok
    assert "relative L2" in validator.check_budget(blurred, Budget.parse("rel_l2=0.001")).reason


def test_budget_rejects_a_constant_answer():
    offset = "k = Constant<value_float=100.0>() "
    checked = Validator(built(offset + "y = Add(x, k)"), feeds(rows=3))
    constant = built(offset + "z = Constant<value_float=0.0>() a = Mul(x, z) y = Add(a, k)")
    verdict = checked.check_budget(constant, Budget())
    assert "around its mean" in verdict.reason
    assert verdict.outputs[0].rel_l2 < 0.1


def test_budget_looks_before_softmax():
    checked = Validator(built("y = Softmax<axis=1>(x)"), feeds())
    swapped = built("k = Constant<value_float=-1.0>() a = Mul(x, k) y = Softmax<axis=1>(a)")
    assert not checked.check_budget(swapped, Budget()).ok
    verdict = checked.check_budget(
        built("k = Constant<value_float=1.3>() a = Mul(x, k) y = Softmax<axis=1>(a)"), Budget()
    )
    assert not verdict.ok


def test_tolerance_grows_with_the_references_own_change_up_to_a_cap():
    own = difference(np.array([3.0, 4.0]), np.array([3.0, 4.0 + 5e-5 * 5]))
    assert tolerance("tensor(float)", own).rel_l2 == pytest.approx(2e-4)
    huge = difference(np.array([3.0, 4.0]), np.array([3.0, 5.0]))
    assert tolerance("tensor(float)", huge).rel_l2 == 1e-3
    assert tolerance("tensor(float)", huge, half=True).rel_l2 == 1e-2
    assert tolerance("tensor(float16)", difference(np.ones(2), np.ones(2))).rel_l2 == 2e-3


def test_integers_have_no_relative_tolerance():
    own = difference(np.arange(1000), np.arange(1000))
    assert tolerance("tensor(int64)", own, half=True).rel_l2 == 0
    flipped = difference(np.arange(1000), np.r_[np.arange(999), 0])
    assert "differs in 1 of its 1000" in tolerance("tensor(int64)", flipped).failure(flipped)


def test_arg_max_flips_between_close_values_only():
    limits = tolerance("tensor(float)", difference(np.ones((1, 2)), np.ones((1, 2))))
    close = difference(np.array([[1.0, 1.0 + 1e-6]]), np.array([[1.0 + 1e-6, 1.0]]))
    assert limits.failure(close) == ""
    rows = np.concatenate([np.full((1, 2), 1e4), [[1.0, 2.0]]])
    other = np.concatenate([np.full((1, 2), 1e4), [[1.05, 1.0]]])
    assert limits.failure(difference(rows, other))


def test_noise_stays_in_range():
    feed = {"x": np.array([0, 1, -1, 0.5], np.float32), "i": np.array([1])}
    noisy = shrunk_by_an_ulp(feed, 0)["x"]
    assert (np.abs(noisy) <= np.abs(feed["x"])).all()
    assert noisy[0] == 0
    assert noisy.dtype == np.float32


def test_integers_may_differ_where_the_reference_flips_and_nowhere_else():
    signature = "(float[N] x) => (int32[N] y)"
    edge = np.concatenate([np.full(5, 2.0), np.full(995, 3.5)]).astype(np.float32)  # an ulp less than 2 becomes 1
    checked = Validator(built("y = Cast<to=6>(x)", signature), [{"x": edge}] * 8)
    shifted = "c = Constant<value_float=WHAT>() a = Mul(x, c) y = Cast<to=6>(a)"
    assert checked.check_exact(built(shifted.replace("WHAT", "0.9999999"), signature)).ok
    elsewhere = (
        "k = Constant<value_ints=[999, 1]>() h, l = Split(x, k) n = Neg(l) a = Concat<axis=0>(h, n) y = Cast<to=6>(a)"
    )
    verdict = checked.check_exact(built(elsewhere, signature))
    assert "differs in 8 of its 8000" in verdict.reason


def test_rounding_is_allowed_in_a_feed_whose_reference_is_zero():
    loud, silent = {"x": np.ones((2, 4), np.float32)}, {"x": np.zeros((2, 4), np.float32)}
    checked = Validator(built("y = Mul(x, x)"), [silent, *[loud] * 7])
    residue = "e = Constant<value_float=WHAT>() a = Mul(x, x) y = Add(a, e)"
    assert checked.check_exact(built(residue.replace("WHAT", "1e-8"))).ok
    assert "where the reference is zero" in checked.check_exact(built(residue.replace("WHAT", "1e-6"))).reason


def test_finite_elements_count_where_the_reference_overflows_by_chance():
    floats = [1.0, 2.0, 3.0, np.inf]
    own = difference(np.array(floats * 100), np.array([*floats * 99, 1.0, 2.0, np.inf, np.inf]))
    limits = tolerance("tensor(double)", own)
    assert limits.misplaced > 0
    assert limits.failure(own) == ""
    assert "relative L2" in limits.failure(difference(np.array(floats * 100), np.array([1.0, 2.0, 4.0, np.inf] * 100)))


def test_rounding_from_run_to_run_does_not_make_an_output_random(monkeypatch):
    runs = iter(range(1000))

    def jittered(self, feeds):
        return {"y": feeds["x"] * np.float32(1 + 1e-7 * (next(runs) % 2))}

    monkeypatch.setattr("optimizer.evaluation.runtime.session.Session.run", jittered)
    assert Validator(built("y = Tanh(x)"), feeds()).random == frozenset()


def test_one_session_of_the_reference_at_a_time(monkeypatch):
    alive, most = 0, 0

    class Counted:
        def __init__(self, loaded):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            self.loaded = loaded

        def __getattr__(self, name):
            return getattr(self.loaded, name)

        def __del__(self):
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(reference_outputs, "session", lambda *args, **options: Counted(session(*args, **options)))
    checked = Validator(built("y = Tanh(x)"), feeds())
    assert (most, alive) == (1, 0)
    assert checked.check_exact(built("y = Tanh(x)")).ok


def test_outputs_that_no_feed_changes_are_compared_and_named():
    signature = "(float[3,4] x) => (float[3,4] y, float[2] k, int64[2] n)"
    body = "k = Constant<value_floats=[K, 2.0]>() n = Shape(x) y = Tanh(x)"
    given = [{"x": feed["x"][:3]} for feed in feeds()]
    checked = Validator(built(body.replace("K", "1000.0"), signature), given)
    assert checked.constant == {"k", "n"}
    assert checked.notes == ("the same for all 8 validation feeds: k, n",)
    assert checked.check_exact(built(body.replace("K", "1000.001"), signature)).ok
    assert "output 'k' has relative L2" in checked.check_exact(built(body.replace("K", "1000.1"), signature)).reason


def test_one_feed_does_not_show_what_is_constant():
    assert Validator(built("y = Tanh(x)"), feeds(1)).constant == frozenset()


@pytest.mark.parametrize(("made", "is_allowed"), [("Sigmoid", True), ("Exp", False)])
def test_what_a_sigmoid_gives_out_near_zero_is_rounded_as_around_a_half(made, is_allowed):
    body = f"k = Constant<value_float=-16.0>() a = Mul(x, x) b = Sub(k, a) c = {made}(b) y = Transpose<perm=[0,1]>(c)"
    checked = Validator(built(body), feeds())
    bent = body.replace("c = ", "d = ").replace("y = Trans", "l = Constant<value_float=1.1>() c = Mul(d, l) y = Trans")
    verdict = checked.check_exact(built(bent))
    assert verdict.outputs[0].rel_l2 == pytest.approx(0.1, rel=1e-3)
    assert verdict.ok is is_allowed


def test_what_a_sigmoid_gives_out_else_is_compared_relatively():
    checked = Validator(built("y = Sigmoid(x)"), feeds())
    bent = "a = Sigmoid(x) k = Constant<value_float=1.00002>() y = Mul(a, k)"
    assert "relative L2 2e-05" in checked.check_exact(built(bent)).reason
