"""What one output of the candidate is from the reference's: any ONNX value, added up over feeds.

Tensors are compared by number (``optimizer.evaluation.validation.metrics``); sequences, maps and optionals item by
item. A value of another kind, dtype, shape or length has no number: it is a failure with its own words.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.evaluation.validation.metrics import ErrorSums, is_discrete, sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.evaluation.validation.task_metric import Score


@dataclass(frozen=True)
class OutputError:
    """How far an output is from the reference's, over all feeds; ``None`` where a measure has no meaning.

    Attributes:
        name: The output.
        max_abs: Largest difference of a finite number.
        rel_l2: Relative L2 over all feeds.
        sqnr: The same in dB; ``None`` if nothing differs.
        cosine: Cosine of the angle to the reference.
        agreement: Share of equal arg-max along the last axis, or of equal elements where they are no floats.
    """

    name: str
    max_abs: float | None = None
    rel_l2: float | None = None
    sqnr: float | None = None
    cosine: float | None = None
    agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; what is not finite is text."""
        fields = asdict(self)
        return {key: str(value) if value in {np.inf, -np.inf} else value for key, value in fields.items()}


@dataclass(frozen=True)
class Difference:
    """The difference of an output; differences of two feeds add up.

    Attributes:
        floats: Sums over all float tensors.
        discrete: Sums over all integers, booleans and strings.
        worst: Largest relative L2 of one feed, over finite elements.
        from_zero: Largest difference in a feed whose reference is zero throughout.
        failure: Why the two cannot be compared; empty if they can.
        rms: Largest root of the mean squared error of one feed, over finite elements.
    """

    floats: ErrorSums = field(default_factory=ErrorSums)
    discrete: ErrorSums = field(default_factory=ErrorSums)
    worst: float = 0.0
    from_zero: float = 0.0
    failure: str = ""
    rms: float = 0.0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.floats + other.floats,
            self.discrete + other.discrete,
            max(self.worst, other.worst),
            max(self.from_zero, other.from_zero),
            self.failure or other.failure,
            max(self.rms, other.rms),
        )

    @property
    def misplaced_share(self) -> float:
        """Share of float elements that are NaN or infinite on one side only, or otherwise."""
        return self.floats.misplaced / self.floats.elements if self.floats.elements else 0.0

    def error(self, name: str) -> OutputError:
        """The numbers for the report."""
        if self.failure:
            return OutputError(name)
        if not self.floats.elements:
            return OutputError(name, agreement=self.discrete.agreement)
        relative = self.floats.rel_l2
        return OutputError(
            name,
            max_abs=self.floats.max_abs,
            rel_l2=relative,
            sqnr=self.floats.sqnr if relative else None,
            cosine=self.floats.cosine,
            agreement=self.floats.agreement if self.floats.rows else None,
        )


def difference(reference: Any, candidate: Any, *, values: bool = True) -> Difference:
    """Compare one output of one feed.

    Args:
        reference: Array, list, dict, number, text or ``None``.
        candidate: The same of the candidate.
        values: Whether numbers are compared, or kind, dtype and shape alone.
    """
    found = _compare(reference, candidate, values)
    floats = found.floats
    if not floats.reference2:
        return Difference(floats, found.discrete, from_zero=floats.max_abs, failure=found.failure)
    rms = math.sqrt(floats.error2 / floats.elements)
    return Difference(floats, found.discrete, floats.finite_rel_l2, failure=found.failure, rms=rms)


def _compare(reference: Any, candidate: Any, values: bool) -> Difference:
    if reference is None or candidate is None:
        return Difference() if reference is candidate else _failed("is present", reference, candidate)
    if isinstance(reference, dict) or isinstance(candidate, dict):
        return _compare_maps(reference, candidate, values)
    if isinstance(reference, (list, tuple)) or isinstance(candidate, (list, tuple)):
        return _compare_lists(reference, candidate, values)
    left, right = _array(reference), _array(candidate)
    if left.dtype != right.dtype:
        return _failed("has dtype", left.dtype, right.dtype)
    if left.shape != right.shape:
        return _failed("has shape", list(left.shape), list(right.shape))
    if not values:
        return Difference()
    found = sums(left, right)
    return Difference(discrete=found) if is_discrete(left.dtype) else Difference(floats=found)


def _compare_maps(reference: Any, candidate: Any, values: bool) -> Difference:
    if not isinstance(reference, dict) or not isinstance(candidate, dict):
        return _failed("is a", type(reference).__name__, type(candidate).__name__)
    if reference.keys() != candidate.keys():
        return _failed("has keys", sorted(map(str, reference)), sorted(map(str, candidate)))
    keys = list(reference)
    return _compare_items([reference[key] for key in keys], [candidate[key] for key in keys], values)


def _compare_lists(reference: Any, candidate: Any, values: bool) -> Difference:
    if not isinstance(reference, (list, tuple)) or not isinstance(candidate, (list, tuple)):
        return _failed("is a", type(reference).__name__, type(candidate).__name__)
    if len(reference) != len(candidate):
        return _failed("has length", len(reference), len(candidate))
    return _compare_items(reference, candidate, values)


def _compare_items(reference: Any, candidate: Any, values: bool) -> Difference:
    total = Difference()
    for left, right in zip(reference, candidate, strict=True):
        total += _compare(left, right, values)
    return total


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value, dtype=object) if isinstance(value, (str, bytes)) else np.asarray(value)


def _failed(what: str, wanted: object, found: object) -> Difference:
    return Difference(failure=f"{what} {str(found)[:80]} instead of {str(wanted)[:80]}")


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate's outputs hold.

    Attributes:
        ok: Whether they do.
        reason: If not, one line: output, measure, limit.
        outputs: The errors of all outputs with optimizations on; empty if the candidate does not run.
        share: Of a lossy candidate: the largest share that it uses of any limit of the budget.
        guide: The same as a search counts it; differs where the budget is a task metric.
        score: What the task metric says, if the budget has one.
    """

    ok: bool
    reason: str
    outputs: tuple[OutputError, ...] = ()
    share: float = 0.0
    guide: float = 0.0
    score: Score | None = None
