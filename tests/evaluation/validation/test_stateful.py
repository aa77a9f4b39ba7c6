"""Models with states over many calls: what single calls do not show is found, what rounding does is no fault."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from optimizer.evaluation.validation import stateful
from optimizer.evaluation.validation.validator import Validator

HEAD = '<ir_version: 10, opset_import: ["": 17]>'
SUM = "(float[1,4] x, float[1,4] s) => (float[1,4] y, float[1,4] sn)"
GROWING = (
    "(float[1,1,4] x, float[1,past,4] past_0, float[1,past1] mask) => (float[1,past1,4] present_0, float[1,past1] y)"
)


def built(body, signature=SUM, weights=""):
    return ir.from_onnx_text(f"{HEAD} g {signature} {weights} {{ {body} }}")


def feeds(**shapes):
    rng = np.random.default_rng(0)
    return [{name: rng.random(shape, np.float32) for name, shape in shapes.items()} for _ in range(8)]


def checked(body, signature=SUM, **shapes):
    return Validator(built(body, signature), feeds(**(shapes or {"x": (1, 4), "s": (1, 4)})))


def test_an_error_that_adds_up_is_found():
    validator = checked("sn = Add(s, x) y = Tanh(sn)")
    assert validator.notes == ("exact checks cover 20 chained steps too, feeding sn to s",)
    assert validator.check_exact(built("sn = Add(x, s) y = Tanh(sn)")).ok
    drifting = "k = Constant<value_float=1.000008>() t = Mul(s, k) sn = Add(t, x) y = Tanh(sn)"
    verdict = validator.check_exact(built(drifting))
    assert not verdict.ok
    assert verdict.reason.startswith("output 'sn' has relative L2 1.")
    assert "of a chain feeding sn to s" in verdict.reason
    assert [output.name for output in verdict.outputs] == ["y", "sn"]


def test_rounding_that_grows_ends_the_chain():
    validator = checked("a = Mul(s, s) b = Sub(s, a) k = Constant<value_float=4.0>() sn = Mul(b, k) y = Add(sn, x)")
    steps = int(validator.notes[0].split()[3])
    assert 2 <= steps < 15
    other = "k = Constant<value_float=4.0>() o = Constant<value_float=1.0>() a = Sub(o, s) b = Mul(a, k) sn = Mul(b, s)"
    assert validator.check_exact(built(f"{other} y = Add(x, sn)")).ok


def test_a_chain_that_the_reference_cannot_walk_is_no_failure():
    signature = "(float[1,4] x, int64[1] place_in) => (float[1,1] y, int64[1] place_out)"
    body = "k = Constant<value_ints=[3]>() y = Gather<axis=1>(x, place_in) place_out = Add(place_in, k)"
    given = [{"x": np.ones((1, 4), np.float32), "place_in": np.array([1 + number % 2])} for number in range(8)]
    validator = Validator(built(body, signature), given)
    assert validator.notes[-1].startswith(
        "exact checks cover no chained steps, feeding place_out to place_in: ONNX Runtime"
    )
    assert validator.check_exact(built(body, signature)).ok


def test_the_past_grows_and_its_mask_with_it():
    body = "present_0 = Concat<axis=1>(past_0, x) a = ReduceSum<keepdims=0>(present_0, two) y = Mul(a, mask)"
    reference = built(body, GROWING, "<int64[1] two = {2}>")
    for value in (*reference.graph.inputs, *reference.graph.outputs):  # no name in the text form of ONNX
        value.shape = ir.Shape(["past + 1" if dim == "past1" else dim for dim in value.shape])
    given = feeds(x=(1, 1, 4), past_0=(1, 2, 4), mask=(1, 3))
    validator = Validator(reference, given)
    assert validator.notes == ("exact checks cover 20 chained steps too, feeding present_0 to past_0",)
    frozen = f"{body.replace('y = Mul', 'b = Mul')} y = Reshape(b, three)"
    verdict = validator.check_exact(built(frozen, GROWING, "<int64[1] two = {2}, int64[2] three = {1, 3}>"))
    assert "cannot run" in verdict.reason
    assert "where it is fed its own states" in verdict.reason


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_recurrent_nets_are_walked(kind):
    gates = {"GRU": 3, "LSTM": 4}[kind] * 2
    signature = (
        "(float[3,1,2] x, float[1,1,2] h, float[1,1,2] c) => (float[3,1,1,2] y, float[1,1,2] hn, float[1,1,2] cn)"
    )
    rng = np.random.default_rng(0)
    numbers = ", ".join(f"{number:.3f}" for number in rng.standard_normal(gates * 2))
    weights = f"<float[1,{gates},2] w = {{{numbers}}}, float[1,{gates},2] r = {{{numbers}}}>"
    node = "y, hn, cn = LSTM<hidden_size=2>(x, w, r, , , h, c)"
    if kind == "GRU":
        node = "y, hn = GRU<hidden_size=2>(x, w, r, , , h) cn = Add(c, hn)"
    given = feeds(x=(3, 1, 2), h=(1, 1, 2), c=(1, 1, 2))
    validator = Validator(built(node, signature, weights), given)
    assert validator.notes == ("exact checks cover 20 chained steps too, feeding hn to h, cn to c",)
    assert validator.check_exact(built(node, signature, weights)).ok
    forgetful = node.replace(", h", ", none") if kind == "GRU" else node.replace(", c)", ", none)")
    assert not validator.check_exact(built(f"none = Sub(h, h) {forgetful}", signature, weights)).ok


def test_a_pair_that_is_none_does_no_harm():
    signature = "(float[1,4] image_in) => (float[1,4] image_out)"
    validator = checked("a = Tanh(image_in) image_out = Mul(a, image_in)", signature, image_in=(1, 4))
    assert validator.check_exact(built("a = Tanh(image_in) image_out = Mul(image_in, a)", signature)).ok


def test_random_states_are_not_fed_back():
    body = "r = RandomNormalLike(x) sn = Add(s, r) y = Tanh(x)"
    assert checked(body).notes == ("compared in dtype and shape only, since they differ from run to run: sn",)


def test_slow_models_walk_fewer_steps(monkeypatch):
    monkeypatch.setattr(stateful, "_SECONDS", 0.0)
    assert "a step takes too long" in checked("sn = Add(s, x) y = Tanh(sn)").notes[0]
