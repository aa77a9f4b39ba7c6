"""An exact stage that must pay is kept where it measures faster, and undone where it does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir
import pytest

from optimizer.contract.passes import Context, Gain, Pass, PassResult
from optimizer.engine.manager import PassManager, Settings
from optimizer.engine.replay import limits_from
from optimizer.evaluation.runtime.timing import Latency
from optimizer.graph import editing
from optimizer.recipes.spec import Stage

CHAIN = """<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y)
    { a = Identity(x) b = Identity(a) y = Relu(b) }"""


@dataclass(frozen=True)
class DropFirst(Pass):
    """Takes the first Identity out, or only says that it did."""

    name: ClassVar[str] = "drop-first"
    summary: ClassVar[str] = "removes an Identity"
    gain: ClassVar[Gain] = Gain.LATENCY
    must_pay: ClassVar[bool] = True
    really: bool = True

    def run(self, model, context):
        node = next((node for node in model.graph if node.op_type == "Identity"), None)
        if node is None:
            return PassResult(model, {})
        if self.really:
            editing.bypass(node, node.inputs[0])
            editing.remove_unused([node])
        return PassResult(model, {"nodes removed": 1})


@dataclass(frozen=True)
class AlsoDrops(DropFirst):
    name: ClassVar[str] = "also-drops"
    must_pay: ClassVar[bool] = False


@dataclass
class Judge:
    """Holds every output; each comparison has the next of ``ratios``."""

    ratios: list[float] = field(default_factory=list)

    def failure(self, candidate, stage, allowance):
        return None

    def latency(self, reference, candidate):
        ratio = self.ratios.pop(0) if self.ratios else 1.0
        return Latency(ratio=ratio, low=ratio - 0.01, high=ratio + 0.01, pairs=5)


def run(*passes, ratios=(), decisions=None, judge=True, timing=True):
    model = ir.from_onnx_text(CHAIN)
    asked = Judge(list(ratios)) if judge else None
    manager = PassManager(model, Context(reference=model), asked, Settings(timing=timing))
    return manager.run([Stage((member,)) for member in passes], decisions)


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, True), (0.96, True), (0.99, False), (1.0, False), (1.5, False)])
def test_it_is_kept_where_it_measures_faster(ratio, kept):
    (stage,) = run(DropFirst(), ratios=[ratio]).stages
    assert stage.kept is kept
    assert kept or f"no faster: {ratio:.3f} times as long" in stage.reason


def test_other_exact_stages_need_not_pay():
    must, need_not = run(DropFirst(), AlsoDrops(), ratios=[1.0]).stages
    assert (must.kept, need_not.kept) == (False, True)


def test_nothing_is_timed_where_nothing_was_changed():
    judge_would_say_faster = [1.0, 0.5]
    outcome = run(DropFirst(), DropFirst(), DropFirst(), ratios=[0.5, 0.5, *judge_would_say_faster])
    assert [stage.kept for stage in outcome.stages] == [True, True, False]
    assert outcome.latency.ratio == 1.0, "the next comparison is that of the whole"


@pytest.mark.parametrize("judge", [True, False])
@pytest.mark.parametrize("really", [True, False])
def test_size_decides_where_times_are_not_measured(judge, really):
    (stage,) = run(DropFirst(really=really), judge=judge, timing=False).stages
    assert stage.kept is really
    assert really or "no smaller" in stage.reason


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_a_replay_repeats_what_was_decided(ratio):
    first = run(DropFirst(), ratios=[ratio])
    decisions = [[limits_from(one, DropFirst(), "report") for one in stage.decisions] for stage in first.stages]
    again = run(DropFirst(), decisions=decisions, timing=False)
    assert again.stages[0].kept is first.stages[0].kept
    assert ir.to_onnx_text(again.model) == ir.to_onnx_text(first.model)
