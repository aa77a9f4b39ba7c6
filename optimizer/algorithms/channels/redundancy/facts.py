"""What is known of the channels of a value before any run: which are constant, which are multiples of one another.

A channel is a constant, or a positive scale times what its *value number* stands for: channels of one value number are
parallel, those of equal scale too are equal. This is global value numbering (Alpern, Wegman & Zadeck 1988), of channels
instead of values: a number is kept under a description of how it comes about, so two channels have one number if the
same was done to the same. (A compiler removes the computations whose number another one has; here whole channels go,
in ``optimizer.algorithms.channels.redundancy.redundant``.)
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
        value_number: Channels of one number are multiples of each other.
        scale: Positive factors.
        constant: What the channel is everywhere; NaN where it is not constant.
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


def concatenated(operands: Sequence[ChannelFacts]) -> ChannelFacts:
    """The channels of ``operands`` behind one another."""
    return ChannelFacts(
        np.concatenate([operand.value_number for operand in operands]),
        np.concatenate([operand.scale for operand in operands]),
        np.concatenate([operand.constant for operand in operands]),
    )


@dataclass
class ValueNumbers:
    """Value numbers: one for each description of how a channel comes about."""

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
        """Channels that are these ``values``, (size,), everywhere."""
        # One number for each different constant, so that equal constants are equal channels
        different, inverse = np.unique(values, return_inverse=True)
        numbers = np.array([self.number(("constant", value)) for value in different.tolist()], np.int64)
        return ChannelFacts(numbers[inverse.reshape(-1)], np.ones(values.size), values.astype(np.float64))

    def numbers(self, operation: Hashable, columns: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
        """Value numbers of what ``operation`` makes of the positions of ``columns``, each (size,).

        The first column are value numbers. Where these are all different, so are the results, and they are given in
        one block instead of one by one.
        """
        first = columns[0]
        if np.unique(first).size < first.size:
            rows = zip(*(column.tolist() for column in columns), strict=True)
            return np.array([self.number((operation, row)) for row in rows], np.int64)
        key = (operation, first.size, tuple(column.tobytes() for column in columns))
        if key not in self._blocks:
            self._blocks[key] = self.fresh(first.size).value_number
        return self._blocks[key]

    def derived(self, operation: Hashable, facts: Sequence[ChannelFacts], *, linear: bool) -> ChannelFacts:
        """Channels made by the same operation from those of ``facts``.

        Args:
            operation: Its name and attributes, and what else tells it from others.
            facts: Of its operands, all of one size.
            linear: Whether a positive factor common to all operands comes out again; if not, it changes the value
                number.
        """
        # (s_1 x_1, s_2 x_2, …) is s_1 (x_1, s_2 / s_1 x_2, …): relative scales are part of what is numbered, s_1 is not
        first = facts[0]
        scales = [rounded(operand.scale / first.scale if linear else operand.scale) for operand in facts]
        numbers = self.numbers(operation, [*(operand.value_number for operand in facts), *scales])
        scale = first.scale if linear else np.ones(first.size)
        return ChannelFacts(numbers, scale, np.full(first.size, math.nan))

    def with_constants(self, facts: ChannelFacts, constant: NDArray[np.float64]) -> ChannelFacts:
        """``facts`` with those channels constant for which ``constant`` has a number."""
        is_constant = ~np.isnan(constant)
        if not is_constant.any():
            return facts
        numbers = self.constants(constant[is_constant])
        value_number, scale = facts.value_number.copy(), facts.scale.copy()
        value_number[is_constant], scale[is_constant] = numbers.value_number, 1.0
        return replace(
            facts, value_number=value_number, scale=scale, constant=np.where(is_constant, constant, facts.constant)
        )

    def scaled(self, facts: ChannelFacts, factor: NDArray[np.float64]) -> ChannelFacts:
        """Channels times a factor each, (size,), of any sign; 0 makes a constant."""
        # A negative factor is a channel of its own number, since scales are positive
        value_number = facts.value_number
        if np.any(factor < 0):
            value_number = np.where(factor < 0, self.numbers("negative", [facts.value_number]), value_number)
        scale = facts.scale * np.where(factor == 0, 1.0, np.abs(factor))
        constant = np.where(factor == 0, 0.0, facts.constant * factor)
        return self.with_constants(ChannelFacts(value_number, scale, np.full(facts.size, math.nan)), constant)

    def shifted(self, facts: ChannelFacts, shift: NDArray[np.float64]) -> ChannelFacts:
        """Channels plus a number each, (size,)."""
        # s x + b = s (x + b / s): the shift in the measure of the channel is part of what is numbered
        relative = rounded(shift / facts.scale)
        value_number = facts.value_number
        if np.any(relative):
            value_number = np.where(relative == 0, value_number, self.numbers("plus", [facts.value_number, relative]))
        return self.with_constants(
            ChannelFacts(value_number, facts.scale, np.full(facts.size, math.nan)), facts.constant + shift
        )


def rounded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """``numbers``, (size,), those that differ by float32 rounding made equal: to the smallest of each run."""
    # In ascending order a run ends where the next number is further than rounding above; it takes its first number
    order = np.argsort(numbers, kind="stable")
    sorted_numbers = numbers[order]
    apart = np.diff(sorted_numbers) > _APART * np.abs(sorted_numbers[1:])
    first = np.concatenate([[0], np.flatnonzero(apart) + 1]) if numbers.size else np.zeros(0, np.int64)
    group = np.concatenate([[0], np.cumsum(apart)]) if numbers.size else first
    result = np.empty_like(numbers)
    result[order] = sorted_numbers[first[group]]
    return result


def leaders(rows: NDArray[np.floating], keys: NDArray[np.int64], tolerance: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row the first of the rows with its key that it is equal to; (rows,).

    Rows are sorted by a random projection, so only neighbours are compared: n log n comparisons of numbers, and few
    of rows.

    Args:
        rows: (rows, elements), each with a largest magnitude of about 1.
        keys: (rows,), rows with different keys are not equal.
        tolerance: (rows,), how far elements may be apart; of two rows the larger counts.
    """
    # 1. Project on a random direction of length about 1: equal rows lie closer than ``reach`` there
    count, width = rows.shape
    direction = np.asarray(np.random.default_rng(0).standard_normal(width) / math.sqrt(max(width, 1)))
    projections = rows @ direction.astype(rows.dtype)
    reach = 2 * (float(tolerance.max(initial=0.0)) + float(np.finfo(rows.dtype).eps)) * math.sqrt(max(width, 1))
    # 2. In the order of key and projection, compare with the leaders that are still in reach
    leader_of = np.arange(count)
    candidates: list[int] = []
    for row in np.lexsort((projections, keys)).tolist():
        candidates = [
            leader
            for leader in candidates
            if keys[leader] == keys[row] and projections[row] - projections[leader] <= reach
        ]
        for leader in candidates:
            if np.abs(rows[leader] - rows[row]).max(initial=0.0) <= max(tolerance[leader], tolerance[row]):
                leader_of[row] = leader
                break
        else:
            candidates.append(row)
    return by_first_member(leader_of)


def near_leaders(rows: NDArray[np.floating], keys: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """For each row its leader, the nearest of the rows that are their own leaders, first come first served; (rows,).

    Args:
        rows: (rows, elements), of length 1.
        keys: (rows,), rows with different keys are not near.
        tolerance: The largest length of a difference.
    """
    leader_of = np.arange(rows.shape[0])
    for key in np.unique(keys):
        members = np.flatnonzero(keys == key)
        is_leader = np.zeros(members.size, bool)
        for index, row in enumerate(members.tolist()):
            leaders_so_far = members[is_leader]
            # Of rows of length 1: |a - b|^2 = 2 - 2 a.b
            cosines = rows[leaders_so_far] @ rows[row]
            nearest = int(np.argmax(cosines)) if leaders_so_far.size else -1
            if nearest >= 0 and 2 - 2 * float(cosines[nearest]) <= tolerance**2:
                leader_of[row] = leaders_so_far[nearest]
            else:
                is_leader[index] = True
    return leader_of


def by_first_member(leader_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same partition, each class named after its first member."""
    _, first_members, inverse = np.unique(leader_of, return_index=True, return_inverse=True)
    return np.asarray(first_members[inverse])
