"""How far an exact candidate may be from the reference, decided before any candidate runs.

    limit = min(cap, max(floor of the dtype, 4 x the reference's noise))

The reference's noise is what ONNX Runtime's optimizations and one ulp on the inputs change in its outputs: an exact
rewrite rounds as differently as these do. Elements that are not floats may differ only where the reference's own do
(``optimizer.evaluation.validation.reference_noise``). An arg-max may change only between values that are as close as
rounding allows.

The output of a Sigmoid is computed around 1/2 and rounded there. Where it is nearly zero throughout, because nothing is
detected, a relative error has no meaning: an error of one unit in that last place, 2^-24 in float32, is rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.evaluation.runtime.ort_values import element_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optimizer.evaluation.validation.output_error import Difference

SLACK = 4.0
MOST_MISPLACED = 0.01
_FLOORS: Mapping[str, float] = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
_CAPS: Mapping[str, float] = {"float64": 1e-3, "float32": 1e-3, "float16": 1e-2, "bfloat16": 8e-2}
_EPSILON = 1e-7  # rounding beside an output's peak
_EPSILONS: Mapping[str, float] = {"float64": 1e-15}
_ROUNDED_AT_HALF: Mapping[str, float] = {"float64": 2.0**-53, "float32": 2.0**-24}
_COARSE = 0.1  # for float8 and float4: a step is 6 % and more


@dataclass(frozen=True)
class Tolerance:
    """Limits of one output.

    Attributes:
        rel_l2: Relative L2, over all feeds and of each one.
        from_zero: Largest element in feeds whose reference is zero throughout, so that nothing is relative.
        misplaced: Share of NaN and infinities at other places.
        gap: What the reference may prefer its own arg-max by where the candidate's differs, as a share of its peak.
        rms: Root of the mean squared error of a feed up to which no relative error counts.
    """

    rel_l2: float
    from_zero: float = 0.0
    misplaced: float = 0.0
    gap: float = 0.0
    rms: float = 0.0

    def failure(self, difference: Difference) -> str:
        """The measure that ``difference`` fails by and its limit; empty if it holds."""
        if difference.failure:
            return difference.failure
        if difference.misplaced_share > self.misplaced:
            return f"has NaN or infinity at {difference.floats.misplaced} other places than the reference"
        discrete = difference.discrete
        if discrete.differing:
            return f"differs in {discrete.differing} of its {discrete.elements} elements that are not floats"
        # Relative errors count only where the reference is not zero, and the absolute one is more than rounding.
        for text, value in (("", difference.floats.finite_rel_l2), (" of one feed", difference.worst_rel_l2)):
            if value > self.rel_l2 and difference.floats.reference2 and difference.worst_rms > self.rms:
                return f"has relative L2{text} {value:.2g}, the limit is {self.rel_l2:.2g}"
        if difference.from_zero > self.from_zero:
            return f"is up to {difference.from_zero:.2g} where the reference is zero, the limit is {self.from_zero:.2g}"
        if difference.floats.arg_max_changes and difference.floats.gap > self.gap * difference.floats.peak:
            return f"has another arg-max in {difference.floats.arg_max_changes} of {difference.floats.rows} rows"
        return ""


def tolerance(type_text: str, noise: Difference, *, half: bool = False, is_sigmoid: bool = False) -> Tolerance:
    """The limits of an output.

    Args:
        type_text: Its type as ONNX Runtime spells it.
        noise: What one of the reference's own changes makes of the output.
        half: Whether the model computes in float16 inside, so that its limit is that of float16.
        is_sigmoid: Whether it is the output of a Sigmoid.
    """
    # 1. Floor and cap by dtype. Other types than floats are compared by equality, so they have neither.
    name = _dtype_name(type_text)
    coarse = _COARSE if name.startswith("float") else 0.0
    floor, cap = _FLOORS.get(name, coarse), _CAPS.get(name, coarse)
    if half and cap:
        cap = max(cap, _CAPS["float16"])
    # 2. The noise, over all feeds or of the worst one, and the limit by it.
    change = max(noise.floats.finite_rel_l2 if noise.floats.reference2 else 0.0, noise.worst_rel_l2)
    limit = min(cap, max(floor, SLACK * change))
    # 3. What no relative error says: feeds of zeros, misplaced NaN, arg-max, outputs that are all but zero.
    peak = noise.floats.peak or 1.0
    return Tolerance(
        rel_l2=limit,
        from_zero=max(SLACK * noise.from_zero, _EPSILONS.get(name, _EPSILON) * noise.floats.peak),
        misplaced=min(MOST_MISPLACED, SLACK * noise.misplaced_share),
        gap=SLACK * max(limit, noise.floats.gap / peak if np.isfinite(noise.floats.gap) else 0.0),
        rms=_ROUNDED_AT_HALF.get(name, 0.0) if is_sigmoid else 0.0,
    )


def loosest(limits: Sequence[Tolerance]) -> Tolerance:
    """The largest of each limit: what any of the reference's own changes needs."""
    return Tolerance(*(max(getattr(limit, field.name) for limit in limits) for field in fields(Tolerance)))


def shrunk_by_an_ulp(feed: Mapping[str, Any], seed: int, *, other_half: bool = False) -> dict[str, Any]:
    """``feed`` with a random half of all floats one ulp nearer to zero, so that they stay in any range they were in.

    Args:
        feed: Not changed.
        seed: Chooses the half.
        other_half: Whether the elements are taken that the same seed leaves alone without it.
    """
    rng = np.random.default_rng(seed)
    return {name: _shrunk(value, rng, other_half) for name, value in feed.items()}


def has_floats(feed: Mapping[str, Any]) -> bool:
    """Whether ``shrunk_by_an_ulp`` would change ``feed``."""
    return any(_is_plain_float(element) for value in feed.values() for element in _items(value))


def _shrunk(value: Any, rng: np.random.Generator, other_half: bool) -> Any:
    """``value`` after ``shrunk_by_an_ulp``; what is not a float array of numpy's own types stays as it is."""
    if isinstance(value, (list, tuple)):
        return [_shrunk(element, rng, other_half) for element in value]
    if not _is_plain_float(value):
        return value
    nearer_to_zero = np.nextafter(value, np.zeros_like(value))
    # Never into denormal numbers: a runtime may flush them to zero, and that is no rounding.
    tiny = np.finfo(value.dtype).tiny
    chosen = ((rng.random(value.shape) < 0.5) != other_half) & (np.abs(value) > tiny)
    return np.where(chosen, nearer_to_zero, value).astype(value.dtype)


def _is_plain_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype.itemsize in {2, 4, 8}


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _dtype_name(type_text: str) -> str:
    dtype = element_type(type_text)
    return "float32" if dtype is None else np.dtype(dtype.numpy()).name
