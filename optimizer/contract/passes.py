"""The contract of a pass: what it declares, what it is given, what it returns.

A pass is a frozen dataclass. Its fields are its options, its class variables say what it is for, and ``run``
rewrites the model that it is given (a clone: tensors are shared with the reference, so a pass replaces
``const_value`` and never writes into a tensor's array). What it leaves alone it names in ``notes``.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from optimizer.contract.choices import Choices
from optimizer.contract.options import fitted, toml_value, type_hints
from optimizer.contract.progress import Progress
from optimizer.errors import PreconditionError
from optimizer.graph import queries
from optimizer.io.protos.preserved import TRAINING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import Field

    import onnx_ir as ir

    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.refusal import RefusalLog

_Choices = TypeVar("_Choices", bound=Choices)


class Gain(enum.Enum):
    """What a pass is for; the manager asks a stage for the gains of its passes."""

    SIZE = "size"
    COMPRESSED_SIZE = "compressed size"
    LATENCY = "latency"
    ACCURACY = "accuracy"
    ENABLING = "enabling others"


@dataclass(frozen=True)
class Note:
    """Something a pass left alone, or wants said.

    Attributes:
        subject: Its name.
        reason: Why it is left alone, or what is to be said of it.
        skipped: Whether it is left alone.
    """

    subject: str
    reason: str
    skipped: bool = True


@dataclass(frozen=True)
class Step:
    """A named part of a pass that the manager can leave out when a check fails."""

    name: str
    summary: str


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    Attributes:
        model: The rewritten model (the one that was given, or another).
        changes: Real changes by kind, ``{"initializers merged": 12}``; kinds with zero changes are left out.
        notes: What was left alone, and why.
        choices: What a search decided, of the pass's ``choices_type``; ``--replay`` hands it back in the context.
    """

    model: ir.Model
    changes: Mapping[str, int]
    notes: Sequence[Note] = ()
    choices: Choices | None = None


@dataclass
class Sites:
    """Which steps may touch which places; the manager narrows this when it bisects a failure.

    A site is a stable name of a place in the graph, usually ``graph.site(node)``. ``permits`` remembers, in order,
    what it permitted, so that the manager can split the list.

    Attributes:
        denied_steps: Steps that may do nothing.
        denied: Single places that a step may not touch.
        only: For the steps named here, the only places that they may touch.
        permitted: Filled by ``permits``.
        refusals: Filled by passes with why their steps refused what they looked at; ``None`` where nothing asks.
    """

    denied_steps: frozenset[str] = frozenset()
    denied: frozenset[tuple[str, str]] = frozenset()
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    permitted: dict[tuple[str, str], None] = field(default_factory=dict)
    refusals: RefusalLog | None = None

    def permits(self, step: str, site: str) -> bool:
        """Whether ``step`` may change ``site``; call it only where the change would be made."""
        if step in self.denied_steps or (step, site) in self.denied:
            return False
        if step in self.only and site not in self.only[step]:
            return False
        self.permitted[step, site] = None
        if self.refusals is not None:
            self.refusals.forget(step, site)
        return True

    def allows_step(self, step: str) -> bool:
        """Whether ``step`` may run at all."""
        return step not in self.denied_steps


@dataclass(frozen=True)
class Context:
    """What the manager offers a pass while it runs.

    Attributes:
        reference: The model as it was loaded; never changed.
        sites: Permission for each change, see ``Sites``.
        seed: Seed of everything random.
        target: The machine that the model is for; ``auto`` is this one.
        progress: Called with the share of the work done, 0 to 1; ``begin`` names a new piece of work.
        evaluator: Feeds, errors and times for a lossy pass; ``None`` where nothing may be run.
        budget_limit: The share of the budget that the stage may use, as ``Evaluator.budget_used`` counts it.
        choices: What an earlier run of the pass decided and is to be repeated; ``None`` if it decides itself.
        verbose: Whether the report lists what steps refused, so that ``sites.refusals`` collects it.
    """

    reference: ir.Model
    sites: Sites = field(default_factory=Sites)
    seed: int = 0
    target: str = "auto"
    progress: Progress = field(default_factory=Progress)
    evaluator: Evaluator | None = None
    budget_limit: float = 1.0
    choices: Choices | None = None
    verbose: bool = False

    def replayed(self, kind: type[_Choices]) -> _Choices | None:
        """What an earlier run decided, of the ``choices_type`` of the pass; ``None`` if the pass decides itself.

        Raises:
            TypeError: If it is of another type.
        """
        if self.choices is not None and not isinstance(self.choices, kind):
            raise TypeError(f"choices are {type(self.choices).__name__}, the pass has {kind.__name__}")
        return self.choices


