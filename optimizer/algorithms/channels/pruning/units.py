"""Units of channels that may be removed, in width groups whose members are interchangeable as far as widths go.

A unit is a channel group (``optimizer.algorithms.channels.dependency.groups``): a channel with all its residual copies,
a neuron, a head. A *width group* are the units that occur equally often on the same axes; how many of each width group
remain says how wide each axis is. (A group of Torch-Pruning is such a width group: all its channels belong to the same
layers.)
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

_LEAST_SHARE = 0.1  # of a width group stays: removing layers altogether is not what is done here


@dataclass(frozen=True)
class WidthGroup:
    """Units that may be removed.

    Attributes:
        units: Their roots, in order; (units,).
        site: The first kernel that produces them.
        first: How many may go first, so that widths that are not multiples become some.
        step: How many then at a time.
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
        members: The width groups, in the order of their first kernels.
        of: The number of the width group of each unit, by root.
    """

    members: tuple[WidthGroup, ...]
    of: dict[int, int]

    def axis(self, roots: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        """How wide an axis is, as a linear function of how many units of each width group remain.

        Args:
            roots: The unit of each position; (size,).

        Returns:
            What stays in any case, and what each remaining unit of each width group adds, (width groups,).
        """
        units_of_group = np.zeros(len(self.members))
        other_channels = 0.0
        for root in roots.tolist():
            group = self.of.get(root)
            if group is None:
                other_channels += 1
            else:
                units_of_group[group] += 1
        return other_channels, units_of_group / np.array(
            [width_group.units.size for width_group in self.members], np.float64
        )


def width_groups(groups: ChannelGroups, multiple: int) -> WidthGroups:
    """The units of ``groups`` that nothing freezes and that some kernel produces.

    Args:
        groups: The channels of a graph.
        multiple: Widths stay, or become, multiples of it.
    """
    widths = list(_widths(groups))
    axes = [
        *widths,
        *(groups.roots(groups.channel_axes[value].channel_ids) for value in groups.selected),
    ]  # no part is left empty
    # 1. On which axes each unit lies, once for each position
    axes_of_unit: dict[int, list[int]] = defaultdict(list)
    for axis, roots in enumerate(axes):
        for root in roots.tolist():
            axes_of_unit[root].append(axis)
    # 2. The first kernel that produces it
    producers: dict[int, str] = {}
    for node, channel_ids in groups.producers.items():
        for root in groups.roots(channel_ids).tolist():
            producers.setdefault(root, queries.site(node))
    # 3. Units on the same axes, equally often, are one width group
    frozen = groups.frozen()
    units_by_axes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for root in producers:
        if root not in frozen:
            units_by_axes[tuple(axes_of_unit[root])].append(root)
    members = tuple(
        _width_group(units, key, widths, producers[units[0]], multiple) for key, units in units_by_axes.items()
    )
    group_of_unit = {int(root): index for index, group in enumerate(members) for root in group.units}
    return WidthGroups(members, group_of_unit)


def _widths(groups: ChannelGroups) -> Iterator[NDArray[np.int64]]:
    """The units along each axis that a kernel produces or reads."""
    for channel_ids in groups.producers.values():
        yield groups.roots(channel_ids)
    for consumer in groups.consumers:
        yield groups.roots(consumer.channel_axis.channel_ids)
    for channel_ids in groups.group_ids.values():
        yield groups.roots(channel_ids)


def _width_group(
    units: list[int], axes: tuple[int, ...], widths: list[NDArray[np.int64]], site: str, multiple: int
) -> WidthGroup:
    # 1. The axes that a unit lies on, and how often on each: removing n units narrows axis i by n * times_i, and a step
    # is the least n for which that is a multiple on all of them
    different_axes = sorted(set(axes))
    times = [axes.count(axis) for axis in different_axes]
    step = math.lcm(*(multiple // math.gcd(multiple, count) for count in times))
    remainders = [
        (widths[axis].size % multiple, count)
        for axis, count in zip(different_axes, times, strict=True)
        if axis < len(widths) and widths[axis].size == count * len(units)
    ]
    # 2. Widths that are not multiples yet: of the first steps, the one after which most axes are; if equal, the larger
    fits = [sum(gone * count % multiple == remainder for remainder, count in remainders) for gone in range(1, step + 1)]
    first = step - fits[::-1].index(max(fits))
    least = max(step, math.ceil(_LEAST_SHARE * len(units)))
    return WidthGroup(np.array(units, np.int64), site, first, step, least)
