"""The manager keeps what holds, undoes what does not, and names the culprit: down to the step and the place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.contract.passes import Context, Gain, Note, Pass, PassResult, Step
from optimizer.engine.attempt import Failure, Restrictions
from optimizer.engine.manager import PassManager, Settings
from optimizer.engine.replay import limits_from
from optimizer.errors import CheckFailedError, PreconditionError
from optimizer.evaluation.runtime.timing import Latency
from optimizer.graph import editing, names, queries, traversal
from optimizer.recipes.spec import Stage


def chain(length: int) -> ir.Model:
    body = "\n".join(f"v{i + 1} = Identity(v{i})" for i in range(length))
    head = '<ir_version: 10, opset_import: ["": 20]> g (float[2] v0) => (float[2] out)'
    return ir.from_onnx_text(f"{head} {{ {body}\nout = Relu(v{length}) }}")


@dataclass(frozen=True)
class DropIdentities(Pass):
    """Removes Identity nodes; even outputs by the step ``even``, odd ones by ``odd``."""

    name: ClassVar[str] = "drop-identities"
    summary: ClassVar[str] = "removes Identity nodes"
    gain: ClassVar[Gain] = Gain.LATENCY

    def steps(self):
        return (Step("even", ""), Step("odd", ""))

    def run(self, model, context):
        changed = 0
        for node in list(traversal.nodes(model)):
            if node.op_type != "Identity":
                continue
            step = "odd" if int(node.outputs[0].name[1:]) % 2 else "even"
            if context.sites.permits(step, queries.site(node)) and editing.bypass(node, node.inputs[0]):
                changed += editing.remove_unused([node])
        return PassResult(model, {"nodes removed": changed}, (Note("v0", "is an input"),))


@dataclass(frozen=True)
class Misbehaving(Pass):
    """Does one wrong thing."""

    name: ClassVar[str] = "misbehaving"
    summary: ClassVar[str] = "does one wrong thing"
    gain: ClassVar[Gain] = Gain.SIZE
    how: str = "raise"

    def requires(self, model, context):
        if self.how == "require":
            raise PreconditionError("needs a Conv")

    def run(self, model, context):
        node = next(traversal.nodes(model))
        match self.how:
            case "raise":
                node.replace_input_with(0, None)
                raise RuntimeError("half-way\nbroken")
            case "cycle":
                node.replace_input_with(0, model.graph.outputs[0])
            case "rename":
                model.graph.outputs[0].name = "other"
            case "reshape":
                model.graph.inputs[0].shape = ir.Shape([3])
            case "metadata":
                model.metadata_props["written"] = "by a pass"
            case "grow":
                node.doc_string = "x" * 1000
        return PassResult(model, {"things": 1})


@dataclass
class FakeJudge:
    """Fails candidates that miss one of ``needed`` (values), and times by the number of nodes."""

    needed: frozenset[str] = frozenset()
    slow_without: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def failure(self, candidate, stage, allowance):
        self.asked.append("failure")
        missing = sorted(self.needed - names.names_in_use(candidate))
        return Failure("outputs", f"differs without {missing}") if missing else None

    def latency(self, reference, candidate):
        self.asked.append("latency")
        slow = bool(self.slow_without - names.names_in_use(candidate))
        slow_before = bool(self.slow_without - names.names_in_use(reference))
        ratio = 1.5 if slow and not slow_before else 1.0
        return Latency(ratio=ratio, low=ratio - 0.01, high=ratio + 0.01, pairs=5)


def run(model, *passes, judge=None, decisions=None, **settings):
    manager = PassManager(model, Context(reference=model), judge, Settings(**settings))
    return manager.run([Stage((member,)) for member in passes], decisions)


def ops(model):
    return [node.op_type for node in traversal.nodes(model)]


def test_keeps_what_holds():
    model = chain(4)
    outcome = run(model, DropIdentities(), judge=FakeJudge())
    assert ops(outcome.model) == ["Relu"]
    assert outcome.stages[0].kept
    assert outcome.stages[0].changes == {"nodes removed": 4}
    assert outcome.stages[0].nodes == 1
    assert outcome.latency.verdict == "same"
    assert ops(model) == ["Identity"] * 4 + ["Relu"], "the reference is never changed"


def test_undoes_only_the_place_that_fails_and_names_it():
    outcome = run(chain(32), DropIdentities(), judge=FakeJudge(needed=frozenset({"v7"})))
    assert names.names_in_use(outcome.model) >= {"v7"}
    assert outcome.stages[0].nodes == 2
    (denial,) = outcome.stages[0].passes[0].undone
    assert (denial.step, denial.site) == ("odd", "Identity -> v7")
    assert "differs without ['v7']" in denial.reason


def test_a_step_that_fails_at_many_places_is_left_out_whole():
    needed = frozenset({"v1", "v5", "v9", "v13", "v17", "v21"})
    outcome = run(chain(24), DropIdentities(), judge=FakeJudge(needed=needed))
    assert names.names_in_use(outcome.model) >= needed
    assert outcome.stages[0].passes[0].undone[-1].site is None
    assert outcome.stages[0].passes[0].undone[-1].step == "odd"
    assert outcome.stages[0].nodes == 13


@given(st.sets(st.integers(1, 20), max_size=3))
def test_whatever_breaks_is_found(broken):
    needed = frozenset(f"v{number}" for number in broken)
    outcome = run(chain(20), DropIdentities(), judge=FakeJudge(needed=needed))
    assert outcome.stages[0].nodes == 1 + len(needed)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raise", "misbehaving raised RuntimeError: half-way broken"),
        ("cycle", "misbehaving broke the model"),
        ("rename", "outputs changed from out"),
        ("reshape", "inputs changed from v0"),
        ("metadata", "metadata_props changed"),
        ("grow", "the file would grow"),
    ],
)
def test_a_pass_that_misbehaves_is_undone(how, words):
    model = chain(2)
    outcome = run(model, Misbehaving(how), DropIdentities(), judge=FakeJudge())
    first, second = outcome.stages
    assert not first.kept
    assert words in first.reason
    assert second.kept, "the next stage starts from the last good model"
    assert ops(outcome.model) == ["Relu"]


@pytest.mark.parametrize("how", ["raise", "cycle", "rename", "grow"])
def test_strict_stops_at_the_first_failure(how):
    with pytest.raises(CheckFailedError):
        run(chain(2), Misbehaving(how), judge=FakeJudge(), strict=True)


def test_a_precondition_is_a_reason_not_a_failure():
    outcome = run(chain(2), Misbehaving("require"), strict=True)
    assert outcome.stages[0].reason == "skipped: needs a Conv"


def test_in_a_stage_of_two_the_culprit_is_left_out():
    model = chain(3)
    manager = PassManager(model, Context(reference=model), FakeJudge())
    outcome = manager.run([Stage((DropIdentities(), Misbehaving("rename")))])
    good, bad = outcome.stages[0].passes
    assert good.changes == {"nodes removed": 3}
    assert bad.undone
    assert outcome.stages[0].kept


def test_a_step_that_makes_it_slower_is_undone():
    outcome = run(chain(8), DropIdentities(), judge=FakeJudge(slow_without=frozenset({"v2"})))
    (denial,) = outcome.stages[0].passes[0].undone
    assert (denial.step, denial.site) == ("even", None)
    assert "1.500 times as long" in denial.reason
    assert outcome.latency.verdict == "same"
    assert outcome.stages[0].nodes == 5


def test_decisions_replay_without_timing():
    model = chain(8)
    first = run(model, DropIdentities(), judge=FakeJudge(slow_without=frozenset({"v2"})))
    judge = FakeJudge()
    decisions = [[limits_from(one, DropIdentities(), "report") for one in stage.decisions] for stage in first.stages]
    again = run(model, DropIdentities(), judge=judge, decisions=decisions, timing=False)
    assert ir.to_onnx_text(again.model) == ir.to_onnx_text(first.model)
    assert "latency" not in judge.asked


def test_nothing_to_do_gives_back_the_reference_and_runs_nothing():
    model, judge = chain(0), FakeJudge()
    outcome = run(model, DropIdentities(), judge=judge)
    assert outcome.model is model
    assert outcome.stages[0].reason == "nothing to do"
    assert outcome.latency is None
    assert judge.asked == []


def test_without_a_judge_nothing_is_run_and_structure_still_holds():
    outcome = run(chain(2), Misbehaving("cycle"), DropIdentities())
    assert [stage.kept for stage in outcome.stages] == [False, True]
    assert outcome.latency is None


def test_out_of_time_undoes_the_whole_stage():
    model = chain(64)
    ticks = iter(range(10**9))
    manager = PassManager(
        model,
        Context(reference=model),
        FakeJudge(needed=frozenset({"v7"})),
        Settings(time_limit=3),
        clock=lambda: float(next(ticks)),
    )
    outcome = manager.run([Stage((DropIdentities(),))])
    assert not outcome.stages[0].kept
    assert outcome.model is model


def test_limits_round_trip():
    limits = Restrictions(steps=frozenset({"odd"}), sites=frozenset({("even", "Identity -> v2")}))
    manager_decision = {"skip": False, "steps": ["odd"], "sites": [["even", "Identity -> v2"]]}
    assert limits_from(manager_decision, DropIdentities(), "report") == limits
