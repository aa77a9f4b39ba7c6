"""How far one output of the candidate is from the reference's: any ONNX value, added up over feeds.

Tensors are compared by number (``optimizer.evaluation.validation.metrics``); sequences, maps and optionals element by
element. A value of another type, dtype, shape or length has no number: it is a failure with its own words.
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
        agreement: Share of equal arg-max along the last axis, or of equal elements where they are not floats.
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
        worst_rel_l2: Largest relative L2 of one feed, over finite elements.
        from_zero: Largest difference in a feed whose reference is zero throughout.
        failure: Why the two cannot be compared; empty if they can.
        worst_rms: Largest root of the mean squared error of one feed, over finite elements.
    """

    floats: ErrorSums = field(default_factory=ErrorSums)
    discrete: ErrorSums = field(default_factory=ErrorSums)
    worst_rel_l2: float = 0.0
    from_zero: float = 0.0
    failure: str = ""
    worst_rms: float = 0.0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.floats + other.floats,
            self.discrete + other.discrete,
            max(self.worst_rel_l2, other.worst_rel_l2),
            max(self.from_zero, other.from_zero),
            self.failure or other.failure,
            max(self.worst_rms, other.worst_rms),
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
        values: Whether numbers are compared, or type, dtype and shape alone.
    """
    error = _compare(reference, candidate, values)
    floats = error.floats
    # A reference of zeros: the error relative to it is infinite, so its size counts.
    if not floats.reference2:
        return Difference(floats, error.discrete, from_zero=floats.max_abs, failure=error.failure)
    rms = math.sqrt(floats.error2 / floats.elements)
    return Difference(floats, error.discrete, floats.finite_rel_l2, failure=error.failure, worst_rms=rms)


def _compare(reference: Any, candidate: Any, values: bool) -> Difference:
    if reference is None or candidate is None:
        return Difference() if reference is candidate else _failed("is present", reference, candidate)
    if isinstance(reference, dict) or isinstance(candidate, dict):
        return _compare_maps(reference, candidate, values)
    if isinstance(reference, (list, tuple)) or isinstance(candidate, (list, tuple)):
        return _compare_lists(reference, candidate, values)
    reference_array, candidate_array = _array(reference), _array(candidate)
    if reference_array.dtype != candidate_array.dtype:
        return _failed("has dtype", reference_array.dtype, candidate_array.dtype)
    if reference_array.shape != candidate_array.shape:
        return _failed("has shape", list(reference_array.shape), list(candidate_array.shape))
    if not values:
        return Difference()
    error_sums = sums(reference_array, candidate_array)
    return Difference(discrete=error_sums) if is_discrete(reference_array.dtype) else Difference(floats=error_sums)


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
    for reference_element, candidate_element in zip(reference, candidate, strict=True):
        total += _compare(reference_element, candidate_element, values)
    return total


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value, dtype=object) if isinstance(value, (str, bytes)) else np.asarray(value)


def _failed(property_: str, expected: object, actual: object) -> Difference:
    return Difference(failure=f"{property_} {str(actual)[:80]} instead of {str(expected)[:80]}")


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate's outputs are within their limits.

    Attributes:
        ok: Whether they are.
        reason: If not, one line: output, measure, limit.
        outputs: The errors of all outputs with optimizations on; empty if the candidate does not run.
        budget_used: Of a lossy candidate: the largest share that it uses of any limit of the budget; 1 is all of it.
        search_share: The same as a search counts it; differs where the budget is a task metric.
        score: What the task metric says, if the budget has one.
    """

    ok: bool
    reason: str
    outputs: tuple[OutputError, ...] = ()
    budget_used: float = 0.0
    search_share: float = 0.0
    score: Score | None = None
