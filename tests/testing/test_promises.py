"""Each promise catches a pass that breaks it, in one line that names pass, model, fault and promise."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import pytest

from optimizer import Choices, Gain, Note, Pass, PassResult, PreconditionError, Sites, Step, UsageError, check_pass
from optimizer.graph import editing, queries, traversal
from optimizer.testing import pass_checks

MODEL = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) <float[4] w = {1, 2, 3, 4}>
{ a = Relu (x)  b = Abs (a)  c = Abs (b)  d = Add (c, w)  y = Sigmoid (d) }"""
STEP = Step("drop-abs", "an Abs behind a Relu or an Abs goes")


def model():
    return onnx.parser.parse_model(MODEL)


@dataclass(frozen=True)
class Good(Pass):
    """Drops what does nothing; the faulty ones below do one thing of it wrong."""

    name: ClassVar[str] = "drop-abs"
    summary: ClassVar[str] = "drop Abs where nothing is negative"
    gain: ClassVar[Gain] = Gain.LATENCY

    def steps(self):
        return (STEP,)

    def run(self, model, context):
        dropped = [node for node in traversal.nodes(model) if self.goes(node) and self.permits(node, context)]
        for node in dropped:
            editing.bypass(node, node.inputs[0])
        editing.remove_unused(dropped)
        return PassResult(model, {"nodes removed": len(dropped)} if dropped else {})

    def goes(self, node):
        before = queries.producer_of_first_input(node, "Relu", "Abs")
        return queries.is_standard(node, "Abs") and before is not None and not node.outputs[0].is_graph_output()

    def permits(self, node, context):
        return context.sites.permits(STEP.name, queries.site(node))


class NotFrozen(Good):
    """Is no dataclass of its own."""


@dataclass(frozen=True)
class BadName(Good):
    name: ClassVar[str] = "Drop_Abs"


@dataclass(frozen=True)
class Raises(Good):
    def run(self, model, context):
        raise KeyError("w")


@dataclass(frozen=True)
class RefusesSilently(Good):
    def requires(self, model, context):
        raise PreconditionError


@dataclass(frozen=True)
class EmptyNote(Good):
    def run(self, model, context):
        return PassResult(model, {}, [Note("x", "")])


@dataclass(frozen=True)
class BreaksTheModel(Good):
    def run(self, model, context):
        model.graph[0].op_type = "Reluu"
        return PassResult(model, {"nodes spoilt": 1})


@dataclass(frozen=True)
class WritesIntoATensor(Good):
    def run(self, model, context):
        proto = model.graph.initializers["w"].const_value._proto  # as a view of its bytes would
        proto.ClearField("float_data")
        proto.raw_data = np.zeros(4, np.float32).tobytes()
        return PassResult(model, {"weights cleared": 1})


@dataclass(frozen=True)
class EditsTheReference(Good):
    def run(self, model, context):
        context.reference.graph.doc_string = "seen"
        return PassResult(model, {})


@dataclass(frozen=True)
class RenamesAnOutput(Good):
    def run(self, model, context):
        model.graph.outputs[0].name = "result"
        return PassResult(model, {"outputs renamed": 1})


@dataclass(frozen=True)
class LosesMetadata(Good):
    def run(self, model, context):
        model.graph[0].metadata_props.clear()
        return PassResult(model, {"texts removed": 1})


@dataclass(frozen=True)
class RepeatsAName(Good):
    def run(self, model, context):
        for node in model.graph:
            node.name = "node"
        return PassResult(model, {"nodes named": len(model.graph)})


@dataclass(frozen=True)
class CountsZero(Good):
    def run(self, model, context):
        return PassResult(model, {"nodes removed": 0})


@dataclass(frozen=True)
class CountsMatches(Good):
    def run(self, model, context):
        return PassResult(model, {"nodes found": 2})


@dataclass(frozen=True)
class CountsNothing(Good):
    def run(self, model, context):
        return PassResult(super().run(model, context).model, {})


@dataclass(frozen=True)
class AsksForAnUnnamedStep(Good):
    def steps(self):
        return (Step("other", "is not asked for"),)


@dataclass(frozen=True)
class AsksNobody(Good):
    def permits(self, node, context):
        return True


@dataclass(frozen=True)
class AsksAndDoesItAnyway(Good):
    def permits(self, node, context):
        super().permits(node, context)
        return context.sites.allows_step(STEP.name)


@dataclass(frozen=True)
class Wavers(Good):
    def run(self, model, context):
        model.graph[0].name = str(random.random())
        return PassResult(model, {"nodes named": 1})


@dataclass(frozen=True)
class Name(Choices):
    name: str


@dataclass(frozen=True)
class Names(Choices):
    names: set[str]


@dataclass(frozen=True)
class ForgetsWhatItChose(Good):
    choices_type: ClassVar[type[Choices]] = Name

    def run(self, model, context):
        model.graph[0].name = "chosen" if context.choices is None else "repeated"
        return PassResult(model, {"nodes named": 1}, choices=Name("chosen"))


