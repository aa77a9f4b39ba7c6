"""How far an exact candidate may be from the reference, decided before any candidate runs.

    limit = min(cap, max(floor of the dtype, 4 x the reference's own change))

The reference's own change is what ONNX Runtime's optimizations and noise of one ulp on the inputs make of it: an exact
rewrite rounds as differently as these do. Elements that are no floats may differ in 4 x the share in which the
reference's own differ, at most in 1 %. An arg-max may flip only between values that are as close as rounding allows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.ort_values import element_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optimizer.differences import Difference

SLACK = 4.0
MOST_UNEQUAL = 0.01
_FLOORS: Mapping[str, float] = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
_CAPS: Mapping[str, float] = {"float64": 1e-3, "float32": 1e-3, "float16": 1e-2, "bfloat16": 8e-2}
_COARSE = 0.1  # for float8 and float4: a step is 6 % and more


@dataclass(frozen=True)
class Tolerance:
    """Limits of one output.

    Attributes:
        rel_l2: Relative L2, over all feeds and of each one.
        max_abs: Largest difference where the reference is zero throughout, so that nothing is relative.
        unequal: Share of elements that are no floats.
        misplaced: Share of NaN and infinities at other places.
        gap: What the reference may prefer its own arg-max by where the candidate's flips, as a share of its peak.
    """

    rel_l2: float
    max_abs: float = 0.0
    unequal: float = 0.0
    misplaced: float = 0.0
    gap: float = 0.0

    def failure(self, found: Difference) -> str:
        """The measure that ``found`` fails by and its limit; empty if it holds."""
        if found.failure:
            return found.failure
        if found.misplaced_share > self.misplaced:
            return f"has NaN or infinity at {found.floats.misplaced} other places than the reference"
        if found.unequal_share > self.unequal:
            return f"differs in {found.unequal_share:.2g} of its elements, the limit is {self.unequal:.2g}"
        if self.misplaced:  # what is finite is not comparable where the reference itself overflows by chance
            return ""
        for text, value in (("", found.floats.rel_l2), (" of one feed", found.worst)):
            if value > self.rel_l2 and found.floats.max_abs > self.max_abs:
                return f"has relative L2{text} {value:.2g}, the limit is {self.rel_l2:.2g}"
        if found.floats.flips and found.floats.gap > self.gap * found.floats.peak:
            return f"has another arg-max in {found.floats.flips} of {found.floats.rows} rows"
        return ""


def tolerance(type_text: str, own: Difference, *, half: bool = False) -> Tolerance:
    """The limits of an output.

    Args:
        type_text: Its type as ONNX Runtime spells it.
        own: The reference's own change.
        half: Whether the model computes in float16 inside, so that its limit is that of float16.
    """
    name = _dtype_name(type_text)
    floor, cap = _FLOORS.get(name, _COARSE), _CAPS.get(name, _COARSE)
    if half:
        cap = max(cap, _CAPS["float16"])
    change = max(own.floats.rel_l2, own.worst)
    limit = min(cap, max(floor, SLACK * change))
    peak = own.floats.peak or 1.0
    return Tolerance(
        rel_l2=limit,
        max_abs=SLACK * own.floats.max_abs if not own.floats.reference2 else 0.0,
        unequal=min(MOST_UNEQUAL, SLACK * own.unequal_share),
        misplaced=min(MOST_UNEQUAL, SLACK * own.misplaced_share),
        gap=SLACK * max(limit, own.floats.gap / peak if np.isfinite(own.floats.gap) else 0.0),
    )


def loosest(limits: Sequence[Tolerance]) -> Tolerance:
    """The largest of each limit: what any of the reference's own changes needs."""
    return Tolerance(*(max(getattr(limit, field.name) for limit in limits) for field in fields(Tolerance)))


def shrunk_by_an_ulp(feed: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """``feed`` with a random half of all floats one ulp nearer to zero, so that they stay in any range they were in."""
    rng = np.random.default_rng(seed)
    return {name: _shrunk(value, rng) for name, value in feed.items()}


def has_floats(feed: Mapping[str, Any]) -> bool:
    """Whether ``shrunk_by_an_ulp`` would change ``feed``."""
    return any(_is_plain_float(item) for value in feed.values() for item in _items(value))


def _shrunk(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shrunk(item, rng) for item in value]
    if not _is_plain_float(value):
        return value
    nearer = np.nextafter(value, np.zeros_like(value))
    tiny = np.finfo(value.dtype).tiny
    chosen = (rng.random(value.shape) < 0.5) & (np.abs(value) > tiny)
    return np.where(chosen, nearer, value).astype(value.dtype)


def _is_plain_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype.itemsize in {2, 4, 8}


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _dtype_name(type_text: str) -> str:
    kind = element_type(type_text)
    return "float32" if kind is None else np.dtype(kind.numpy()).name
