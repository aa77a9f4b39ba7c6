"""What is known of the channels of a value before any run: which are constant, which are multiples of one another.

A channel is a constant, or a positive scale times a *content*: channels of equal content are parallel, those of equal
scale too are equal. Contents are numbers under which descriptions of how they come about are kept, so two channels
have one content if the same was done to the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

_APART = 1e-6  # of a number: two that are closer differ by float32 rounding


@dataclass(frozen=True)
class ChannelFacts:
    """The channels of one value, by position; all arrays (size,).

    Attributes:
        content: Numbers of contents.
        scale: Positive factors.
        constant: What the channel is everywhere; NaN where it is no constant.
    """

    value_number: NDArray[np.int64]
    scale: NDArray[np.float64]
    constant: NDArray[np.float64]

    @property
    def size(self) -> int:
        """How many channels."""
        return int(self.value_number.size)

    @property
    def is_constant(self) -> NDArray[np.bool_]:
        """Where a channel is a constant."""
        return ~np.isnan(self.constant)

    def take(self, positions: NDArray[np.int64]) -> ChannelFacts:
        """The facts of some positions, or of some of them repeated."""
        return ChannelFacts(self.value_number[positions], self.scale[positions], self.constant[positions])


def joined(parts: Sequence[ChannelFacts]) -> ChannelFacts:
    """Channels behind one another."""
    return ChannelFacts(
        np.concatenate([part.value_number for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate([part.constant for part in parts]),
    )


@dataclass
class ValueNumbers:
    """Numbers for descriptions of contents."""

    _numbers: dict[Hashable, int] = field(default_factory=dict)
    _blocks: dict[Hashable, NDArray[np.int64]] = field(default_factory=dict)
    _fresh: int = 0

    def number(self, description: Hashable) -> int:
        """The number of a description; the same for equal ones."""
        return self._numbers.setdefault(description, len(self._numbers) + self._fresh)

    def fresh(self, size: int) -> ChannelFacts:
        """Channels of which nothing is known."""
        first = len(self._numbers) + self._fresh
        self._fresh += size
        return ChannelFacts(np.arange(first, first + size), np.ones(size), np.full(size, math.nan))

    def constants(self, values: NDArray[np.float64]) -> ChannelFacts:
        """Constant channels."""
        different, inverse = np.unique(values, return_inverse=True)
        numbers = np.array([self.number(("constant", value)) for value in different.tolist()], np.int64)
        return ChannelFacts(numbers[inverse.reshape(-1)], np.ones(values.size), values.astype(np.float64))

    def numbers(self, what: Hashable, columns: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
        """Numbers for what is made of the positions of ``columns``, the first of them contents.

        Where these are all different, so are the numbers, and they are found for all positions at once.
        """
        first = columns[0]
        if np.unique(first).size < first.size:
            rows = zip(*(column.tolist() for column in columns), strict=True)
            return np.array([self.number((what, row)) for row in rows], np.int64)
        key = (what, first.size, tuple(column.tobytes() for column in columns))
        if key not in self._blocks:
            self._blocks[key] = self.fresh(first.size).value_number
        return self._blocks[key]

    def derived(self, what: Hashable, facts: Sequence[ChannelFacts], *, linear: bool) -> ChannelFacts:
        """Channels made by the same operation from those of ``facts``.

        Args:
            what: Says the operation.
            facts: Of its operands, all of one size.
            linear: Whether a positive factor common to all operands comes out again; if not, it changes the content.
        """
        first = facts[0]
        scales = [rounded(one.scale / first.scale if linear else one.scale) for one in facts]
        numbers = self.numbers(what, [*(one.value_number for one in facts), *scales])
        scale = first.scale if linear else np.ones(first.size)
        return ChannelFacts(numbers, scale, np.full(first.size, math.nan))

    def settled(self, facts: ChannelFacts, constant: NDArray[np.float64]) -> ChannelFacts:
        """``facts`` with those channels constant for which ``constant`` has a number."""
        known = ~np.isnan(constant)
        if not known.any():
            return facts
        numbers = self.constants(constant[known])
        content, scale = facts.value_number.copy(), facts.scale.copy()
        content[known], scale[known] = numbers.value_number, 1.0
        return replace(facts, value_number=content, scale=scale, constant=np.where(known, constant, facts.constant))

    def scaled(self, facts: ChannelFacts, factor: NDArray[np.float64]) -> ChannelFacts:
        """Channels times a factor each, of any sign; 0 makes a constant."""
        content = facts.value_number
        if np.any(factor < 0):
            content = np.where(factor < 0, self.numbers("negative", [facts.value_number]), content)
        scale = facts.scale * np.where(factor == 0, 1.0, np.abs(factor))
        constant = np.where(factor == 0, 0.0, facts.constant * factor)
        return self.settled(ChannelFacts(content, scale, np.full(facts.size, math.nan)), constant)

    def shifted(self, facts: ChannelFacts, shift: NDArray[np.float64]) -> ChannelFacts:
        """Channels plus a number each."""
        relative = rounded(shift / facts.scale)
        content = facts.value_number
        if np.any(relative):
            content = np.where(relative == 0, content, self.numbers("plus", [facts.value_number, relative]))
        return self.settled(ChannelFacts(content, facts.scale, np.full(facts.size, math.nan)), facts.constant + shift)


def rounded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """``numbers``, those that differ by float32 rounding made equal: the next smaller one that is apart counts."""
    order = np.argsort(numbers, kind="stable")
    sorted_numbers = numbers[order]
    apart = np.diff(sorted_numbers) > _APART * np.abs(sorted_numbers[1:])
    first = np.concatenate([[0], np.flatnonzero(apart) + 1]) if numbers.size else np.zeros(0, np.int64)
    group = np.concatenate([[0], np.cumsum(apart)]) if numbers.size else first
    result = np.empty_like(numbers)
    result[order] = sorted_numbers[first[group]]
    return result


def leaders(rows: NDArray[np.floating], keys: NDArray[np.int64], tolerance: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row the first of the rows with its key that it is equal to.

    Rows are sorted by a random projection, so only neighbours are compared: n log n comparisons of numbers, and few
    of rows.

    Args:
        rows: (rows, elements), each with a largest magnitude of about 1.
        keys: (rows,), rows with different keys are not equal.
        tolerance: (rows,), how far elements may be apart; of two rows the larger counts.
    """
    count, width = rows.shape
    draw = np.asarray(np.random.default_rng(0).standard_normal(width) / math.sqrt(max(width, 1)))
    places = rows @ draw.astype(rows.dtype)
    reach = 2 * (float(tolerance.max(initial=0.0)) + float(np.finfo(rows.dtype).eps)) * math.sqrt(max(width, 1))
    found = np.arange(count)
    near: list[int] = []
    for row in np.lexsort((places, keys)).tolist():
        near = [one for one in near if keys[one] == keys[row] and places[row] - places[one] <= reach]
        for one in near:
            if np.abs(rows[one] - rows[row]).max(initial=0.0) <= max(tolerance[one], tolerance[row]):
                found[row] = one
                break
        else:
            near.append(row)
    return first_of_each(found)


def near_leaders(rows: NDArray[np.floating], keys: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """For each row the one that stands for it: the nearest of those that stand for themselves, first come first served.

    Args:
        rows: (rows, elements), of length 1.
        keys: (rows,), rows with different keys are not near.
        tolerance: The largest length of a difference.
    """
    found = np.arange(rows.shape[0])
    for key in np.unique(keys):
        members = np.flatnonzero(keys == key)
        standing = np.zeros(members.size, bool)
        for at, row in enumerate(members.tolist()):
            own = members[standing]
            cosines = rows[own] @ rows[row]
            best = int(np.argmax(cosines)) if own.size else -1
            if best >= 0 and 2 - 2 * float(cosines[best]) <= tolerance**2:
                found[row] = own[best]
            else:
                standing[at] = True
    return found


def first_of_each(found: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same partition, each part named after its first member."""
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])
