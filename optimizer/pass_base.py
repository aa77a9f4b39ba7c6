"""The contract of a pass: what it declares, what it is given, what it returns.

A pass is a frozen dataclass. Its fields are its options, its class variables say what it is for, and ``run``
rewrites the model that it is given (a clone: tensors are shared with the reference, so a pass replaces
``const_value`` and never writes into a tensor's array). What it leaves alone it names in ``notes``.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir


class Gain(enum.Enum):
    """What a pass is for; the manager asks a stage for the gains of its passes."""

    SIZE = "size"
    COMPRESSED_SIZE = "compressed size"
    LATENCY = "latency"
    ACCURACY = "accuracy"
    ENABLING = "enabling others"


@dataclass(frozen=True)
class Note:
    """Something a pass left alone or wants said: the subject's name and the reason."""

    subject: str
    reason: str


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
    """

    model: ir.Model
    changes: Mapping[str, int]
    notes: Sequence[Note] = ()


@dataclass
class Sites:
    """Which steps may touch which places; the manager denies some when it bisects a failure.

    A site is a stable name of a place in the graph, usually ``graph.site(node)``. ``permits`` keeps the order in
    which places were asked for, so that the manager can split the list.
    """

    denied_steps: frozenset[str] = frozenset()
    denied: frozenset[tuple[str, str]] = frozenset()
    permitted: dict[tuple[str, str], None] = field(default_factory=dict)

    def permits(self, step: str, site: str) -> bool:
        """Whether ``step`` may change ``site``; call it only where the change would be made."""
        if step in self.denied_steps or (step, site) in self.denied:
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
        progress: Called with the share of the work done, 0 to 1.
    """

    reference: ir.Model
    sites: Sites = field(default_factory=Sites)
    seed: int = 0
    target: str = "auto"
    progress: Callable[[float], None] = lambda _share: None


@dataclass(frozen=True)
class Pass(ABC):
    """One named rewrite; its dataclass fields are its options, checked in ``__post_init__``."""

    name: ClassVar[str]
    summary: ClassVar[str]
    gain: ClassVar[Gain]

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
