"""`insert-qdq`: static int8 with QuantizeLinear / DequantizeLinear pairs, where ONNX Runtime fuses them and it pays.

Ranges come from the calibration feeds. Which kernels become int8 is searched: as much as the budget allows, by the
error on the selection feeds and the time that each saves. The rest stays float, and is named with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from optimizer.algorithms.quantization import linear
from optimizer.algorithms.quantization.static.fusion_table import constant_type
from optimizer.algorithms.quantization.static.search import Int8Options, Int8Search
from optimizer.algorithms.quantization.static.units import find_units
from optimizer.algorithms.search.levels import Levels, Point, within_budget
from optimizer.contract.choices import Choices
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.passes import Gain, Note, Pass, PassResult, Step
from optimizer.contract.targets import resolve
from optimizer.errors import PreconditionError, no_such
from optimizer.statistics.ranges import Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.algorithms.quantization.linear import IntegerRange
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

PER_TENSOR_OPSET, PER_CHANNEL_OPSET = 10, 13
_GRIDS = {"uint8": linear.UINT8, "int8": linear.INT8}
UNITS = Step("units", "nodes that become int8 together")


@dataclass(frozen=True)
class Int8Choices(Choices):
    """What was decided.

    Attributes:
        units: Their names.
        ranges: How ranges follow from what was seen.
        adaptive: First outputs of the kernels whose weights are rounded by what they are multiplied with.
    """

    units: tuple[str, ...]
    ranges: Method
    adaptive: tuple[str, ...]


@dataclass(frozen=True)
class InsertQdq(NodeFilterOptions, Pass):
    """Let kernels run in int8.

    Attributes:
        granularity: A scale for each output channel of a weight, or one for the whole tensor.
        ranges: How ranges follow from what was seen.
        activation: The type of activations; ``auto`` is the target's. On x86 it is always uint8: ONNX Runtime rewrites
            int8 there, and fails to where a value has several readers.
        reduced_range: Whether weights use 7 bits, so that sums of pairs fit into 16; ``None`` is the target's.
        correct_bias: Whether biases make up for the mean error of the weights.
        rounding: Of weights: to the nearest integer, or so that outputs change least on the calibration feeds.
        search: Whether to leave out what the budget does not allow; without, all or nothing.
    """

    name: ClassVar[str] = "insert-qdq"
    summary: ClassVar[str] = "run kernels in int8 where it pays, inside the budget; ranges from the calibration feeds"
    gain: ClassVar[Gain] = Gain.LATENCY
    choices_type: ClassVar[type[Int8Choices]] = Int8Choices

    granularity: Literal["channel", "tensor"] = "channel"
    ranges: Literal["auto"] | Method = "auto"
    activation: Literal["auto", "uint8", "int8"] = "auto"
    reduced_range: bool | None = None
    correct_bias: bool = True
    rounding: Literal["adaptive", "nearest"] = "adaptive"
    search: bool = True

    @property
    def exact(self) -> bool:
        """8 bits are never exact."""
        return False

    @property
    def oldest_opset(self) -> int:
        """That of QuantizeLinear, with a scale for each channel or one for the tensor."""
        return PER_CHANNEL_OPSET if self.granularity == "channel" else PER_TENSOR_OPSET

    def steps(self) -> Sequence[Step]:
        """The units."""
        return (UNITS,)

    def requires(self, model: ir.Model, context: Context) -> None:
        """Data, a runtime, and something in float.

        Raises:
            PreconditionError: Saying which of these is missing and what to do.
        """
        super().requires(model, context)
        units, left = find_units(model)
        if not any(unit.is_kernel for unit in units):
            reasons = sorted({one.reason for one in left})
            raise PreconditionError(f"no kernel can be quantized: {'; '.join(reasons) or 'there is none'}")
        if not _evaluator(context).has_data:
            raise PreconditionError("ranges need real inputs; give --data, or --allow-generated-data to make some up")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Insert pairs into ``model``."""
        evaluator = _evaluator(context)
        found, left = find_units(model)
        choice = self.node_filter
        held = {node.outputs[0].name for node in model.graph if choice.matches(node)}
        units = [
            unit for unit in found if held.issuperset(unit.outputs) and context.sites.permits(UNITS.name, unit.name)
        ]
        method, adaptive = self.ranges, self._adaptive
        replayed = context.replayed(Int8Choices)
        if replayed is not None:
            method, adaptive = replayed.ranges, replayed.adaptive
        options = Int8Options(
            self._grids(context.target), self.granularity == "channel", self.correct_bias, adaptive, method
        )
        work = Int8Search.of(model, units, evaluator, options)
        notes = [Note(unit.name, f"left float: {unit.reason}") for unit in left]
        unmatched = [Note(pattern, "matches no node") for pattern in choice.unmatched(model)]

        def build(_context: Context, point: Point) -> PassResult:
            chosen = work.everything() - point.finer
            stay = [Note(name, f"left float: {reason}") for name, reason in work.reasons(chosen).items()]
            if not chosen:
                return PassResult(model, {}, [*notes, *stay, *unmatched])
            kernels = sum(len(unit.outputs) for unit in units if unit.is_kernel and unit.name in chosen)
            choices = Int8Choices(tuple(sorted(chosen)), work.method, work.adaptive)
            return PassResult(work.build(chosen), {"kernels in int8": kernels}, [*notes, *stay, *unmatched], choices)

        if replayed is not None:
            known = [unit.name for unit in found]
            for name in replayed.units:
                if name not in known:
                    raise PreconditionError(f"choices:units: {no_such('unit', name, known)}")
            return build(context, Point(finer=work.everything() - set(replayed.units)))
        if not self.search:
            return build(context, Point())
        return within_budget(Levels(build, work.savings), context, work.measured)

    @property
    def _adaptive(self) -> tuple[str, ...] | None:
        """Which kernels' weights are rounded by what they are multiplied with: all for which there is time, or none."""
        return None if self.rounding == "adaptive" else ()

    def _grids(self, target: str) -> tuple[IntegerRange, IntegerRange, IntegerRange]:
        """The integers of activations, of constants that meet them, and of weights."""
        machine = resolve(target)
        activation = (
            machine.activation if self.activation == "auto" or machine.name.startswith("x86") else self.activation
        )
        reduced = machine.reduced_range if self.reduced_range is None else self.reduced_range
        constant = constant_type(activation, machine.name)
        weight = linear.WEIGHT_INT7 if reduced else linear.WEIGHT_INT8
        return _GRIDS[activation], _GRIDS[constant], weight


def _evaluator(context: Context) -> Evaluator:
    if context.evaluator is None:
        raise PreconditionError("ranges and errors need runs; leave out --no-run")
    return context.evaluator
