"""The contract of a pass: what it declares, what it is given, what it returns.

A pass is a frozen dataclass. Its fields are its options, its class variables say what it is for, and ``run``
rewrites the model that it is given (a clone: tensors are shared with the reference, so a pass replaces
``const_value`` and never writes into a tensor's array). What it leaves alone it names in ``notes``.
"""

from __future__ import annotations

import enum
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from optimizer.contract.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import Field

    import onnx_ir as ir

    from optimizer.contract.evaluator import Evaluator


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
        left: Whether it is left alone.
    """

    subject: str
    reason: str
    left: bool = True


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
        choices: What a search decided, as JSON values; ``--replay`` hands it back as ``Context.choices``.
    """

    model: ir.Model
    changes: Mapping[str, int]
    notes: Sequence[Note] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)


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
    """

    denied_steps: frozenset[str] = frozenset()
    denied: frozenset[tuple[str, str]] = frozenset()
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    permitted: dict[tuple[str, str], None] = field(default_factory=dict)

    def permits(self, step: str, site: str) -> bool:
        """Whether ``step`` may change ``site``; call it only where the change would be made."""
        if step in self.denied_steps or (step, site) in self.denied:
            return False
        if step in self.only and site not in self.only[step]:
            return False
        self.permitted[step, site] = None
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
        allowance: The share of the budget that the stage may use, as ``Lab.share`` counts it.
        choices: What an earlier run of the pass decided and is to be repeated; ``None`` if it decides itself.
    """

    reference: ir.Model
    sites: Sites = field(default_factory=Sites)
    seed: int = 0
    target: str = "auto"
    progress: Progress = field(default_factory=Progress)
    evaluator: Evaluator | None = None
    budget_limit: float = 1.0
    choices: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Pass(ABC):
    """One named rewrite; its dataclass fields are its options, checked in ``__post_init__``.

    Attributes:
        name: What specs call it.
        summary: One line for ``onnxhone passes``.
        gain: What it is for.
        must_pay: Whether an exact stage that it changed is undone unless it measures faster, even one that the user
            named; where times are not measured, one that the user named is kept if the file is smaller. Other exact
            stages need only not measure slower.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    gain: ClassVar[Gain]
    must_pay: ClassVar[bool] = False

    @property
    def exact(self) -> bool:
        """Whether outputs stay equal up to rounding with these options."""
        return True

    def requires(self, model: ir.Model, context: Context) -> None:  # noqa: B027 - optional hook
        """Check that the pass can work on ``model``.

        Raises:
            PreconditionError: With the reason, if it cannot.
        """

    def steps(self) -> Sequence[Step]:
        """Named parts that the manager may leave out alone; ``run`` asks ``context.sites`` for each."""
        return ()

    @abstractmethod
    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Rewrite ``model`` and say what was done."""

    @classmethod
    def option_fields(cls) -> tuple[Field[Any], ...]:
        """The options: the dataclass fields that the constructor takes."""
        return tuple(option for option in fields(cls) if option.init)

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


def toml_value(value: object) -> str:
    """``value`` as a TOML value: what the spec parser reads back as the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return toml_value(value.value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(toml_value(element) for element in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
