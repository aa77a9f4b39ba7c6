"""equalize-channels: int8 behind it moves answers less, float answers do not move, and the report counts it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import optimizer
from optimizer.contract.passes import Context, Sites
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import PreconditionError, UsageError
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import clone, load, to_proto
from optimizer.testing import check_pass
from passes.equalize_channels import CHANNELS, EqualizeChannels
from small_nets import Net, feeds

SHAPE, ROWS = (1, 8, 12, 12), (4, 6, 32)
PLAIN = "insert-qdq:search=false,rounding=nearest"
WEIGHTS, ACTIVATIONS = "equalize-channels", "equalize-channels:method=activations"
SMOOTH = "equalize-channels:method=smooth"
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


def quantized(model, spec, data, **more):
    return optimizer.optimize(model, passes=[spec], data=data, budget="none", timing=False, **more)


def changes(result):
    return result.report.stages[0].passes[0].changes


def answers(model, data):
    opened = session(load(model), optimize=False)
    return [array for feed in data for array in opened.run(feed).values()]


def error(model, result, data):
    want, got = (np.concatenate([array.ravel() for array in answers(one, data)]) for one in (model, result.model))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def evaluator_of(model, data):
    reference = load(model)
    return RuntimeEvaluator(reference, load_feeds(data, session(reference).inputs), Budget())


@pytest.mark.parametrize(("spec", "granularity", "share"), [(WEIGHTS, "tensor", 0.2), (ACTIVATIONS, "channel", 0.5)])
def test_equalized_channels_move_answers_less(spec, granularity, share):
    model, data = conv_net(), feeds(*SHAPE, seed=9)
    qdq = f"{PLAIN},granularity={granularity}"
    plain, better = quantized(model, qdq, feeds(*SHAPE)), quantized(model, f"{spec}+{qdq}", feeds(*SHAPE))
    assert error(model, better, data) < share * error(model, plain, data)
    assert changes(better)["channels equalized"] > 4


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_smoothed_outliers_move_answers_less(normalized, granularity):
    model, qdq = product_net(normalized=normalized), f"{PLAIN},granularity={granularity}"
    seen, unseen = (product_feeds(normalized=normalized, seed=seed) for seed in (1, 9))
    plain, better = quantized(model, qdq, seen), quantized(model, f"{SMOOTH}+{qdq}", seen)
    assert error(model, better, unseen) < 0.5 * error(model, plain, unseen)
    assert changes(better).keys() == {"channels smoothed" if normalized else "Mul inserted"}
    onnx.checker.check_model(better.model, full_check=True)


@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (conv_net(), feeds(*SHAPE), {}),
        (conv_net(), feeds(*SHAPE), {"method": "activations"}),
        (product_net(), product_feeds(), {"method": "smooth"}),
        (product_net(normalized=False), product_feeds(normalized=False), {"method": "smooth", "alpha": 0.75}),
    ],
)
def test_no_float_answer_changes_by_a_bit(model, data, options):
    first, kept = load(model), to_proto(load(model))
    context = Context(first, evaluator=evaluator_of(model, data))
    found = EqualizeChannels(**options).run(clone(first), context)
    assert found.changes
    assert to_proto(first) == kept, "the tensors of a clone are replaced, not written into"
    for want, got in zip(answers(model, data), answers(found.model, data), strict=True):
        np.testing.assert_array_equal(want, got)


def test_weights_alone_need_no_run_and_the_second_run_finds_nothing():
    model = load(conv_net())
    assert check_pass(EqualizeChannels(), model, may_run=False).changes["channels equalized"] > 4
    result = optimizer.optimize(conv_net(), passes=[WEIGHTS], run=False)
    assert result.report.stages[0].kept


@pytest.mark.parametrize("method", ["activations", "smooth"])
def test_activations_need_real_inputs(method):
    model = load(conv_net())
    member = EqualizeChannels(method=method)
    with pytest.raises(PreconditionError, match="--no-run"):
        member.requires(model, Context(model))
    (ran, _) = optimizer.optimize(conv_net(), passes=[f"{member}+insert-qdq"], timing=False).report.stages[0].passes
    assert ran.skipped.startswith("activations need real inputs")


@pytest.mark.parametrize(
    "sites",
    [Sites(denied_steps=frozenset({CHANNELS.name})), Sites(only={CHANNELS.name: frozenset()})],
)
def test_the_manager_can_deny_it(sites):
    model = load(conv_net())
    assert not EqualizeChannels().run(clone(model), Context(model, sites)).changes
    assert not sites.permitted


def test_nothing_to_rescale_is_left_as_it_is():
    model = load(conv_net())
    result = EqualizeChannels(method="smooth").run(
        clone(model), Context(model, evaluator=evaluator_of(conv_net(), feeds(*SHAPE)))
    )
    assert not result.changes
    assert to_proto(result.model) == to_proto(model)


def test_what_a_factor_does_not_pass_is_named():
    net = Net(*SHAPE)
    weights = [net.constant(net.random.standard_normal((8, 8, 1, 1)).astype(np.float32)) for _ in range(2)]
    model = load(net.model(net.node("Conv", net.node("Sigmoid", net.node("Conv", "x", weights[0])), weights[1])))
    result = EqualizeChannels().run(clone(model), Context(model))
    assert not result.changes
    assert any("Sigmoid" in note.reason for note in result.notes)


def test_types_that_are_inferred_meanwhile_are_not_declared():
    model = conv_net()
    del model.graph.value_info[:]
    found = EqualizeChannels().run(load(model), Context(load(model)))
    assert found.changes
    assert not to_proto(found.model).graph.value_info


def test_a_model_that_stays_float_comes_back_as_it_was():
    model = conv_net()
    options = {"passes": [f"{WEIGHTS}+insert-qdq"], "data": feeds(*SHAPE), "timing": False}
    result = optimizer.optimize(model, budget="rel_l2=1e-9", **options)
    assert result.report.verdict == "unchanged"
    assert result.model.graph == model.graph


@pytest.mark.parametrize(
    ("model", "data", "spec"),
    [
        (conv_net(), feeds(*SHAPE), f"{ACTIVATIONS}+insert-qdq"),
        (product_net(normalized=False), product_feeds(normalized=False), f"{SMOOTH}+insert-qdq:granularity=tensor"),
    ],
)
def test_a_replay_repeats_it_byte_by_byte(tmp_path, model, data, spec):
    first = quantized(model, spec, data)
    report = tmp_path / "report.json"
    report.write_text(json.dumps(first.report.to_dict()))
    again = quantized(model, spec, data, replay=report)
    assert again.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("options", ["alpha=-0.1", "alpha=1.5", "method=both"])
def test_options_out_of_bounds_are_refused(options):
    with pytest.raises(UsageError, match=options.split("=")[0]):
        quantized(product_net(), f"equalize-channels:{options}", product_feeds())


@pytest.mark.parametrize("option", ["equalize=true", "smooth=0.5"])
def test_insert_qdq_has_no_such_options_any_more(option):
    with pytest.raises(UsageError, match=f"no option of insert-qdq '{option.split('=')[0]}'"):
        quantized(conv_net(), f"insert-qdq:{option}", feeds(*SHAPE))
