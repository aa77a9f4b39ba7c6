"""Channels that kernels need not read, since others hold the same and can compensate for them.

What a kernel sums over channels, W x = sum_c W_c x_c, stays the same without channel c

    if x_c = s * x_r for another channel r       W_r + s * W_c                      takes the place of W_r
    if x_c = k everywhere                        b + k * sum W_c                    takes the place of the bias b
    if W_c = 0                                   nothing changes

(for n equal channels: one is computed, and W_shared = W_1 + ... + W_n). A unit, that is a channel group
(``optimizer.algorithms.channels.dependency.groups``), can go if that holds wherever a kernel reads one of its channels;
kernels that share a weight have to agree. Without data, equality is that of the weights (Srinivas & Babu 2015,
arXiv:1507.06149, for two neurons).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.redundancy.facts import rounded
from optimizer.algorithms.channels.redundancy.linear_facts import array_of, is_steady

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelConsumer, ChannelGroups
    from optimizer.algorithms.channels.redundancy.facts import ChannelFacts
    from optimizer.algorithms.channels.redundancy.propagation import ChannelAnalysis


@dataclass
class Reading:
    """A weight and the channels that its kernels read.

    Attributes:
        weight: The weight.
        consumers: The kernels that read it, more than one if it is shared.
        facts: Of what each of them reads.
        roots: The unit of each input channel; this and the next three (C,).
        value_number: Equal for channels that are parallel for all kernels, with the same factors.
        shift: The constant that a channel is for all kernels, NaN where it is none, or a border would show it.
        unused: Where the weight has only zeros.
    """

    weight: ir.Value
    consumers: list[ChannelConsumer]
    facts: list[ChannelFacts]
    roots: NDArray[np.int64]
    value_number: NDArray[np.int64]
    shift: NDArray[np.float64]
    unused: NDArray[np.bool_]

    def needed(self, positions: list[int]) -> set[int]:
        """The value numbers at ``positions`` that another channel has to compensate for: used, and not constant."""
        return {
            int(self.value_number[position])
            for position in positions
            if not self.unused[position] and np.isnan(self.shift[position])
        }


@dataclass
class ChannelPosition:
    """Where a kernel reads a unit.

    Attributes:
        reading: The kernel's weight.
        positions: Of the unit among the channels that it reads.
        remaining: How many channels of each value number remain there; shared by all places of a reading.
        compensated: Value numbers of channels that went, of which one has to stay; shared too.
    """

    reading: Reading
    positions: list[int]
    remaining: Counter[int]
    compensated: set[int]

    def can_go(self) -> bool:
        """Whether the kernel can do without the unit."""
        leaving = Counter(self.reading.value_number[self.positions].tolist())
        # Also what this place has compensated for before: the last of the parallel channels has to stay
        needed = self.reading.needed(self.positions) | (self.compensated & leaving.keys())
        return all(self.remaining[number] > leaving[number] for number in needed)

    def leave(self) -> None:
        """Take the unit out of the counts."""
        self.remaining.subtract(self.reading.value_number[self.positions].tolist())
        self.compensated |= self.reading.needed(self.positions)


@dataclass
class Redundancy:
    """Which units can go.

    Attributes:
        gone: They, by root, with the reason: ``dead`` (constant), ``shared`` (parallel) or ``unused`` (zero weights).
        staying: Those that are redundant too and stay, by root, with the reason.
        readings: All weights that read channels.
    """

    gone: dict[int, str] = field(default_factory=dict)
    staying: dict[int, str] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)


def readings(groups: ChannelGroups, analysis: ChannelAnalysis) -> list[Reading]:
    """The weights of all consumers whose channels something is known of."""
    # Kernels that share a weight are one reading: the weight can be changed for all of them or for none
    by_weight: dict[ir.Value, list[ChannelConsumer]] = defaultdict(list)
    for consumer in groups.consumers:
        by_weight[consumer.weight].append(consumer)
    result = []
    for weight, consumers in by_weight.items():
        facts = [analysis.facts(consumer.node.inputs[0]) for consumer in consumers]
        known_facts = [input_facts for input_facts in facts if input_facts is not None]
        array = array_of(weight)
        if array is None or len(known_facts) < len(facts):
            continue
        other_axes = tuple(axis for axis in range(array.ndim) if axis != consumers[0].axis)
        unused = ~np.abs(array).max(axis=other_axes, initial=0.0).astype(bool)
        roots = groups.roots(consumers[0].channel_axis.channel_ids)
        result.append(
            Reading(
                weight,
                consumers,
                known_facts,
                roots,
                _common_value_numbers(known_facts),
                _shift(consumers, known_facts),
                unused,
            )
        )
    return result


def _common_value_numbers(facts: list[ChannelFacts]) -> NDArray[np.int64]:
    """One number for each combination of value numbers over all ``facts``; (C,)."""
    # Two kernels of one weight: parallel channels have to be so in both, and by the same factor
    columns = [
        column
        for input_facts in facts
        for column in (input_facts.value_number, rounded(input_facts.scale / facts[0].scale))
    ]
    _, numbers = np.unique(np.stack(columns[:1] + columns[2:], axis=1), axis=0, return_inverse=True)
    return np.asarray(numbers).reshape(-1)


def _shift(consumers: list[ChannelConsumer], facts: list[ChannelFacts]) -> NDArray[np.float64]:
    first = facts[0].constant
    is_equal = np.all([input_facts.constant == first for input_facts in facts], axis=0)
    # A padded window sees zeros beside the constant, which no bias makes up for, unless the constant is 0
    steady = all(is_steady(consumer.node) for consumer in consumers)
    return np.where(is_equal & (steady | (first == 0)), first, np.nan)


def redundancy(groups: ChannelGroups, analysis: ChannelAnalysis, multiple: int) -> Redundancy:
    """The units that can go, and those of them that are kept so that widths stay multiples.

    Args:
        groups: The channels of a graph.
        analysis: What is known of them.
        multiple: The number of channels that a kernel gives out stays a multiple of it, unless it was none.
    """
    result = Redundancy(readings=readings(groups, analysis))
    places = _places(groups, result)
    frozen = groups.frozen() | dict.fromkeys(_read_by_unknown(groups, result), "a weight that reads them is not known")
    # Greedy, one unit after the other: a unit goes if a channel remains, at each place where it is read, that can
    # compensate for it. Frozen ones come last, so that what can go is not kept for them
    for root in sorted(places, key=lambda root: (root in frozen, *_order(root, places[root]))):
        places_of_unit = places[root]
        if not all(place.can_go() for place in places_of_unit):
            continue
        for place in places_of_unit:
            place.leave()
        if root not in frozen:
            result.gone[root] = _reason(places_of_unit)
        elif places_of_unit:
            result.staying[root] = frozen[root]
    _keep_widths(groups, result, multiple)
    return result


def _places(groups: ChannelGroups, result: Redundancy) -> dict[int, list[ChannelPosition]]:
    """Where each unit is read."""
    # Units that no kernel reads have no places: nothing keeps them
    by_unit: dict[int, list[ChannelPosition]] = {
        root: [] for channel_ids in groups.producers.values() for root in groups.roots(channel_ids).tolist()
    }
    for reading in result.readings:
        remaining, compensated = Counter(reading.value_number.tolist()), set[int]()
        positions: dict[int, list[int]] = defaultdict(list)
        for position, root in enumerate(reading.roots.tolist()):
            positions[root].append(position)
        for root, positions_of_unit in positions.items():
            by_unit.setdefault(root, []).append(ChannelPosition(reading, positions_of_unit, remaining, compensated))
    return by_unit


def _read_by_unknown(groups: ChannelGroups, result: Redundancy) -> Iterator[int]:
    """Units that a kernel reads of which nothing is known."""
    understood = {id(consumer) for reading in result.readings for consumer in reading.consumers}
    for consumer in groups.consumers:
        if id(consumer) not in understood:
            yield from groups.roots(consumer.channel_axis.channel_ids).tolist()


def _order(root: int, places: list[ChannelPosition]) -> tuple[float, int]:
    """Those of small scale go first, then the last: the largest of parallel channels compensates for the others.

    Factors are then at most 1, and rounding does not grow.
    """
    scales = [facts.scale[place.positions].min() for place in places for facts in place.reading.facts]
    return float(min(scales, default=0.0)), -root


def _reason(places: list[ChannelPosition]) -> str:
    if all(place.reading.unused[place.positions].all() for place in places):
        return "unused"
    return "shared" if any(np.isnan(place.reading.shift[place.positions]).any() for place in places) else "dead"


def _keep_widths(groups: ChannelGroups, result: Redundancy, multiple: int) -> None:
    """Take units back until what kernels produce and read is a multiple wide, and nothing is empty."""
    # Widths that kernels make or weights have are multiples; what Split and Slice select is not empty
    channel_ids_of_axes = [
        *groups.producers.values(),
        *(parameter.channel_ids for parameter in groups.sliced_parameters.values()),
    ]
    axes = [(groups.roots(channel_ids).tolist(), multiple) for channel_ids in channel_ids_of_axes]
    axes += [(groups.roots(groups.channel_axes[value].channel_ids).tolist(), 1) for value in groups.selected]
    changed = True
    # A unit that is taken back widens other axes too, so they are looked at until nothing changes
    while changed:
        changed = False
        for axis, width in axes:
            while (unit := _unit_to_keep(axis, result, width)) is not None:
                del result.gone[unit]
                result.staying[unit] = f"widths are multiples of {width}" if width > 1 else "no width is 0"
                changed = True


def _unit_to_keep(axis: list[int], result: Redundancy, multiple: int) -> int | None:
    """A unit to take back, or ``None`` if the width is fine: the first that went, which costs least."""
    # Fine as it was, or a multiple that is not empty
    going = [root for root in axis if root in result.gone]
    width = len(axis) - len(going)
    if not going or (width and (width % multiple == 0 or multiple == 1)):
        return None
    return going[0]
