"""Which units of a model to quantize: the most time saved while the measured error keeps its allowance.

    e(u)      share of the budget that is used when only u is quantized
    g(u)      seconds saved by u, from ONNX Runtime's own profile of the float and of the wholly quantized model
    order     by e(u)^2 / g(u): squared errors of independent units add up, so this is the price of a second
    choose    the longest prefix of the order that keeps the allowance, found by halving, each length measured as a
              whole; then single units of the rest are tried in order

    spare     of what was chosen, the units whose seconds are dearest go again, as long as they save next to nothing:
              other inputs cost more error than those that are searched on, and this is the cheapest reserve

Squared errors do not add up exactly, so nothing is believed that was not measured on the whole model. Units that save
no time are left out; where that splits the integer regions and so makes the whole clearly slower, they come back.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.contract.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.contract.evaluator import Evaluator

_SAFETY = 0.9  # of the allowance, on the selection feeds: the validation feeds are others
_MOST_GROUPS = 64  # units are searched in groups of neighbours where there are more
_MEASURING = 0.6  # share of the time after which no more single groups are measured
_REFINING = 0.8  # and nothing more is tried
_NOTHING = 1e-9  # seconds
_CLEARLY_FASTER = 0.98  # times as long: what more units must be for the error that they add
_AS_FAST = 1.01
_SPARED = 0.03  # of the seconds saved, for which units are not taken that cost much
_CLEARLY_LESS = 0.9  # of the error
_COMFORTABLE = 0.5  # of the allowance: what uses less needs no reserve


@dataclass(frozen=True)
class Group:
    """Units that are quantized together: the members' names, and the seconds that they save by the profile."""

    names: tuple[str, ...]
    gain: float