@dataclass(frozen=True)
class Pass(ABC):
    """One named rewrite; its dataclass fields are its options, fitted to their types as it is made.

    What types, and conditions on values, an option may declare is in ``optimizer.contract.options``. A pass that has
    options which exclude each other says so in a ``__post_init__`` of its own, after ``super().__post_init__()``.

    Attributes:
        name: What specs call it.
        summary: One line for ``onnxhone passes``.
        gain: What it is for.
        must_pay: Whether an exact stage that it changed is undone unless it measures faster, even one that the user
            named; where times are not measured, one that the user named is kept if the file is smaller. Other exact
            stages need only not measure slower.
        choices_type: The class in which a run tells what it decided by measurement, if it does.
        keeps_training: Whether a training part of the model stays valid, which refers to values by name.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    gain: ClassVar[Gain]
    must_pay: ClassVar[bool] = False
    choices_type: ClassVar[type[Choices] | None] = None
    keeps_training: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Fit the options to the types that they declare.

        Raises:
            UsageError: If a value does not fit.
        """
        for option in self.option_fields():
            object.__setattr__(self, option.name, self.fitted_option(option.name, getattr(self, option.name)))

    @property
    def exact(self) -> bool:
        """Whether outputs stay equal up to rounding with these options."""
        return True

    @property
    def oldest_opset(self) -> int:
        """The first version of the operator set that the pass can work with; a class variable where it is fixed."""
        return 0

    def requires(self, model: ir.Model, context: Context) -> None:  # noqa: ARG002 - for passes that ask for more
        """Check that the pass can work on ``model``; a pass that asks for more calls ``super().requires`` first.

        Raises:
            PreconditionError: With the reason, if it cannot.
        """
        if not self.keeps_training and TRAINING in model.graph.meta:
            raise PreconditionError("the model has a training part, whose references to values would break")
        opset, oldest = queries.opset_version(model), self.oldest_opset
        if opset < oldest:
            raise PreconditionError(
                f"needs opset {oldest}, the model has {opset}: run upgrade-opset:version={oldest} first"
            )

    def steps(self) -> Sequence[Step]:
        """Named parts that the manager may leave out alone; ``run`` asks ``context.sites`` for each."""
        return ()

    @abstractmethod
    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Rewrite ``model`` and say what was done."""

    @classmethod
    def option_fields(cls) -> tuple[Field[Any], ...]:
        """The options, in the order in which the constructor takes them: those by keyword alone come last."""
        options = [option for option in fields(cls) if option.init]
        return tuple(sorted(options, key=lambda option: bool(option.kw_only)))

    @classmethod
    def fitted_option(cls, option: str, value: Any) -> Any:
        """``value`` as the type that ``option``, by its Python name, declares.

        Raises:
            UsageError: If it does not fit.
        """
        return fitted(value, type_hints(cls)[option], f"{cls.name}:{option.replace('_', '-')}")

    def options(self) -> dict[str, Any]:
        """All options with their final values, by their Python names."""
        return {option.name: getattr(self, option.name) for option in self.option_fields()}

    def __str__(self) -> str:
        changed = [
            f"{option.name.replace('_', '-')}={toml_value(getattr(self, option.name))}"
            for option in self.option_fields()
            if getattr(self, option.name) != option.default
        ]
        return f"{self.name}:{','.join(changed)}" if changed else self.name
