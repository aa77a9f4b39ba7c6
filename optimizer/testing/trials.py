"""Runs of one pass on one model, each as the manager would start it: on a clone, in a context of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optimizer.contract.passes import Context, Pass, PassResult, Sites
from optimizer.contract.progress import Progress
from optimizer.engine.judge import RuntimeJudge
from optimizer.engine.setup import EvaluationSetup, set_up
from optimizer.errors import PreconditionError, ReferenceRunError
from optimizer.evaluation.feeds.generated import generate
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.validator import Validator
from optimizer.io.model import clone, load, to_proto
from optimizer.io.protos.ir_places import ir_places_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from optimizer.contract.choices import Choices
    from optimizer.contract.evaluator import Evaluator

_FEEDS = 6  # of which two validate and two select: enough to tell right from wrong
_BUDGET = 0.5  # so that lossy passes do something: random weights of a few channels are not redundant
_SECONDS = 20.0  # for a search; on small models it never takes as long


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that passes are tried on.

    Attributes:
        name: What messages call it.
        source: What ``optimizer.load`` takes; loaded anew for every pass.
        data: Feeds; generated if there are none.
        may_run: Whether models may be run.
    """

    name: str
    source: Any
    data: Any = None
    may_run: bool = True

    @cached_property
    def setup(self) -> EvaluationSetup | None:
        """What judges candidates; ``None`` where nothing may be run, or ONNX Runtime cannot run the model."""
        if not self.may_run:
            return None
        model = load(self.source)
        try:
            if self.data is not None:
                return set_up(model, self.data, shapes=None, threads=1, seed=0)
            split = generate(model, count=_FEEDS)
            judge = RuntimeJudge(
                Validator(model, split.validation),
                split.validation,
                Budget(rel_l2=_BUDGET, centered=None, agreement=None),
            )
            return EvaluationSetup(judge, split, ())
        except ReferenceRunError:
            return None


@dataclass(frozen=True)
class Run:
    """What one run of a pass gave.

    Attributes:
        result: The result of the pass; where it refused, the model as it was and no changes.
        proto: The model of the result.
        permitted: The (step, site) pairs that were permitted, in order.
        refusal: What it raised, if it refused.
    """

    result: PassResult
    proto: onnx.ModelProto
    permitted: tuple[tuple[str, str], ...] = ()
    refusal: PreconditionError | None = None

    @cached_property
    def content(self) -> bytes:
        """The bytes of the model's file."""
        return bytes(self.proto.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Trial:
    """A pass and a model.

    Attributes:
        tried: The pass.
        subject: The model.
        sites: What is denied in every run.
    """

    tried: Pass
    subject: Subject
    sites: Sites = field(default_factory=Sites, compare=False)

    @cached_property
    def reference(self) -> ir.Model:
        """The model as it was loaded, for this pass alone: what one pass breaks in it, no other one sees."""
        return load(self.subject.source)

    @cached_property
    def before(self) -> Run:
        """The model that every run starts from, as if nothing had been done to it."""
        self._original  # noqa: B018 - taken before the first run
        model = clone(self.reference)
        return Run(PassResult(model, {}), to_proto(model))

    @cached_property
    def plain(self) -> Run:
        """The run that the manager would start."""
        return self.run()

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The plain run, and the one under ``--no-run``, if it gave something else."""
        if self.subject.setup is None:
            return (self.plain,)
        blind = self.run(may_run=False)
        is_same = (blind.result.changes, blind.content) == (self.plain.result.changes, self.plain.content)
        return (self.plain,) if is_same else (self.plain, blind)

    @cached_property
    def replayed(self) -> Run:
        """That run again, by what its search decided; the run itself if it searched for nothing."""
        choices = self.plain.result.choices
        return self.plain if choices is None else self.run(choices=choices)

    def run(
        self,
        model: ir.Model | None = None,
        *,
        sites: Sites | None = None,
        choices: Choices | None = None,
        may_run: bool = True,
    ) -> Run:
        """Run the pass.

        Args:
            model: On a clone of this model; the reference by default.
            sites: What is denied besides.
            choices: What an earlier run decided; it goes through the JSON of a report.
            may_run: Whether models may be run, as far as the subject says so.

        Raises:
            AssertionError: If the pass raises anything but ``PreconditionError``.
        """
        before = self.before
        start = clone(self.reference if model is None else model)
        context = Context(
            self.reference,
            self._both(sites or Sites()),
            evaluator=self._evaluator() if may_run else None,
            choices=None if choices is None else _through_json(choices),
        )
        try:
            self.tried.requires(start, context)
            result = self.tried.run(start, context)
        except PreconditionError as refusal:
            return replace(before, refusal=refusal)
        except Exception as error:
            raise AssertionError(f"{self.about}: raised {type(error).__name__}: {error}") from error
        return Run(result, to_proto(result.model), tuple(context.sites.permitted))

    @property
    def about(self) -> str:
        """The pass and the model, for messages."""
        return f"{self.tried} on {self.subject.name!r}"

    def damage(self) -> str:
        """What is no longer as it was in the reference after the runs so far; empty if all is."""
        content, digests = self._original
        for (name, digest), (_, now) in zip(digests, _digests(self.reference), strict=False):
            if digest != now:
                return f"wrote into the shared tensor {name!r}: replace const_value instead"
        return (
            "" if content == to_proto(self.reference) else "changed the reference, which it was only given to look at"
        )

    @cached_property
    def _original(self) -> tuple[onnx.ModelProto, list[tuple[str, bytes]]]:
        return to_proto(self.reference), _digests(self.reference)

    def _evaluator(self) -> Evaluator | None:
        if self.subject.setup is None:
            return None
        return self.subject.setup.evaluator(
            self.reference, allow_generated=True, is_timed=False, time_limit=_SECONDS, progress=Progress()
        )

    def _both(self, sites: Sites) -> Sites:
        return Sites(
            self.sites.denied_steps | sites.denied_steps,
            self.sites.denied | sites.denied,
            {**self.sites.only, **sites.only},
        )


def _through_json(choices: Choices) -> Choices:
    return type(choices).from_json(json.loads(json.dumps(choices.to_json(), allow_nan=False)), "choices")


def _digests(model: ir.Model) -> list[tuple[str, bytes]]:
    """Every tensor of ``model`` by name, with the SHA-256 of its elements."""
    places = ir_places_of(model)
    stored = [value.const_value for graph in places.scopes for value in graph.initializers.values()]
    tensors = [*(tensor for tensor in stored if tensor is not None), *(tensor for *_, tensor in places.tensors)]
    return [(tensor.name or "", hashlib.sha256(tensor.tobytes()).digest()) for tensor in tensors]