@dataclass
class Search:
    """One search.

    Attributes:
        build: Makes the model in which the units of the given names are quantized.
        evaluator: Measures.
        allowance: The share of the budget that may be used.
        progress: Told how many measurements there are to come, and how many of them are done.
        errors: What each group uses of the budget alone, by its first name; what is known is not measured again.
        shares: What each choice uses.
    """

    build: Callable[[frozenset[str]], ir.Model]
    evaluator: Evaluator
    allowance: float
    progress: Progress = field(default_factory=Progress)
    errors: dict[str, float] = field(default_factory=dict)
    shares: dict[frozenset[str], float] = field(default_factory=dict)
    _budget: float = 0.0

    def run(self, groups: Sequence[Group]) -> frozenset[str]:
        """The names of the units to quantize; empty if no choice keeps the allowance."""
        self._budget = max(self.evaluator.time_left(), 0.0)
        self.progress.begin("measuring all together")
        everything = _names(groups)
        paying = [group for group in groups if group.gain > _NOTHING] or list(groups)
        return self._spared(self._chosen(everything, paying), groups)

    def _chosen(self, everything: frozenset[str], paying: Sequence[Group]) -> frozenset[str]:
        """What saves most within the allowance."""
        if self._holds(_names(paying)):
            return self._widened(_names(paying), everything)
        if self._holds(everything):
            return everything
        ordered = self._ordered(paying)
        chosen = self._refined(self._longest_prefix(ordered), ordered)
        return self._widened(chosen, chosen | (everything - _names(paying))) if chosen else chosen

    def _widened(self, fewer: frozenset[str], more: frozenset[str]) -> frozenset[str]:
        """``more`` if it holds and is clearly faster, or times may not decide; else ``fewer``."""
        if more == fewer or not self._holds(more):
            return fewer
        return more if not self.evaluator.is_timed or self._ratio(more, fewer) < _CLEARLY_FASTER else fewer

    def _spared(self, chosen: frozenset[str], groups: Sequence[Group]) -> frozenset[str]:
        """``chosen`` without the groups that cost much of the error and save next to nothing."""
        if self._share(chosen) <= _COMFORTABLE * self.allowance:
            return chosen
        left = self._ordered([group for group in groups if chosen.issuperset(group.names)])
        spare = _SPARED * sum(max(group.gain, 0.0) for group in left)
        while left and max(left[-1].gain, 0.0) <= spare:
            spare -= max(left.pop().gain, 0.0)
        fewer = _names(left)
        if not fewer or fewer == chosen or self._share(fewer) > _CLEARLY_LESS * self._share(chosen):
            return chosen
        return fewer if not self.evaluator.is_timed or self._ratio(fewer, chosen) < _AS_FAST else chosen

    def _ratio(self, one: frozenset[str], other: frozenset[str]) -> float:
        """How many times as long ``one`` takes as ``other``."""
        return self.evaluator.seconds(self.build(one)) / self.evaluator.seconds(self.build(other))

    def _ordered(self, groups: Sequence[Group]) -> list[Group]:
        """``groups`` by the price of a second; those for which there was no time come last."""
        unknown = [group for group in groups if group.names[0] not in self.errors]
        if unknown:
            self._measure(unknown)
        alone = [self.errors.get(group.names[0], math.inf) for group in groups]
        prices = [error**2 / max(group.gain, _NOTHING) for error, group in zip(alone, groups, strict=True)]
        return [group for _, _, group in sorted(zip(prices, range(len(groups)), groups, strict=True))]

    def _measure(self, groups: Sequence[Group]) -> None:
        """The error of each of ``groups`` alone, as long as there is time."""
        planned = len(groups) + math.ceil(math.log2(len(groups) + 1))  # one by one, and then halving
        self.progress.begin(f"search, at least {planned} measurements")
        for number, group in enumerate(groups):
            self.progress(number / planned)
            if self.evaluator.time_left() < (1 - _MEASURING) * self._budget:
                return
            self.errors.update(dict.fromkeys(group.names, self._share(frozenset(group.names))))

    def _longest_prefix(self, ordered: Sequence[Group]) -> int:
        steps = itertools.count(len(ordered))  # the single groups were measured before
        planned = len(ordered) + math.ceil(math.log2(len(ordered) + 1))

        def holds(length: int) -> bool:
            self.progress(next(steps) / planned)
            return self._holds(_names(ordered[:length]))

        return longest_prefix(len(ordered), holds)

    def _refined(self, prefix: int, ordered: Sequence[Group]) -> frozenset[str]:
        chosen = _names(ordered[:prefix])
        self.progress.begin("trying what is left one by one")
        for number, group in enumerate(ordered[prefix + 1 :]):
            self.progress(number / (len(ordered) - prefix - 1))
            if self.evaluator.time_left() < (1 - _REFINING) * self._budget:
                break
            alone = self.errors.get(group.names[0], math.inf)
            if self._share(chosen) ** 2 + alone**2 > (self.allowance * _SAFETY) ** 2:
                continue
            if self._holds(chosen | frozenset(group.names)):
                chosen |= frozenset(group.names)
        return chosen

    def _holds(self, names: frozenset[str]) -> bool:
        return self._share(names) <= self.allowance * _SAFETY

    def _share(self, names: frozenset[str]) -> float:
        if not names:
            return 0.0
        if names not in self.shares:
            self.shares[names] = self.evaluator.budget_used(self.build(names))
        return self.shares[names]


def longest_prefix(most: int, holds: Callable[[int], bool]) -> int:
    """The largest length up to ``most`` that ``holds``, by halving: 0 does, and what is shorter than one that does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def grouped(names: Sequence[str], gains: Mapping[str, float], most: int = _MOST_GROUPS) -> list[Group]:
    """Units as groups of neighbours, at most ``most`` of them.

    Args:
        names: In the order of the graph.
        gains: Seconds that each saves.
        most: How many groups at most.
    """
    size = math.ceil(len(names) / most)
    chunks = [tuple(names[start : start + size]) for start in range(0, len(names), size)] if size else []
    return [Group(chunk, sum(gains.get(name, 0.0) for name in chunk)) for chunk in chunks]


def _names(groups: Sequence[Group]) -> frozenset[str]:
    return frozenset(name for group in groups for name in group.names)
