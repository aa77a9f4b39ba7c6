"""The user's own measure of the task as the budget: a function, and how many points of it may be lost.

The function is called with the outputs of all feeds of one set, by name, and with the feeds themselves, in the same
order; labels are arrays of the feeds that are not inputs of the model. It returns one number, higher is better::

    budget used = max(reference - candidate, 0) / max_drop

A task metric is coarse: with 16 feeds one changed answer is 6 points, and until the first one changes it tells nothing.
So that searches have a direction, and new tries have something to be stricter in, a search sees the larger of that and
a share that grows with e, what is used of the default budget: ``0.85 e / (e + 2.4)``. It never reaches what a first try
may use, 0.9, so whatever the metric allows is allowed; a second try, at 0.3 or less, is about the default budget.
Verdicts go by the metric alone.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from optimizer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Outputs: TypeAlias = Sequence[Mapping[str, Any]]
    Function: TypeAlias = Callable[[Outputs, Outputs], float]

_MOST_GUIDANCE = 0.85
_HALF = 2.4  # e at which half of it is reached


class MetricError(Exception):
    """The function raised, or returned no finite number; the message is one line."""


@dataclass(frozen=True)
class Score:
    """What the reference and a candidate reach on the same feeds.

    Attributes:
        metric: The function's name.
        reference: The reference's points.
        candidate: The candidate's; ``None`` if it has none.
        max_drop: How many may be lost.
        trouble: Why the candidate has none.
    """

    metric: str
    reference: float
    candidate: float | None
    max_drop: float
    trouble: str = ""

    @property
    def drop(self) -> float | None:
        """How many points are lost; less than zero if some are gained."""
        return None if self.candidate is None else self.reference - self.candidate

    @property
    def budget_used(self) -> float:
        """How much of ``max_drop`` is used; 1 is all of it."""
        if self.drop is None:
            return math.inf
        lost = max(self.drop, 0.0)
        return lost / self.max_drop if self.max_drop > 0 else math.inf if lost > 0 else 0.0

    @property
    def failure(self) -> str:
        """Why this is too much; empty if it is not."""
        if self.candidate is None or self.drop is None:
            return f"{self.metric} has no value: {self.trouble}"
        if self.budget_used <= 1:
            return ""
        return (
            f"{self.metric} falls from {self.reference:.6g} to {self.candidate:.6g}, by {self.drop:.4g};"
            f" the limit is {self.max_drop:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values."""
        return {**asdict(self), "drop": self.drop}


@dataclass(frozen=True)
class TaskMetric:
    """A measure of the task, and how much of it may be lost.

    Attributes:
        function: Called with the outputs of all feeds and with the feeds; returns points, higher is better.
        max_drop: Points that a candidate may lose against the reference.
        name: What messages call it.
    """

    function: Function
    max_drop: float
    name: str

    @classmethod
    def of(cls, metric: str | Function, max_drop: float | None) -> TaskMetric:
        """From ``pkg.mod:function`` or a function, and a limit.

        Raises:
            UsageError: If there is no such function, or the limit is not a number from 0.
        """
        if max_drop is None:
            raise UsageError("a metric needs --max-drop: how many of its points may be lost")
        if not math.isfinite(max_drop) or max_drop < 0:
            raise UsageError(f"--max-drop {max_drop:g} is not a number of points from 0")
        function = load(metric) if isinstance(metric, str) else metric
        if not callable(function):
            raise UsageError(f"the metric is a {type(function).__name__}, not a function of outputs and feeds")
        name = metric if isinstance(metric, str) else getattr(function, "__name__", type(function).__name__)
        return cls(function, float(max_drop), name)

    def points(self, outputs: Outputs, feeds: Outputs) -> float:
        """What the function returns.

        Raises:
            MetricError: If it raises, or returns no finite number.
        """
        try:
            points = self.function(outputs, feeds)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise MetricError(f"it raised {type(error).__name__}{': ' if text else ''}{text}") from error
        try:
            number = float(points)
        except (TypeError, ValueError):
            raise MetricError(f"it returned a {type(points).__name__}, not a number") from None
        if not math.isfinite(number):
            raise MetricError(f"it returned {number}")
        return number

    def reference_points(self, outputs: Outputs, feeds: Outputs) -> float:
        """The reference's points.

        Raises:
            UsageError: If the function fails: it must be able to judge the model as it is.
        """
        try:
            return self.points(outputs, feeds)
        except MetricError as error:
            raise UsageError(f"metric {self.name} cannot judge the reference: {error}") from error

    def score(self, reference: float, outputs: Outputs, feeds: Outputs) -> Score:
        """A candidate's points; one that the function fails on is over any limit."""
        try:
            return Score(self.name, reference, self.points(outputs, feeds), self.max_drop)
        except MetricError as error:
            return Score(self.name, reference, None, self.max_drop, str(error))


def guidance(budget_used: float) -> float:
    """What a search sees, beside a task metric, of ``budget_used``: what is used of the default budget, from 0."""
    return _MOST_GUIDANCE if math.isinf(budget_used) else _MOST_GUIDANCE * budget_used / (budget_used + _HALF)


def load(text: str) -> Function:
    """The function that ``pkg.mod:function`` names.

    Raises:
        UsageError: If the text, the module or the function is wrong.
    """
    module_name, colon, attribute = text.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(f"--metric {text}: write it as package.module:function")
    try:
        function: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(f"--metric {text}: cannot import {module_name}: {type(error).__name__}: {error}") from error
    for attribute_name in attribute.split("."):
        function = getattr(function, attribute_name, None)
    if not callable(function):
        raise UsageError(f"--metric {text}: {module_name} has no function {attribute!r}")
    return function  # type: ignore[no-any-return]  # that it takes outputs and feeds shows when it is called
