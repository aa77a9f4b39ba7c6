"""Finds channels that kernels need not read, since others hold the same, which compensate for them.

What a kernel sums over channels, W x = sum_c W_c x_c, stays the same without channel c

    if x_c = s * x_r for another channel r       W_r + s * W_c                      takes the place of W_r
    if x_c = k everywhere                        b + k * sum W_c                    takes the place of the bias b
    if W_c = 0                                   nothing changes

(for n equal channels: one is computed, and W_shared = W_1 + ... + W_n). A unit of channels that are unified to each
other (``optimizer.algorithms.channels.dependency.groups``) can go if that holds wherever a kernel reads one of them;
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
        roots: The unit of each position.
        value_number: Equal for positions that are parallel for all kernels, with the same factors.
        shift: The constant that a position has for all kernels, NaN where it has none, or a border would show it.
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
        """The value numbers at ``positions`` that need another channel there: used, and not constant."""
        return {int(self.value_number[at]) for at in positions if not self.unused[at] and np.isnan(self.shift[at])}


@dataclass
class ChannelPosition:
    """Where a kernel reads a unit.

    Attributes:
        reading: The kernel's weight.
        positions: Of the unit among the channels that it reads.
        kept: How many channels of each value number are kept there; shared by all places of a reading.
        compensated: Value numbers of channels that went and that one has to stay for; shared too.
    """

    reading: Reading
    positions: list[int]
    kept: Counter[int]
    compensated: set[int]

    def can_go(self) -> bool:
        """Whether the kernel can do without the unit."""
        leaving = Counter(self.reading.value_number[self.positions].tolist())
        needed = self.reading.needed(self.positions) | (self.compensated & leaving.keys())
        return all(self.kept[number] > leaving[number] for number in needed)

    def leave(self) -> None:
        """Count the unit no more."""
        self.kept.subtract(self.reading.value_number[self.positions].tolist())
        self.compensated |= self.reading.needed(self.positions)


@dataclass
class Redundancy:
    """Which units can go.

    Attributes:
        gone: They, by root, with what they are: ``dead``, ``shared`` or ``unused``.
        staying: Those without which all answers would be the same, and that stay, by root, with the reason.
        readings: All weights that read channels.
    """

    gone: dict[int, str] = field(default_factory=dict)
    staying: dict[int, str] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)


def readings(groups: ChannelGroups, analysis: ChannelAnalysis) -> list[Reading]:
    """The weights of all consumers whose channels something is known of."""
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
        others = tuple(axis for axis in range(array.ndim) if axis != consumers[0].axis)
        unused = ~np.abs(array).max(axis=others, initial=0.0).astype(bool)
        roots = groups.roots(consumers[0].channel_axis.channel_ids)
        result.append(
            Reading(
                weight, consumers, known_facts, roots, _content(known_facts), _shift(consumers, known_facts), unused
            )
        )
    return result


def _content(facts: list[ChannelFacts]) -> NDArray[np.int64]:
    """Numbers of what positions have in common over all ``facts``."""
    columns = [
        column
        for input_facts in facts
        for column in (input_facts.value_number, rounded(input_facts.scale / facts[0].scale))
    ]
    _, numbers = np.unique(np.stack(columns[:1] + columns[2:], axis=1), axis=0, return_inverse=True)
    return np.asarray(numbers).reshape(-1)


def _shift(consumers: list[ChannelConsumer], facts: list[ChannelFacts]) -> NDArray[np.float64]:
    first = facts[0].constant
    same = np.all([input_facts.constant == first for input_facts in facts], axis=0)
    steady = all(is_steady(consumer.node) for consumer in consumers)
    return np.where(same & (steady | (first == 0)), first, np.nan)


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
    # Greedy, one unit after the other: a unit goes if at each place where it is read another one still stands for it.
    # Frozen ones come last, so that what can go is not kept for them
    for root in sorted(places, key=lambda root: (root in frozen, *_order(root, places[root]))):
        places_of_unit = places[root]
        if not all(place.can_go() for place in places_of_unit):
            continue
        for place in places_of_unit:
            place.leave()
        if root not in frozen:
            result.gone[root] = _kind(places_of_unit)
        elif places_of_unit:
            result.staying[root] = frozen[root]
    _keep_widths(groups, result, multiple)
    return result


def _places(groups: ChannelGroups, result: Redundancy) -> dict[int, list[ChannelPosition]]:
    """Where each unit is read."""
    by_unit: dict[int, list[ChannelPosition]] = {
        root: [] for channel_ids in groups.producers.values() for root in groups.roots(channel_ids).tolist()
    }
    for reading in result.readings:
        kept, compensated = Counter(reading.value_number.tolist()), set[int]()
        positions: dict[int, list[int]] = defaultdict(list)
        for position, root in enumerate(reading.roots.tolist()):
            positions[root].append(position)
        for root, positions_of_unit in positions.items():
            by_unit.setdefault(root, []).append(ChannelPosition(reading, positions_of_unit, kept, compensated))
    return by_unit


def _read_by_unknown(groups: ChannelGroups, result: Redundancy) -> Iterator[int]:
    """Units that a kernel reads of which nothing is known."""
    understood = {id(consumer) for reading in result.readings for consumer in reading.consumers}
    for consumer in groups.consumers:
        if id(consumer) not in understood:
            yield from groups.roots(consumer.channel_axis.channel_ids).tolist()


def _order(root: int, places: list[ChannelPosition]) -> tuple[float, int]:
    """Those of small scale go first, so that the largest of parallel channels stands for the others; then the last."""
    scales = [facts.scale[place.positions].min() for place in places for facts in place.reading.facts]
    return float(min(scales, default=0.0)), -root


def _kind(places: list[ChannelPosition]) -> str:
    if all(place.reading.unused[place.positions].all() for place in places):
        return "unused"
    return "shared" if any(np.isnan(place.reading.shift[place.positions]).any() for place in places) else "dead"


def _keep_widths(groups: ChannelGroups, result: Redundancy, multiple: int) -> None:
    """Take units back until what kernels make and read is a multiple wide, and nothing is empty."""
    counted = [*groups.producers.values(), *(cut.channel_ids for cut in groups.sliced_parameters.values())]
    axes = [(groups.roots(channel_ids).tolist(), multiple) for channel_ids in counted]
    axes += [(groups.roots(groups.channel_axes[value].channel_ids).tolist(), 1) for value in groups.selected]
    again = True
    while again:
        again = False
        for axis, width in axes:
            while (back := _too_many(axis, result, width)) is not None:
                del result.gone[back]
                result.staying[back] = f"widths are multiples of {width}" if width > 1 else "no width is 0"
                again = True


def _too_many(axis: list[int], result: Redundancy, multiple: int) -> int | None:
    """A unit to take back, or ``None`` if the width is fine: the first that went, which costs least."""
    going = [root for root in axis if root in result.gone]
    width = len(axis) - len(going)
    if not going or (width and (width % multiple == 0 or multiple == 1)):
        return None
    return going[0]
