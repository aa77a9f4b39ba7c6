"""`prune-channels`: remove whole channels, neurons, heads and hidden units, repaired by those that stay.

Which channels stand and fall together is in ``optimizer.algorithms.channels.dependency.groups``, in which order they go
in ``optimizer.algorithms.channels.pruning.importance`` and ``optimizer.algorithms.channels.pruning.pruner``, how what
reads them is repaired in ``optimizer.algorithms.channels.pruning.repair``, and how many go in
``optimizer.algorithms.channels.pruning.search``: to a goal, and no further than the budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from optimizer.algorithms.channels import widths
from optimizer.algorithms.channels.pruning.importance import NEED_DATA, Importance
from optimizer.algorithms.channels.pruning.run import STEP, ChannelChoices, Goal, PruningRun
from optimizer.analysis import shape_inference
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.options import Only
from optimizer.contract.passes import Gain, Pass
from optimizer.errors import PreconditionError, UsageError
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Context, PassResult, Step

_ShareLeft: TypeAlias = Annotated[float, Only("above 0 and up to 1", lambda share: 0 < share <= 1)]


@dataclass(frozen=True)
class PruneChannels(NodeFilterOptions, Pass):
    """Remove channels with all that depends on them, as many as the budget allows, or up to a goal.

    Attributes:
        macs: Share of the multiplications to leave.
        params: Share of the kernels' weights to leave.
        latency: Share of the time to leave.
        importance: Of channels: by their weights (``l1``, ``l2``), the scales of BatchNormalization (``bn``), or on the
            calibration feeds by what they add to outputs (``activation``), or what is missing of these after the best
            repair (``error``). ``auto``: ``error`` with data, ``l2`` without.
        repair: Whether weights that stay are fitted to make up for those that go; ``auto``: with data.
        multiple: Widths stay multiples of it; ``auto`` is what the target's kernels like.
    """

    name: ClassVar[str] = "prune-channels"
    summary: ClassVar[str] = "remove channels, neurons and heads that matter least, and refit what reads them"
    gain: ClassVar[Gain] = Gain.LATENCY
    choices_type: ClassVar[type[ChannelChoices]] = ChannelChoices

    macs: _ShareLeft | None = None
    params: _ShareLeft | None = None
    latency: _ShareLeft | None = None
    importance: Literal["auto"] | Importance = "auto"
    repair: bool | Literal["auto"] = "auto"
    multiple: widths.Multiple = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        goals = {name: goal for name in ("macs", "params", "latency") if (goal := getattr(self, name)) is not None}
        if len(goals) > 1:
            raise UsageError(f"{', '.join(f'{name}={goal}' for name, goal in goals.items())}: give one goal")

    @property
    def exact(self) -> bool:
        """What is gone is gone."""
        return False

    def steps(self) -> Sequence[Step]:
        """The width groups of channels."""
        return (STEP,)

    def requires(self, model: ir.Model, context: Context) -> None:
        """Data for what needs it, and a goal where nothing may be run.

        Raises:
            PreconditionError: Saying which of these is missing and what to do.
        """
        super().requires(model, context)
        has_data = context.evaluator is not None and context.evaluator.has_data
        if not has_data and (self.importance in NEED_DATA or self.repair is True):
            what = "repair=true" if self.repair is True else f"importance={self.importance}"
            raise PreconditionError(f"{what} needs real inputs; give --data, or --allow-generated-data")
        if context.evaluator is None and context.choices is None:
            if self.latency is not None:
                raise PreconditionError("latency= needs runs; leave out --no-run")
            if self.macs is None and self.params is None:
                raise PreconditionError("to find what the budget allows needs runs; leave out --no-run, or give macs=")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Remove channels of ``model``."""
        work = clone(model)
        shape_inference.infer(work)  # on a copy: where nothing goes, the model is given back without them
        has_data = context.evaluator is not None and context.evaluator.has_data
        importance = ("error" if has_data else "l2") if self.importance == "auto" else self.importance
        repair = has_data if self.repair == "auto" else self.repair
        multiple = widths.resolve(self.multiple)
        goal = Goal(self.macs, self.params, self.latency)
        result = PruningRun(work, context, goal, importance, repair, multiple, self.node_filter).run()
        return result if result.changes else replace(result, model=model)
