"""What runs models for a pass, on feeds that no verdict is passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.contract.memo import Memo
    from optimizer.statistics.cross_moments import CrossMoments
    from optimizer.statistics.second_moments import SecondMoments
    from optimizer.statistics.tensor_statistics import Observation


class Evaluator(Protocol):
    """Runs models for a pass, on feeds that no verdict is passed on.

    Attributes:
        calibration: Feeds to take ranges and statistics from.
        has_data: Whether they are the user's, or made-up ones are allowed to calibrate.
        is_timed: Whether times may decide; if not, decide by size and structure.
        memo: What passes found out and may ask again in the same run.
    """

    calibration: Sequence[dict[str, Any]]
    has_data: bool
    is_timed: bool
    memo: Memo

    def observe(
        self, model: ir.Model, values: Sequence[str], channel_axes: Mapping[str, int] | None = None
    ) -> Mapping[str, Observation]:
        """Statistics of values by name over the calibration feeds; of channels too where an axis is given."""

    def second_moments(self, model: ir.Model, kernels: Sequence[str]) -> Iterator[tuple[str, SecondMoments]]:
        """Second moments of the rows that kernels multiply with, by first output, over the calibration feeds.

        They come one after the other in bounded memory: use each and let it go.
        """

    def cross_moments(
        self, model: ir.Model, reference: ir.Model, kernels: Sequence[str]
    ) -> Iterator[tuple[str, CrossMoments]]:
        """Moments of what kernels of ``model`` read with what ``reference`` answers under their outputs' names.

        They come one after the other, as ``second_moments`` do.
        """

    def budget_used(self, model: ir.Model) -> float:
        """The largest share of any limit of the budget that ``model`` uses on the selection feeds; 1 is all of it."""

    def seconds(self, model: ir.Model) -> float:
        """How long one inference takes: coarse, for choosing between candidates."""

    def profile(self, model: ir.Model) -> Mapping[str, float]:
        """Seconds of one inference by node name, as far as ONNX Runtime keeps the names."""

    def begin_stage(self, stages_left: int) -> None:
        """The manager says that a lossy stage begins, the first of ``stages_left``, which share the time."""

    def time_left(self) -> float:
        """Seconds that a search may still take."""
