"""The constant target of a Reshape: 0 copies a dimension, one -1 is inferred.

A computed dimension becomes -1 only where all others are known not to be 0 (``optimizer.analysis.symbolic.nonzero``):
if one of them were at run time, as a batch or a past may be, ONNX Runtime could not infer the -1, while it could follow
the computed target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.analysis.symbolic.expressions import is_known
from optimizer.analysis.symbolic.nonzero import is_nonzero

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from optimizer.analysis.symbolic.expressions import Element


@dataclass(frozen=True)
class ReshapeTarget:
    """What a Reshape is to come to.

    Attributes:
        source: The dimensions of what is reshaped; ``None`` if they are not known.
        wanted: The dimensions of the result, or what its target says.
        nonzero: Symbols that are not 0.
        zero_copies: Whether a 0 in the target copies a dimension of the source, and does not make it 0.
        found: Where a dimension is inferred by -1 now, if that fails where another one is 0.
    """

    source: Sequence[Element] | None
    wanted: Sequence[Element]
    nonzero: Collection[str] = ()
    zero_copies: bool = True
    inferred: int | None = None

    def targets(self) -> list[list[int]]:
        """Constant targets that come to it; those that copy more dimensions come first."""
        first = self._first()
        if first is None:
            return []
        others = [[*first[:index], -1, *first[index + 1 :]] for index, size in enumerate(first) if size == 0]
        candidates = [first] if -1 in first else [first, *others]
        return [target for target in candidates if self._is_sound(target)]

    def _first(self) -> list[int] | None:
        target: list[int] = []
        for index, element in enumerate(self.wanted):
            # 1. A number stands for itself; a 0 that is not a copy is left alone
            if is_known(element) and (element != 0 or self.zero_copies):
                target.append(int(element))
            elif is_known(element):
                return None
            # 2. What the source has at the same place is copied, 3. what it has not is inferred, once
            elif self.zero_copies and self._source_at(index) == element:
                target.append(0)
            else:
                target.append(-1)
        return target if target.count(-1) <= 1 else None

    def _source_at(self, index: int) -> Element | None:
        return self.source[index] if self.source is not None and index < len(self.source) else None

    def _is_sound(self, target: Sequence[int]) -> bool:
        """Whether a -1 in ``target`` can be inferred whenever there is an answer."""
        # With the same -1 it fails where it failed before; a source with elements has no dimension of 0
        if -1 not in target or target.index(-1) == self.inferred or self._has_elements():
            return True
        others = [self._source_at(index) if size == 0 else size for index, size in enumerate(target) if size != -1]
        return all(is_nonzero(size, self.nonzero) for size in others)

    def _has_elements(self) -> bool:
        return self.source is not None and all(is_nonzero(size, self.nonzero) for size in self.source)
