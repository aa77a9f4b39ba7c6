"""Units of channels that may be removed, in width groups whose members are interchangeable as far as widths go.

A unit is what ``optimizer.algorithms.channels.dependency.groups`` unifies together: a channel with all its residual
copies, a neuron, a head. A width group are the units that occur equally often on the same axes; how many of each width
group are left says how wide each axis is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups

_LEAST_SHARE = 0.1  # of a width group stays: a layer that is gone altogether was no matter of channels


@dataclass(frozen=True)
class WidthGroup:
    """Units that may be removed.

    Attributes:
        units: By root, in order.
        site: The first kernel that makes them.
        first: How many may go first, so that widths that were no multiples become some.
        step: And then at a time.
        least: How many have to stay.
    """

    units: NDArray[np.int64]
    site: str
    first: int
    step: int
    least: int

    def ends(self) -> list[int]:
        """How many may be gone, from few to many."""
        return list(range(self.first, self.units.size - self.least + 1, self.step))


@dataclass(frozen=True)
class WidthGroups:
    """All width groups of a graph.

    Attributes:
        members: They, in the order of their first kernels.
        of: The number of the width group of each unit, by root.
    """

    members: tuple[WidthGroup, ...]
    of: dict[int, int]

    def axis(self, roots: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        """How wide an axis with these units is: what stays anyway, and what each unit of each width group adds."""
        row = np.zeros(len(self.members))
        fixed = 0.0
        for root in roots.tolist():
            number = self.of.get(root)
            if number is None:
                fixed += 1
            else:
                row[number] += 1
        return fixed, row / np.array([width_group.units.size for width_group in self.members], np.float64)


def width_groups(groups: ChannelGroups, multiple: int) -> WidthGroups:
    """The units of ``groups`` that nothing freezes and that some kernel makes.

    Args:
        groups: The channels of a graph.
        multiple: Widths stay, or become, multiples of it.
    """
    widths = list(_widths(groups))
    axes = [
        *widths,
        *(groups.roots(groups.channel_axes[value].channel_ids) for value in groups.selected),
    ]  # no part is left empty
    places: dict[int, list[int]] = defaultdict(list)
    for number, roots in enumerate(axes):
        for root in roots.tolist():
            places[root].append(number)
    producers: dict[int, str] = {}
    for node, channel_ids in groups.producers.items():
        for root in groups.roots(channel_ids).tolist():
            producers.setdefault(root, queries.site(node))
    frozen = groups.frozen()
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for root in producers:
        if root not in frozen:
            members[tuple(places[root])].append(root)
    groups_of_units = tuple(
        _width_group(units, key, widths, producers[units[0]], multiple) for key, units in members.items()
    )
    at = {int(root): index for index, group in enumerate(groups_of_units) for root in group.units}
    return WidthGroups(groups_of_units, at)


def _widths(groups: ChannelGroups) -> Iterator[NDArray[np.int64]]:
    """The units along each axis that a kernel makes or reads."""
    for channel_ids in groups.producers.values():
        yield groups.roots(channel_ids)
    for consumer in groups.consumers:
        yield groups.roots(consumer.channel_axis.channel_ids)
    for channel_ids in groups.group_ids.values():
        yield groups.roots(channel_ids)


def _width_group(
    units: list[int], key: tuple[int, ...], widths: list[NDArray[np.int64]], site: str, multiple: int
) -> WidthGroup:
    # The axes that a unit lies on, and how often on each: removing ``gone`` units narrows axis i by gone * times_i
    numbers = sorted(set(key))
    times = [key.count(number) for number in numbers]
    step = math.lcm(*(multiple // math.gcd(multiple, count) for count in times))
    alone = [
        (widths[number].size % multiple, count)
        for number, count in zip(numbers, times, strict=True)
        if number < len(widths) and widths[number].size == count * len(units)
    ]
    # Widths that are no multiples yet: the first step is the one after which most axes are; ties go to the larger one
    fits = [sum(gone * count % multiple == remainder for remainder, count in alone) for gone in range(1, step + 1)]
    first = step - fits[::-1].index(max(fits))
    least = max(step, math.ceil(_LEAST_SHARE * len(units)))
    return WidthGroup(np.array(units, np.int64), site, first, step, least)
