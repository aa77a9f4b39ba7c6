"""From a float model and its units to the int8 candidate that the budget allows: ranges, gains, search.

What was observed and measured is kept in the evaluator's memo: a second try with a stricter aim runs nothing again
that is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from optimizer.algorithms.quantization.static.adaptive_rounding import adaptive_weights
from optimizer.algorithms.quantization.static.candidates import Int8Candidates, to_observe
from optimizer.algorithms.quantization.static.placement import place
from optimizer.algorithms.search import profile_gains
from optimizer.algorithms.search.levels import Measured
from optimizer.contract.memo import MemoKey
from optimizer.graph import constants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.quantization.linear import IntegerRange
    from optimizer.algorithms.quantization.static.units import Unit
    from optimizer.contract.evaluator import Evaluator
    from optimizer.statistics.ranges import Method
    from optimizer.statistics.tensor_statistics import Observation, Range

_AUTO: tuple[Method, ...] = ("min-max", "percentile", "mse")
_ROUNDING = 0.4  # share of the time that the rounding of weights may take


@dataclass(frozen=True)
class Int8Options:
    """How units are quantized.

    Attributes:
        grids: The integers of activations, of constants that meet them, and of weights.
        per_channel: Whether each output channel of a weight has its own scale.
        correct_bias: Whether biases make up for the mean error of weights.
        adaptive: First outputs of the kernels whose weights are rounded by what they are multiplied with, as far as
            that is known; ``None`` is all for which there is time.
        method: How ranges are taken; ``auto`` takes the one of least error.
    """

    grids: tuple[IntegerRange, IntegerRange, IntegerRange]
    per_channel: bool
    correct_bias: bool
    adaptive: tuple[str, ...] | None
    method: Literal["auto"] | Method


@dataclass(frozen=True)
class _Int8SearchFor(MemoKey["Int8Search"]):
    """The search among these units."""

    units: tuple[str, ...]
    options: Int8Options


@dataclass
class Int8Search:
    """One float model, and what was found out about quantizing it.

    Attributes:
        candidates: Builds candidates.
        units: Those that take part, by name, in order.
        evaluator: Measures.
        method: How ranges are taken.
        unseen: Units that were left out since their values were never observed.
        adaptive: First outputs of the kernels whose weights are rounded by what they are multiplied with.
        measured: What choices of units, at level 0, use of the budget.
        gains: Seconds that each unit saves, once they were asked for.
    """

    candidates: Int8Candidates
    units: Mapping[str, Unit]
    evaluator: Evaluator
    method: Method
    unseen: tuple[str, ...] = ()
    adaptive: tuple[str, ...] = ()
    measured: Measured = field(default_factory=Measured)
    gains: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model, units: Sequence[Unit], evaluator: Evaluator, options: Int8Options) -> Int8Search:
        """Observe what ``units`` of the float ``model`` need, or take it from the evaluator's memo."""
        key = _Int8SearchFor(tuple(unit.name for unit in units), options)
        return evaluator.memo.get(model, key, lambda: cls._observed(model, units, evaluator, options))

    @classmethod
    def _observed(
        cls, model: ir.Model, units: Sequence[Unit], evaluator: Evaluator, options: Int8Options
    ) -> Int8Search:
        needed, axes = to_observe(model, units)
        seen = evaluator.observe(model, list(dict.fromkeys(name for names in needed.values() for name in names)), axes)
        unseen = tuple(unit.name for unit in units if not _are_seen(needed[unit.name], seen))
        joining = _joining(model, [unit for unit in units if unit.name not in unseen])
        candidates = Int8Candidates(
            model, seen, _Ranges(seen, "min-max"), *options.grids, options.per_channel, options.correct_bias
        )
        adaptive = options.adaptive
        candidates.weights = adaptive_weights(
            model, _kernels(joining) if adaptive is None else adaptive, evaluator, options.grids[2],
            per_channel=options.per_channel, correct_bias=options.correct_bias,
            until=(1 - _ROUNDING) * evaluator.time_left() if adaptive is None else -math.inf,
        )  # fmt: skip
        rounded = tuple(candidates.weights)
        method = _AUTO[0] if options.method == "auto" else options.method
        search = cls(candidates, {unit.name: unit for unit in joining}, evaluator, method, unseen, rounded)
        candidates.ranges = _Ranges(seen, method)
        if options.method == "auto":
            search._choose_ranges()
        return search

    def everything(self) -> frozenset[str]:
        """The names of all units."""
        return frozenset(self.units)

    def build(self, names: frozenset[str]) -> ir.Model:
        """The candidate in which the units of these names are int8."""
        return self.candidates.build({output for name in names for output in self.units[name].outputs})

    def savings(self) -> dict[str, float]:
        """Seconds that each unit saves; without times, the bytes of its weights count."""
        if not self.gains:
            self.gains = self._gains()
        return self.gains

    def reasons(self, chosen: frozenset[str]) -> dict[str, str]:
        """Why the kernels that are not ``chosen`` stayed float."""
        reasons = dict.fromkeys(self.unseen, "none of the feeds reaches it")
        for name, unit in self.units.items():
            if name in chosen or not unit.is_kernel:
                continue
            gain, error = self.gains.get(name, math.nan), self.measured.errors[0].get(name)
            if gain <= 0:
                reasons[name] = f"int8 is no faster here ({gain * 1e3:+.3f} ms saved)"
            elif error is None:
                reasons[name] = "the budget is used by others"
            else:
                reasons[name] = f"it alone uses {error:.0%} of the budget"
        return reasons

    def _choose_ranges(self) -> None:
        """Take the method of least error over everything."""
        ranges = {method: _Ranges(self.candidates.observations, method) for method in _AUTO}
        errors = {}
        for method in _AUTO:
            self.candidates.ranges = ranges[method]
            errors[method] = self.evaluator.budget_used(self.build(self.everything()))
        self.method = min(errors, key=lambda name: errors[name])
        self.candidates.ranges = ranges[self.method]
        self.measured.shares[0][self.everything()] = errors[self.method]

    def _gains(self) -> dict[str, float]:
        nodes = {node.outputs[0].name: node for node in self.candidates.model.graph}
        if not self.evaluator.is_timed:
            return {name: float(_bytes(unit, nodes)) for name, unit in self.units.items()}
        placement = place(self.candidates.model, {output for unit in self.units.values() for output in unit.outputs})
        names = {
            name: tuple(
                frozenset({node.name or "", output, placement.tails[node].name or ""})
                for output in unit.outputs
                if (node := nodes[output]) in placement.tails
            )
            for name, unit in self.units.items()
        }
        before = profile_gains.by_name(self.evaluator.profile(self.candidates.model))
        after = profile_gains.by_name(self.evaluator.profile(self.build(self.everything())))
        gains = profile_gains.gains(names, before, after)
        measured = [gain for gain in gains.values() if not math.isnan(gain)]
        average = sum(measured) / len(measured) if measured else 1.0
        return {name: average if math.isnan(gain) else gain for name, gain in gains.items()}


