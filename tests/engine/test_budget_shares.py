"""Lossy stages: their part of the budget, stricter tries, and undone where they bring nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.contract.choices import Choices
from optimizer.contract.passes import Context, Gain, Pass, PassResult
from optimizer.engine import budget_shares
from optimizer.engine.attempt import Failure, Restrictions
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.engine.manager import PassManager, Settings
from optimizer.engine.replay import limits_from
from optimizer.errors import CheckFailedError
from optimizer.evaluation.feeds.sets import split
from optimizer.evaluation.runtime.timing import Latency
from optimizer.evaluation.validation.budget import Budget
from optimizer.graph import editing, traversal
from optimizer.recipes.spec import Stage


@dataclass(frozen=True)
class Count(Choices):
    count: int


@dataclass(frozen=True)
class Blur(Pass):
    """Removes as many of the Relu nodes as it may; each uses a tenth of the budget, or more than it thinks."""

    name: ClassVar[str] = "blur"
    summary: ClassVar[str] = "removes Relu nodes"
    gain: ClassVar[Gain] = Gain.LATENCY
    choices_type: ClassVar[type[Count]] = Count
    step: float = 0.1

    @property
    def exact(self):
        return False

    def run(self, model, context):
        replayed = context.replayed(Count)
        if replayed is not None:
            count = replayed.count
        else:
            gone = traversal.count_nodes(context.reference) - traversal.count_nodes(model)
            count = max(int(context.budget_limit / self.step + 1e-9) - gone, 0)
        doomed = [node for node in model.graph if node.op_type == "Relu"][:count]
        for node in doomed:
            editing.bypass(node, node.inputs[0])
        return PassResult(model, {"blurred": editing.remove_unused(doomed)}, choices=Count(count))


@dataclass
class Judge:
    """Each missing node uses ``real`` of the budget; time is the number of nodes, if that makes a difference."""

    reference: ir.Model
    real: float = 0.1
    is_faster: bool = True
    verdicts: int = 0

    def budget_used(self, candidate):
        missing = traversal.count_nodes(self.reference) - traversal.count_nodes(candidate)
        return missing * self.real

    def failure(self, candidate, stage, allowance):
        self.verdicts += 1
        share = self.budget_used(candidate)
        return Failure("budget", f"uses {share:.2f}", budget_used=share) if share > allowance + 1e-9 else None

    def latency(self, reference, candidate):
        faster = self.is_faster and traversal.count_nodes(candidate) < traversal.count_nodes(reference)
        ratio = 0.5 if faster else 1.0
        return Latency(ratio=ratio, low=ratio - 0.01, high=ratio + 0.01, pairs=5)


def chain(length=12):
    body = "\n".join(f"v{i + 1} = Relu(v{i})" for i in range(length))
    head = '<ir_version: 10, opset_import: ["": 20]> g (float[2] v0) => (float[2] out)'
    return ir.from_onnx_text(f"{head} {{ {body}\nout = Neg(v{length}) }}")


def run(*passes, named=True, decisions=None, strict=False, **judge):
    model = chain()
    asked = Judge(model, **judge)
    manager = PassManager(model, Context(reference=model), asked, Settings(strict=strict))
    return manager.run([Stage((member,), named) for member in passes], decisions), asked


def blurred(outcome):
    return [stage.changes.get("blurred", 0) for stage in outcome.stages]


def test_a_lossy_stage_may_use_the_whole_budget():
    outcome, _ = run(Blur())
    assert blurred(outcome) == [10]


def test_two_stages_share_the_squared_error():
    outcome, judge = run(Blur(), Blur())
    first, second = blurred(outcome)
    assert first == int(10 / math.sqrt(2))
    assert judge.budget_used(outcome.model) <= 1
    assert first + second == 10


def test_two_stages_share_the_time_for_searches():
    now, model, left = [100.0], chain(), []
    feeds = [{"v0": np.ones(2, np.float32)}] * 3
    evaluator = RuntimeEvaluator(
        model, split(feeds.__getitem__, 3, "iterable"), Budget(), is_timed=False, time_limit=60, wall=lambda: now[0]
    )

    @dataclass(frozen=True)
    class Slow(Blur):
        def run(self, model, context):
            left.append(context.evaluator.time_left())
            now[0] += 20
            return super().run(model, context)

    PassManager(model, Context(model, evaluator=evaluator), Judge(model)).run([Stage((Slow(),)), Stage((Slow(),))])
    assert left == [30, 40], "half of 60 seconds, and then all that is left"


def test_a_stage_that_misjudges_itself_tries_again_with_a_stricter_aim():
    outcome, judge = run(Blur(), real=0.2)
    assert 3 <= blurred(outcome)[0] <= 5
    assert judge.budget_used(outcome.model) <= 1
    assert judge.verdicts > 1


def test_a_stage_that_never_holds_is_undone_with_the_reason():
    outcome, judge = run(Blur(step=1e-3), real=5.0)
    assert blurred(outcome) == [0]
    assert "uses" in outcome.stages[0].reason
    assert judge.verdicts <= budget_shares.TRIES
    assert traversal.count_nodes(outcome.model) == 13


def test_strict_raises_instead():
    with pytest.raises(CheckFailedError, match="uses"):
        run(Blur(step=1e-3), real=5.0, strict=True)


def test_a_preset_stage_that_is_no_faster_is_undone():
    outcome, _ = run(Blur(), named=False, is_faster=False)
    assert blurred(outcome) == [0]
    assert "brings nothing" in outcome.stages[0].reason


def test_a_named_stage_that_is_no_faster_is_kept_and_the_report_says_so():
    outcome, _ = run(Blur(), is_faster=False)
    assert blurred(outcome) == [10]
    assert "brings nothing" in outcome.stages[0].reason


def test_choices_are_in_the_decisions_and_are_repeated():
    first, _ = run(Blur())
    decisions = [stage.decisions for stage in first.stages]
    assert decisions[0][0]["choices"] == {"count": 10}
    limits = [[limits_from(one, Blur(), "report") for one in stage] for stage in decisions]
    again, _ = run(Blur(step=0.5), decisions=limits)
    assert blurred(again) == [10]


def test_a_replay_keeps_what_was_kept_for_its_speed():
    decisions = [[Restrictions(choices=Count(3))]]
    outcome, _ = run(Blur(), named=False, is_faster=False, decisions=decisions)
    assert blurred(outcome) == [3]


@given(st.floats(0, 1), st.integers(1, 5))
def test_equal_parts_of_what_is_left_add_up_to_the_budget(used, stages):
    for left in range(stages, 0, -1):
        part = budget_shares.share_for_stage(used, left)
        assert used - 1e-12 <= part <= 1 + 1e-12
        used = part
    assert used == pytest.approx(1)


@given(st.floats(1.01, 1e6), st.floats(0.1, 1))
def test_each_try_aims_lower_and_none_is_the_last_one_over(excess, limit):
    aims = []

    class Failed:
        failure = Failure("budget", "", budget_used=excess * limit)

    def probe(aim):
        aims.append(aim)
        return Failed

    budget_shares.within_budget(probe, limit)
    assert len(aims) == budget_shares.TRIES
    assert aims == sorted(aims, reverse=True)
    assert aims[-1] < aims[0]
