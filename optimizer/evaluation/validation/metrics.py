"""How far one array is from another, as sums that add up over feeds.

With r the reference and c the candidate, over all finite elements of all feeds::

    relative L2 = |c - r| / |r|        SQNR = -20 log10(relative L2) dB        cosine = <r, c> / (|r| |c|)

NaN and the infinities are compared by place and sign. Arg-max is taken along the last axis; where it differs, the *gap*
says by how much the reference preferred its own choice. SQNR and cosine are those of PyTorch's Numeric Suite
(``torch.ao.ns``), which takes them of one pair of arrays.
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
    """Sums over pairs of arrays; two of them add up to those of both.

    Attributes:
        elements: Elements compared.
        differing: Elements that are not equal; NaN equals NaN.
        misplaced: Elements that are not finite on one side only, or in another way.
        error2: |c - r|^2, over elements that are finite in both, as all that follow.
        reference2: |r|^2.
        candidate2: |c|^2.
        dot: <r, c>.
        max_abs: Largest difference.
        peak: Largest magnitude of the reference.
        rows: Rows along the last axis whose arg-max was compared.
        arg_max_changes: Rows whose arg-max differs.
        gap: Largest amount by which the reference preferred its own choice in such a row.
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
    arg_max_changes: int = 0
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
            self.arg_max_changes + other.arg_max_changes,
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
            return 1 - self.arg_max_changes / self.rows
        return 1 - self.differing / self.elements if self.elements else 1.0


def is_discrete(dtype: np.dtype[Any]) -> bool:
    """Whether elements of ``dtype`` are compared by equality: integers of any width, booleans, strings."""
    return dtype.kind in "iubOUS" or dtype.name.startswith(("int", "uint"))


def sums(reference: NDArray[Any], candidate: NDArray[Any]) -> ErrorSums:
    """Compare two arrays of one shape and dtype."""
    if is_discrete(reference.dtype):
        return ErrorSums(elements=reference.size, differing=int(np.count_nonzero(reference != candidate)))
    # Complex numbers as twice as many reals, in rows of one, so that there is no arg-max.
    if np.iscomplexobj(reference):
        planes = (np.ascontiguousarray(array).view(array.real.dtype) for array in (reference, candidate))
        reference, candidate = (plane.reshape(-1, 1) for plane in planes)
    total = ErrorSums()
    for reference_block, candidate_block in _blocks(reference, candidate):
        total += _block_sums(reference_block, candidate_block)
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
    reference_rows, candidate_rows = reference.reshape(-1, width), candidate.reshape(-1, width)
    block_rows = max(1, _BLOCK // width)
    for start in range(0, len(reference_rows), block_rows):
        yield (
            reference_rows[start : start + block_rows].astype(np.float64),
            candidate_rows[start : start + block_rows].astype(np.float64),
        )


def _block_sums(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> ErrorSums:
    # 1. Where they differ. inf == inf and -inf == -inf, but NaN != NaN.
    finite = np.isfinite(reference) & np.isfinite(candidate)
    unequal = (reference != candidate) & ~(np.isnan(reference) & np.isnan(candidate))
    # 2. r and c, with zeros where either is not finite; they add nothing to any sum.
    r, c = (reference, candidate) if finite.all() else (np.where(finite, reference, 0), np.where(finite, candidate, 0))
    error = c - r
    rows, changes, gap = _arg_max(reference, candidate)
    return ErrorSums(
        elements=reference.size,
        differing=int(np.count_nonzero(unequal)),
        misplaced=int(np.count_nonzero(unequal & ~finite)),
        error2=float(np.vdot(error, error)),
        reference2=float(np.vdot(r, r)),
        candidate2=float(np.vdot(c, c)),
        dot=float(np.vdot(r, c)),
        max_abs=float(np.abs(error).max()),
        peak=float(np.abs(r).max()),
        rows=rows,
        arg_max_changes=changes,
        gap=gap,
    )


def _arg_max(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> tuple[int, int, float]:
    """Rows, rows whose arg-max differs, and the largest gap; rows with NaN have no arg-max."""
    if reference.shape[1] < 2:
        return 0, 0, 0.0
    # 1. Without rows that have NaN: numpy's arg-max of those is the place of the NaN.
    if np.isnan(reference).any() or np.isnan(candidate).any():
        without_nan = ~(np.isnan(reference) | np.isnan(candidate)).any(axis=1)
        reference, candidate = reference[without_nan], candidate[without_nan]
    # 2. In rows whose arg-max differs, the reference at its own choice less the reference at the candidate's.
    reference_choice, candidate_choice = reference.argmax(axis=1), candidate.argmax(axis=1)
    changed = np.flatnonzero(reference_choice != candidate_choice)
    gaps = reference[changed, reference_choice[changed]] - reference[changed, candidate_choice[changed]]
    return len(reference), len(changed), float(np.nan_to_num(gaps, posinf=np.inf).max(initial=0.0))