@dataclass(frozen=True)
class HasChoicesOfNoType(Good):
    def run(self, model, context):
        model.graph[0].name = "chosen"
        return PassResult(model, {"nodes named": 1}, choices=Name("chosen"))


@dataclass(frozen=True)
class ChoosesNoJson(Good):
    choices_type: ClassVar[type[Choices]] = Names

    def run(self, model, context):
        model.graph[0].name = "chosen"
        return PassResult(model, {"nodes named": 1}, choices=Names({"chosen"}))


@dataclass(frozen=True)
class NeverRests(Good):
    def run(self, model, context):
        model.graph[0].name = f"{model.graph[0].name}_"
        return PassResult(model, {"nodes named": 1})


@dataclass(frozen=True)
class ChangesOutputs(Good):
    def run(self, model, context):
        changed = [node for node in model.graph if node.op_type == "Sigmoid"]
        for node in changed:
            node.op_type = "Tanh"
        return PassResult(model, {"nodes changed": len(changed)} if changed else {})


@dataclass(frozen=True)
class DoesNotRun(Good):
    def run(self, model, context):
        model.graph.outputs[0].producer().op_type = "IsNaN"
        return PassResult(model, {"nodes changed": 1})

    @property
    def exact(self):
        return False


@pytest.mark.parametrize(
    ("faulty", "promise", "words"),
    [
        (NotFrozen(), "is a value", "no frozen dataclass"),
        (BadName(), "is a value", "names are small letters"),
        (Raises(), "", "raised KeyError: 'w'"),
        (RefusesSilently(), "works or refuses", "refuses without a reason"),
        (EmptyNote(), "works or refuses", "a note without subject or reason"),
        (BreaksTheModel(), "works or refuses", "broke the model: .*Reluu"),
        (WritesIntoATensor(), "keeps the reference", "wrote into the shared tensor 'w'"),
        (EditsTheReference(), "keeps the reference", "changed the reference"),
        (RenamesAnOutput(), "keeps the interface", "outputs changed from y"),
        (LosesMetadata(), "keeps the interface", r"lost the metadata \{'of': 'Relu'\}"),
        (RepeatsAName(), "keeps names unique", "two nodes are called 'node'"),
        (CountsZero(), "counts changes", "counts 'nodes removed': 0"),
        (CountsMatches(), "counts changes", "but the model is the same"),
        (CountsNothing(), "counts changes", "counts nothing, but changed graph.node"),
        (AsksForAnUnnamedStep(), "asks for permission", "'drop-abs', which steps\\(\\) does not name"),
        (AsksNobody(), "asks for permission", "though all its steps are denied"),
        (AsksAndDoesItAnyway(), "asks for permission", "changes 'Abs -> b' though 'drop-abs' is denied there"),
        (Wavers(), "is deterministic", "two models in two runs: they differ in graph.node"),
        (ForgetsWhatItChose(), "repeats its choices", "another model from its choices"),
        (HasChoicesOfNoType(), "repeats its choices", "choices of the type Name, its choices_type is None"),
        (ChoosesNoJson(), "repeats its choices", "choices that are no JSON"),
        (NeverRests(), "rests", "changes its own output: {'nodes named': 1}"),
        (ChangesOutputs(), "gives a model that runs", "output 'y' has relative L2"),
        (DoesNotRun(), "gives a model that runs", "the result: ONNX Runtime cannot load the model"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Pass) else "",
)
def test_a_fault_is_caught(faulty, promise, words):
    proto = model()
    proto.graph.node[0].metadata_props.add(key="of", value="Relu")
    with pytest.raises(AssertionError, match=words) as caught:
        check_pass(faulty, proto, promises=[promise] if promise else [])
    assert str(caught.value).startswith(f"{faulty} on 'the model': ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"({promise})") or not promise


def test_the_same_pass_without_a_fault_is_accepted():
    assert check_pass(Good(), model()).changes == {"nodes removed": 2}
    for _, check in pass_checks():
        check(Good())


def test_what_is_denied_is_denied_in_every_run():
    sites = Sites(denied=frozenset({("drop-abs", "Abs -> b")}))
    assert check_pass(Good(), model(), sites=sites).changes == {"nodes removed": 1}
    assert list(sites.permitted) == [("drop-abs", "Abs -> c")]


def test_a_refusal_is_handed_on():
    @dataclass(frozen=True)
    class Refuses(Good):
        def requires(self, model, context):
            raise PreconditionError("has no Abs")

    with pytest.raises(PreconditionError, match="has no Abs"):
        check_pass(Refuses(), model())


def test_an_unknown_promise_is_refused():
    with pytest.raises(UsageError, match="no promise 'rest'; did you mean 'rests'"):
        check_pass(Good(), model(), promises=["rest"])


def test_the_feeds_may_be_the_users():
    feeds = [{"x": np.ones((2, 4), np.float32)} for _ in range(3)]
    assert check_pass(Good(), model(), data=feeds).changes
