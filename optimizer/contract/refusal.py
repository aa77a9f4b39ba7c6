"""Why something that could have been done is left undone: a value with the reason, which a type checker can narrow.

A function that gives back either a result or the reason why there is none returns ``X | Refusal``, and its callers ask
``isinstance(result, Refusal)``. A refusal is as true as any other object: ``if result`` does not tell the two apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from optimizer.graph import queries

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Refusal:
    """Why it is not done.

    Attributes:
        reason: One line in the field's words, ``"the weight has other users"``.
    """

    reason: str


@dataclass(frozen=True)
class RefusalCount:
    """How often a step refused for one reason.

    Attributes:
        step: The name of the step, for `simplify` a rule.
        reason: Why it refused.
        count: At how many nodes.
        example: The site of the first of them.
    """

    step: str
    reason: str
    count: int
    example: str

    def to_dict(self) -> dict[str, Any]:
        """The count as JSON values."""
        return asdict(self)


class RefusalLog:
    """What steps refused, by node: each counts once, with the reason that was given last."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str] = {}

    def add(self, step: str, refusal: Refusal, node: ir.Node) -> None:
        """``step`` refused at ``node``."""
        self._reasons[step, queries.site(node)] = refusal.reason

    def forget(self, step: str, site: str) -> None:
        """``step`` did not refuse at ``site`` in the end."""
        self._reasons.pop((step, site), None)

    def counts(self) -> tuple[RefusalCount, ...]:
        """One count for each step and reason, in the order of their first nodes."""
        sites: dict[tuple[str, str], list[str]] = {}
        for (step, site), reason in self._reasons.items():
            sites.setdefault((step, reason), []).append(site)
        return tuple(RefusalCount(step, reason, len(found), found[0]) for (step, reason), found in sites.items())
