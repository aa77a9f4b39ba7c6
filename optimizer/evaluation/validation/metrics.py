"""How far one array is from another, as sums that add up over feeds.

With r the reference and c the candidate, over all finite elements of all feeds::

    relative L2 = |c - r| / |r|        SQNR = -20 log10(relative L2) dB        cosine = <r, c> / (|r| |c|)

NaN and the infinities are compared by place and kind. Arg-max is taken along the last axis; where it flips, the *gap*
says by how much the reference preferred its own choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BLOCK = 1 << 20  # elements that are looked at in one go, in double precision


@dataclass(frozen=True)
class ErrorSums:
    """What is known about pairs of arrays; sums of two describe both.

    Attributes:
        elements: Elements compared.
        differing: Elements that are not equal; NaN equals NaN.
        misplaced: Elements that are not finite on one side only, or in another way.
        error2: Sum of squared differences, over elements that are finite in both.
        reference2: Sum of squares of the reference.
        candidate2: Sum of squares of the candidate.
        dot: Sum of products.
        max_abs: Largest difference.
        peak: Largest magnitude of the reference.
        rows: Rows along the last axis whose arg-max was compared.
        flips: Rows whose arg-max differs.
        gap: Largest amount by which the reference preferred its own choice in a flipped row.
    """

    elements: int = 0
    differing: int = 0
    misplaced: int = 0
    error2: float = 0.0
    reference2: float = 0.0
    candidate2: float = 0.0
    dot: float = 0.0
    max_abs: float = 0.0
    peak: float = 0.0
    rows: int = 0
    flips: int = 0
    gap: float = 0.0

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            self.elements + other.elements,
            self.differing + other.differing,
            self.misplaced + other.misplaced,
            self.error2 + other.error2,
            self.reference2 + other.reference2,
            self.candidate2 + other.candidate2,
            self.dot + other.dot,
            max(self.max_abs, other.max_abs),
            max(self.peak, other.peak),
            self.rows + other.rows,
            self.flips + other.flips,
            max(self.gap, other.gap),
        )

    @property
    def rel_l2(self) -> float:
        """Relative L2; infinite where NaN or infinity is misplaced, or the reference is zero and something differs."""
        return math.inf if self.misplaced else self.finite_rel_l2

    @property
    def finite_rel_l2(self) -> float:
        """Relative L2 over the elements that are finite on both sides."""
        if not self.error2:
            return 0.0
        return math.sqrt(self.error2 / self.reference2) if self.reference2 else math.inf

    @property
    def sqnr(self) -> float:
        """Signal to noise ratio in dB; infinite without noise."""
        relative = self.rel_l2
        return math.inf if relative == 0 else -20 * math.log10(relative)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two; 1 if both are zero, 0 if one is."""
        if not self.reference2 and not self.candidate2:
            return 1.0
        scale = math.sqrt(self.reference2) * math.sqrt(self.candidate2)
        return self.dot / scale if scale else 0.0

    @property
    def agreement(self) -> float:
        """Share of rows with the same arg-max; where there are no rows, share of equal elements."""
        if self.rows:
            return 1 - self.flips / self.rows
        return 1 - self.differing / self.elements if self.elements else 1.0


def is_discrete(dtype: np.dtype[Any]) -> bool:
    """Whether elements of ``dtype`` are compared by equality: integers of any width, booleans, strings."""
    return dtype.kind in "iubOUS" or dtype.name.startswith(("int", "uint"))


def sums(reference: NDArray[Any], candidate: NDArray[Any]) -> ErrorSums:
    """Compare two arrays of one shape and dtype."""
    if is_discrete(reference.dtype):
        return ErrorSums(elements=reference.size, differing=int(np.count_nonzero(reference != candidate)))
    if np.iscomplexobj(reference):
        parts = (np.ascontiguousarray(array).view(array.real.dtype) for array in (reference, candidate))
        reference, candidate = (part.reshape(-1, 1) for part in parts)
    total = ErrorSums()
    for left, right in _blocks(reference, candidate):
        total += _block_sums(left, right)
    return total


def differing(reference: NDArray[Any], candidate: NDArray[Any]) -> NDArray[np.bool_]:
    """Where two arrays of one shape are not equal; NaN equals NaN."""
    unequal = np.asarray(reference != candidate)
    if is_discrete(reference.dtype):
        return unequal
    return unequal & ~(np.isnan(reference.astype(np.complex128)) & np.isnan(candidate.astype(np.complex128)))


def _blocks(reference: NDArray[Any], candidate: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Blocks of whole rows, in double precision."""
    if not reference.size:
        return
    width = reference.shape[-1] if reference.ndim else 1
    left, right = reference.reshape(-1, width), candidate.reshape(-1, width)
    step = max(1, _BLOCK // width)
    for start in range(0, len(left), step):
        yield left[start : start + step].astype(np.float64), right[start : start + step].astype(np.float64)


def _block_sums(left: NDArray[np.float64], right: NDArray[np.float64]) -> ErrorSums:
    finite = np.isfinite(left) & np.isfinite(right)
    unequal = (left != right) & ~(np.isnan(left) & np.isnan(right))
    known, found = (left, right) if finite.all() else (np.where(finite, left, 0), np.where(finite, right, 0))
    error = found - known
    rows, flips, gap = _arg_max(left, right)
    return ErrorSums(
        elements=left.size,
        differing=int(np.count_nonzero(unequal)),
        misplaced=int(np.count_nonzero(unequal & ~finite)),
        error2=float(np.vdot(error, error)),
        reference2=float(np.vdot(known, known)),
        candidate2=float(np.vdot(found, found)),
        dot=float(np.vdot(known, found)),
        max_abs=float(np.abs(error).max()),
        peak=float(np.abs(known).max()),
        rows=rows,
        flips=flips,
        gap=gap,
    )


def _arg_max(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[int, int, float]:
    """Rows, flipped rows, and the largest gap; rows with NaN have no arg-max."""
    if left.shape[1] < 2:
        return 0, 0, 0.0
    if np.isnan(left).any() or np.isnan(right).any():
        whole = ~(np.isnan(left) | np.isnan(right)).any(axis=1)
        left, right = left[whole], right[whole]
    ours, theirs = left.argmax(axis=1), right.argmax(axis=1)
    flipped = np.flatnonzero(ours != theirs)
    gaps = left[flipped, ours[flipped]] - left[flipped, theirs[flipped]]
    return len(left), len(flipped), float(np.nan_to_num(gaps, posinf=np.inf).max(initial=0.0))
