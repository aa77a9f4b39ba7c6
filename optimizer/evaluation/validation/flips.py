"""Places where the reference's own integers, booleans and strings change from one of its runs to another.

An exact candidate may differ there and nowhere else. Only whole array outputs have places; what is inside sequences and
maps has none, so it must be equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.evaluation.validation.metrics import is_discrete

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Flips:
    """Collects the places, by number of the feed and name of the output."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str], NDArray[np.bool_]] = {}

    def note(self, number: int, answer: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        """Take in two answers of the reference to feed ``number``."""
        for name, value in answer.items():
            if not _comparable(value, other[name]):
                continue
            changed = np.asarray(value != other[name])
            if changed.any():
                known = self._places.get((number, name))
                self._places[number, name] = changed if known is None else known | changed

    def excused(self, number: int, name: str, reference: Any, candidate: Any) -> Any:
        """``candidate`` with the reference's own value wherever the reference flips."""
        places = self._places.get((number, name))
        if places is None or not _comparable(reference, candidate):
            return candidate
        return np.where(places, reference, candidate).astype(candidate.dtype)


def _comparable(reference: Any, candidate: Any) -> bool:
    return (
        isinstance(reference, np.ndarray)
        and isinstance(candidate, np.ndarray)
        and reference.shape == candidate.shape
        and reference.dtype == candidate.dtype
        and is_discrete(reference.dtype)
    )
