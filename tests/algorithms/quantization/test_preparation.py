"""equalize and smooth of insert-qdq: int8 moves answers less, float answers do not move, and the report counts it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import optimizer
from optimizer.algorithms.quantization.rescaling.preparation import prepared
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import UsageError
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import load, to_proto
from small_nets import Net, feeds

SHAPE, ROWS = (1, 8, 12, 12), (4, 6, 32)
PLAIN = "search=false,rounding=nearest"
OUTLIER = 64


def conv_net(spread=4):
    """Conv, Relu, Conv, whose channels in between have scales that the second undoes."""
    net = Net(*SHAPE)
    sizes = np.exp2(net.random.integers(-spread, spread + 1, 16)).astype(np.float32)
    first = net.random.standard_normal((16, 8, 3, 3)) * sizes[:, None, None, None]
    second = net.random.standard_normal((8, 16, 1, 1)) / sizes[:, None, None]
    inner = net.node("Relu", net.node("Conv", "x", net.constant(first.astype(np.float32))))
    return net.model(net.node("Conv", inner, net.constant(second.astype(np.float32))))


def product_net(*, normalized=True):
    """A MatMul of what has an outlier channel, which says no more than the others."""
    net = Net(*ROWS)
    gain = np.ones(ROWS[-1], np.float32)
    gain[3] = OUTLIER
    weight = net.random.standard_normal((ROWS[-1], 16)).astype(np.float32)
    weight[3] /= OUTLIER
    value = "x"
    if normalized:
        value = net.node("LayerNormalization", "x", net.constant(gain), axis=-1)
    return net.model(net.node("MatMul", value, net.constant(weight)))


def product_feeds(*, normalized=True, **options):
    data = feeds(*ROWS, **options)
    for feed in data:
        feed["x"][..., 3] *= 1 if normalized else OUTLIER
    return data


def quantized(model, options, data, **more):
    spec = f"insert-qdq:{options}"
    return optimizer.optimize(model, passes=[spec], data=data, budget="none", timing=False, **more)


def notes(result):
    return {note.subject: note.reason for stage in result.report.stages for one in stage.passes for note in one.notes}


def answers(model, data):
    opened = session(load(model), optimize=False)
    return [array for feed in data for array in opened.run(feed).values()]


def error(model, result, data):
    want, got = (np.concatenate([array.ravel() for array in answers(one, data)]) for one in (model, result.model))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def lab_of(model, data):
    reference = load(model)
    return RuntimeEvaluator(reference, load_feeds(data, session(reference).inputs), Budget())


def test_equalized_weights_of_one_scale_move_answers_less():
    model, data = conv_net(), feeds(*SHAPE, seed=9)
    plain = quantized(model, f"{PLAIN},granularity=tensor", feeds(*SHAPE))
    better = quantized(model, f"{PLAIN},granularity=tensor,equalize=true", feeds(*SHAPE))
    assert error(model, better, data) < 0.2 * error(model, plain, data)
    assert notes(better)["equalize"].endswith("channels equalized")
    assert better.report.stages[0].passes[0].changes["channels equalized"] > 4
    assert "equalize" not in notes(plain)


def test_equalized_activations_where_rows_have_scales():
    model, data = conv_net(), feeds(*SHAPE, seed=9)
    plain = quantized(model, PLAIN, feeds(*SHAPE))
    better = quantized(model, f"{PLAIN},equalize=true", feeds(*SHAPE))
    assert error(model, better, data) < 0.5 * error(model, plain, data)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_smoothed_outliers_move_answers_less(normalized, granularity):
    model = product_net(normalized=normalized)
    seen, unseen = (product_feeds(normalized=normalized, seed=seed) for seed in (1, 9))
    plain = quantized(model, f"{PLAIN},granularity={granularity}", seen)
    better = quantized(model, f"{PLAIN},granularity={granularity},smooth=0.5", seen)
    assert error(model, better, unseen) < 0.5 * error(model, plain, unseen)
    assert notes(better)["smooth"].endswith("channels smoothed" if normalized else "Mul inserted")
    onnx.checker.check_model(better.model, full_check=True)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (conv_net(), feeds(*SHAPE), {"equalize": True, "smooth": 0.0}),
        (product_net(), product_feeds(), {"equalize": False, "smooth": 0.5}),
        (product_net(normalized=False), product_feeds(normalized=False), {"equalize": True, "smooth": 0.75}),
    ],
)
def test_no_float_answer_changes_by_a_bit(model, data, options, per_channel):
    evaluator, first, kept = lab_of(model, data), load(model), to_proto(load(model))
    found = prepared(first, evaluator, **options, per_channel=per_channel)
    assert found.changes
    assert to_proto(first) == kept, "a clone is rescaled"
    for want, got in zip(answers(model, data), answers(found.model, data), strict=True):
        np.testing.assert_array_equal(want, got)
    assert prepared(first, evaluator, **options, per_channel=per_channel) is found


def test_off_leaves_the_model_itself():
    model = load(conv_net())
    evaluator = lab_of(conv_net(), feeds(*SHAPE))
    assert prepared(model, evaluator, equalize=False, smooth=0.0, per_channel=True).model is model


def test_nothing_to_rescale_is_said():
    result = quantized(conv_net(), f"{PLAIN},smooth=0.5", feeds(*SHAPE))
    assert notes(result)["smooth"] == "nothing to rescale"


def test_types_that_are_inferred_meanwhile_are_not_declared():
    model = conv_net()
    del model.graph.value_info[:]
    found = prepared(load(model), lab_of(model, feeds(*SHAPE)), equalize=True, smooth=0.5, per_channel=False)
    assert found.changes
    assert not to_proto(found.model).graph.value_info


def test_a_model_that_stays_float_comes_back_as_it_was():
    model = conv_net()
    options = {"passes": ["insert-qdq:equalize=true"], "data": feeds(*SHAPE), "timing": False}
    result = optimizer.optimize(model, budget="rel_l2=1e-9", **options)
    assert result.report.verdict == "unchanged"
    assert result.model.graph == model.graph


@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (conv_net(), feeds(*SHAPE), "equalize=true"),
        (product_net(normalized=False), product_feeds(normalized=False), "smooth=0.5,granularity=tensor"),
    ],
)
def test_a_replay_repeats_it_byte_by_byte(tmp_path, model, data, options):
    first = quantized(model, options, data)
    report = tmp_path / "report.json"
    report.write_text(json.dumps(first.report.to_dict()))
    again = quantized(model, options, data, replay=report)
    assert again.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_an_alpha_out_of_bounds_is_refused(alpha):
    with pytest.raises(UsageError, match="from 0"):
        quantized(product_net(), f"smooth={alpha}", product_feeds())