def _joining(model: ir.Model, units: Sequence[Unit]) -> list[Unit]:
    """Kernels, and the glue that has a place between them when all are int8."""
    placement = place(model, {output for unit in units for output in unit.outputs})
    joined = {node.outputs[0].name for node in placement.nodes}
    return [unit for unit in units if unit.is_kernel or any(output in joined for output in unit.outputs)]


def _kernels(units: Sequence[Unit]) -> list[str]:
    return [output for unit in units if unit.is_kernel for output in unit.outputs]


def _are_seen(names: Sequence[str], seen: Mapping[str, Observation]) -> bool:
    return all(name in seen and seen[name].count for name in names)


class _Ranges(dict[str, "Range"]):
    """The range of each value that was seen, computed when it is first asked for: some methods search long."""

    def __init__(self, seen: Mapping[str, Observation], method: str) -> None:
        """Nothing is computed yet."""
        super().__init__()
        self._seen, self._method = seen, method

    def __missing__(self, name: str) -> Range:
        chosen = self[name] = self._seen[name].range(self._method)
        return chosen


def _bytes(unit: Unit, nodes: Mapping[str | None, ir.Node]) -> int:
    """Bytes of the constants that the unit reads, at least 1: activations take less room too."""
    tensors = [constants.constant_tensor(value) for output in unit.outputs for value in nodes[output].inputs]
    return 1 + sum(tensor.nbytes for tensor in tensors if tensor is not None)
