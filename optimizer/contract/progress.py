"""What is being done at the moment, and how much of it, for a terminal or a caller to show.

One object goes through a run: the manager says at which stage and pass it is, the evaluator and the passes say what
they do there, and call it with the share of it that is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    Show: TypeAlias = Callable[[str, float | None], object]


def nowhere(_doing: str, _share: float | None) -> None:
    """Show nothing."""


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        show: Called with what is being done, and the share of it that is done, 0 to 1; ``None`` if that is not known.
        place: The stage and the pass.
        doing: What is done there.
    """

    show: Show = nowhere
    place: tuple[str, ...] = ()
    doing: str = ""

    def at(self, *place: str) -> None:
        """Say where the run is now."""
        self.place = place
        self.begin("")

    def begin(self, doing: str) -> None:
        """Say what is done there from now on."""
        self.doing = doing
        self._show(None)

    def __call__(self, share: float) -> None:
        """Say how much of it is done, 0 to 1."""
        self._show(min(max(share, 0.0), 1.0))

    def _show(self, share: float | None) -> None:
        self.show(": ".join(text for text in (*self.place, self.doing) if text), share)
