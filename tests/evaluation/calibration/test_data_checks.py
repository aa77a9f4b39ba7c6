"""Wrong preprocessing and other data that does not suit a model is named; right data is met with silence."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import optimizer
from optimizer.evaluation.calibration.data_checks import check, values_to_observe, warnings
from optimizer.evaluation.calibration.sweep import observe

HEAD = '<ir_version: 10, opset_import: ["": 21]>'
NORMALIZED = f"""{HEAD} g (float[N,2,8,8] x) => (float[N,2,8,8] y)
    <float[2,2,1,1] w = {{1, 2, -2, 1}}, float[2] s = {{1, 1}}, float[2] b = {{0, 0}},
     float[2] m = {{MEAN}}, float[2] v = {{VARIANCE}}>
    {{ c = Conv(x, w) n = BatchNormalization(c, s, b, m, v) r = Relu(n)
       l = Conv(r, w) k = BatchNormalization(l, s, b, m, v) y = Sigmoid(k) }}"""


def images(count=8, scale=1.0, shift=0.0):
    random = np.random.default_rng(0)
    return [{"x": (random.standard_normal((1, 2, 8, 8)) * scale + shift).astype(np.float32)} for _ in range(count)]


def normalized(mean="0.1, -0.1", variance="5, 5"):
    return ir.from_onnx_text(NORMALIZED.replace("MEAN", mean).replace("VARIANCE", variance))


def elementwise(body, signature="(float[N] x) => (float[N] y)"):
    return ir.from_onnx_text(f"{HEAD} g {signature} {{ {body} }}")


def floats(*rows):
    return [{"x": np.array(row, np.float32)} for row in rows]


def test_right_data_is_met_with_silence():
    model = normalized()
    assert check(model, images()) == ()
    everything = observe(model, list("xcnrlky"), images(), channel_axes={"c": 1})
    assert warnings(model, everything) == ()


def test_only_the_first_normalization_is_looked_at():
    assert values_to_observe(normalized()) == {"x": None, "y": None, "c": 1}


@pytest.mark.parametrize("wrong", [{"scale": 255}, {"scale": 1 / 255}, {"shift": 5}])
def test_wrong_preprocessing_is_named(wrong):
    found = [text for text in check(normalized(), images(**wrong)) if "preprocessing" in text]
    assert len(found) == 1
    assert "'c'" in found[0]
    assert "'x' spans" in found[0]


def test_branches_have_first_normalizations_of_their_own():
    model = elementwise(
        "a = BatchNormalization(x, s, s, s, s) b = Neg(a) c = Add(b, z) d = BatchNormalization(c, s, s, s, s)"
        " e = Neg(z) f = BatchNormalization(e, s, s, s, s) y = Add(d, f)",
        "(float[N,2] x, float[N,2] z, float[2] s) => (float[N,2] y)",
    )
    assert values_to_observe(model) == {"x": 1, "z": None, "s": None, "y": None, "e": 1}


@pytest.mark.parametrize(("mean", "variance"), [("0, 0", "1, 1"), ("0.1, 0", "0, 0")])
def test_statistics_that_say_nothing_are_not_believed(mean, variance):
    assert not [text for text in check(normalized(mean, variance), images(scale=255)) if "preprocessing" in text]


def test_few_elements_say_nothing():
    assert check(normalized(), images(count=1, scale=255)) == ()


def test_equal_feeds_are_named():
    (text, *_) = check(elementwise("y = Neg(x)"), floats(*[[1, 2, 3]] * 4))
    assert text.startswith("all 4 feeds are the same")
    assert check(elementwise("y = Neg(x)"), floats([1, 2, 3])) == ()


def test_an_input_that_never_changes_beside_one_that_does_is_fine():
    model = elementwise("y = Mul(x, m)", "(float[N] x, float[N] m) => (float[N] y)")
    ones = np.ones(3, np.float32)
    assert check(model, [{**item, "m": ones} for item in floats([1, 2, 3], [3, 1, 2])]) == ()


def test_saturated_inputs_are_named_and_masks_are_not():
    random = np.random.default_rng(0)
    clipped = [np.clip(random.standard_normal(1000) * 100, 0, 1) for _ in range(3)]
    (text,) = check(elementwise("y = Neg(x)"), floats(*clipped))
    assert text.startswith("input 'x' is saturated: 99.")
    masks = [random.integers(0, 2, 1000) for _ in range(3)]
    assert check(elementwise("y = Neg(x)"), floats(*masks)) == ()


def test_nan_is_named():
    found = check(elementwise("y = Neg(x)"), floats([1, np.nan], [2, 3]))
    assert [text.split(" holds ")[0] for text in found] == ["input 'x'", "output 'y'"]


def test_constant_outputs_are_named():
    (text,) = check(elementwise("a = Neg(x) y = Relu(a)"), floats([1, 2], [2, 3]))
    assert text.startswith("the same for all feeds: output y")
    assert check(elementwise("y = Relu(x)"), floats([1, 2], [2, 3])) == ()


def test_integer_outputs_may_agree_a_few_times():
    model = elementwise("y = ArgMax(x)", "(float[N] x) => (int64[M] y)")
    few = floats([1, 2], [2, 3], [0, 9])
    assert check(model, few) == ()
    assert "output y" in "".join(check(model, few * 3))


def test_tensors_without_a_range_and_outliers_are_named():
    random = np.random.default_rng(0)
    rows = [random.standard_normal(20_000) for _ in range(2)]
    rows[0][7] = 5_000
    model = elementwise("a = Abs(x) b = Neg(a) c = Relu(b) d = Add(a, c) y = Neg(d)")
    found = warnings(model, observe(model, list("xabcdy"), floats(*rows)))
    assert found[0] == "zero in all feeds, so without a range: c"
    assert found[1].startswith("outliers, the worst 1,")
    assert found[1].endswith("percentile: a, b, d")


def test_zeros_that_data_does_not_reach_are_fine():
    text = "s = Shape(x) z = ConstantOfShape(s) a = Relu(z) y = Add(x, a)"
    model = elementwise(text)
    assert warnings(model, observe(model, list("xazy"), floats([1, 2], [2, 3]))) == ()


def test_what_was_not_observed_is_not_judged():
    assert warnings(normalized(), {}) == ()


@pytest.mark.parametrize(("passes", "is_looked_at"), [("quantize-weights", True), ("simplify", False)])
def test_a_run_with_lossy_stages_warns_of_its_data(passes, is_looked_at):
    wrong = optimizer.optimize(normalized(), passes=[passes], data=images(scale=255), timing=False).report
    named = [text for text in wrong.warnings if text.startswith("data: preprocessing looks wrong")]
    assert len(named) == is_looked_at
    assert named == [text for text in wrong.to_dict()["warnings"] if text.startswith("data: ")]
    assert ("preprocessing looks wrong" in wrong.to_text()) == is_looked_at


def test_right_and_generated_data_are_not_warned_of():
    for data in (images(), None):
        report = optimizer.optimize(normalized(), passes=["quantize-weights"], data=data, timing=False).report
        assert not any(text.startswith("data: ") for text in report.warnings)
