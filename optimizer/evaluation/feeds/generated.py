"""Feeds made up for a model, so that it can be run without any data.

Sizes and values come from what the model declares and what its graph says; a plan is taken only if ONNX Runtime runs
it, else the next is tried. Where the model has dynamic dimensions, every second feed has other sizes, if these run: a
rewrite that is right at one size only must be caught. Polygraphy's ``DataLoader`` makes up inputs too, by type and
shape alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.analysis import shape_inference
from optimizer.analysis.macs import count_macs
from optimizer.errors import ReferenceRunError
from optimizer.evaluation.feeds import input_values, sets
from optimizer.evaluation.feeds import shapes as feed_shapes
from optimizer.evaluation.feeds.input_roles import Clues, clues
from optimizer.evaluation.feeds.input_values import InputSpec
from optimizer.evaluation.runtime.ort_values import element_type
from optimizer.evaluation.runtime.session import Session, Slot, session
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optimizer.evaluation.feeds.sets import Feed, Split
    from optimizer.evaluation.feeds.shapes import Key, Plan, Port

_SEARCH_SECONDS = 60.0
_COUNTS = ((8e9, 8), (30e9, 4), (60e9, 3), (float("inf"), 2))  # MACs of a run -> validation feeds; no clock decides
_UNKNOWN_RANK = (2,)
_SEQUENCE_ITEMS = 2


@dataclass(frozen=True)
class Style:
    """How values are chosen.

    Attributes:
        int_limit: Bounds integers that nothing else does.
        wild_floats: Whether floats may be negative and large in odd feeds.
    """

    int_limit: int | None = None
    wild_floats: bool = True


_STYLES = (
    Style(),
    Style(wild_floats=False),
    Style(int_limit=2),
    Style(int_limit=1),
    Style(int_limit=2, wild_floats=False),
)


@dataclass(frozen=True)
class FeedGenerator:
    """Makes feed number n; equal generators make equal feeds.

    Attributes:
        slots: The inputs of the session.
        ports: Their dimensions, fixed and free.
        clues: What the graph says about each input.
        plans: Sizes of the free dimensions, taken in turn.
        style: How values are chosen.
        seed: Seed of all values.
    """

    slots: tuple[Slot, ...]
    ports: tuple[Port, ...]
    clues: Mapping[str, Clues]
    plans: tuple[Plan, ...]
    style: Style
    seed: int

    def feed(self, number: int) -> Feed:
        """Feed number ``number``."""
        plan = self.plans[number % len(self.plans)]
        sizes = {port.name: feed_shapes.shape_of(port, plan) for port in self.ports}
        feed: Feed = {}
        for position, slot in enumerate(self.slots):
            rng = np.random.default_rng([self.seed, number, position])
            feed[slot.name] = self._value(slot, sizes, number, rng)
        return feed

    def _value(self, slot: Slot, sizes: Mapping[str, tuple[int, ...]], number: int, rng: np.random.Generator) -> Any:
        dtype = element_type(slot.type)
        if dtype is None:
            raise ReferenceRunError(
                f"no inputs can be generated for {slot.name!r} of type {slot.type}; give some with --data"
            )
        spec = InputSpec(
            slot.name, np.dtype(dtype.numpy()), sizes[slot.name], self.clues[slot.name], number, sizes,
            wild_floats=self.style.wild_floats, int_limit=self.style.int_limit,
        )  # fmt: skip
        if "seq(" in slot.type:
            return [input_values.value(spec, rng) for _ in range(_SEQUENCE_ITEMS)]
        return input_values.value(spec, rng)


def generate(
    model: ir.Model,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    count: int | None = None,
    threads: int = 1,
) -> Split:
    """Make feeds for ``model`` that ONNX Runtime runs.

    Args:
        model: The model; not changed.
        shapes: Shapes by input name where the user has set them.
        seed: Seed of all values.
        count: How many; by default as many as make 8 validation feeds, down to 2 for a model of many MACs.
        threads: Threads of ONNX Runtime.

    Raises:
        UsageError: If ``shapes`` does not fit the model.
        ReferenceRunError: If the model does not load, or no plan runs; it names ``--shape`` and ``--data``.
    """
    # 1. What is fixed, by the model or the user, and what is free.
    loaded = session(model, threads=threads)
    user_shapes = dict(shapes or {})
    ports = tuple(_port(slot, model) for slot in loaded.inputs)
    feed_shapes.check_shapes(user_shapes, ports)
    fixed = feed_shapes.pinned(ports, user_shapes)
    free = {key: role for key, role in feed_shapes.roles(ports).items() if key not in fixed}
    # 2. The first sizes and style that run, and second sizes that run too.
    generator = FeedGenerator(loaded.inputs, ports, _clues(model, loaded.inputs), (), Style(), seed)
    generator = _first_that_runs(generator, loaded, fixed, free)
    generator, notes = _vary(generator, loaded, fixed, free)
    # 3. Fewer feeds for models of many MACs.
    validation = next(feeds for limit, feeds in _COUNTS if _macs(model, generator) <= limit)
    return sets.split(generator.feed, count or 3 * validation, "generated", notes)


def _macs(model: ir.Model, generator: FeedGenerator) -> int:
    """MACs of a run at the sizes of the generator's first plan; 0 if they are unknown."""
    sized = clone(model)
    sizes = {port.name: feed_shapes.shape_of(port, generator.plans[0]) for port in generator.ports}
    for value in sized.graph.inputs:
        if value.name in sizes and isinstance(value.type, ir.TensorType):
            value.shape = ir.Shape(sizes[value.name])
    return count_macs(sized) or 0


def _port(slot: Slot, model: ir.Model) -> Port:
    declared = next((value for value in model.graph.inputs if value.name == slot.name), None)
    dtype = element_type(slot.type)
    discrete = dtype is not None and not dtype.is_floating_point()
    if declared is None or declared.shape is None:
        return feed_shapes.declared_port(
            slot.name, [None] * len(_UNKNOWN_RANK) if not slot.ranked else slot.shape, discrete=discrete
        )
    dims = [dim if isinstance(dim, int) else dim.value for dim in declared.shape]
    return feed_shapes.declared_port(slot.name, dims, discrete=discrete)


def _clues(model: ir.Model, slots: Sequence[Slot]) -> dict[str, Clues]:
    if model.functions:
        from onnx_ir.passes.common import InlinePass  # noqa: PLC0415 - few models have functions

        model = InlinePass()(clone(model)).model
    inferred = {value: shape for value, (_, shape) in shape_inference.inferred(model).items() if shape is not None}
    by_name = {value.name: value for value in model.graph.inputs}

    def shape_of(value: ir.Value) -> ir.Shape | None:
        shape = inferred.get(value)
        return shape if shape is not None and (shape.is_static() or value.shape is None) else value.shape

    return {slot.name: clues(by_name[slot.name], shape_of) for slot in slots}


def _first_that_runs(
    generator: FeedGenerator, loaded: Session, fixed: Plan, free: Mapping[Key, feed_shapes.Role]
) -> FeedGenerator:
    """The first plan and style that run, finite ones before others."""
    fallback: FeedGenerator | None = None
    reason = "it has no inputs"
    deadline = time.monotonic() + _SEARCH_SECONDS
    for style in _STYLES:
        for plan in feed_shapes.plans(free):
            candidate = replace(generator, plans=({**fixed, **plan},), style=style)
            try:
                finite = _trial(candidate, loaded, (0, 1))
            except ReferenceRunError as error:
                reason = str(error)
            else:
                # Outputs of NaN or infinity compare nothing: they serve only if no style gives finite ones.
                fallback = fallback or candidate
                if finite:
                    return candidate
                break
            if time.monotonic() > deadline:
                break
    if fallback is None:
        raise ReferenceRunError(
            f"no generated inputs run ({reason}); give shapes with --shape name:1,3,224,224, or real inputs with --data"
        )
    return fallback


def _vary(
    generator: FeedGenerator, loaded: Session, fixed: Plan, free: Mapping[Key, feed_shapes.Role]
) -> tuple[FeedGenerator, tuple[str, ...]]:
    """Add a plan of other sizes, if one runs."""
    first = generator.plans[0]
    for plan in feed_shapes.other_plans({key: first[key] for key in free}, free):
        candidate = replace(generator, plans=(first, {**fixed, **plan}))
        try:
            _trial(candidate, loaded, (1,))
        except ReferenceRunError:
            continue
        return candidate, (
            f"inputs were generated: {_described(generator, first)}, and {_described(generator, {**fixed, **plan})}",
        )
    extra = ("no other sizes of the dynamic dimensions run",) if free else ()
    return generator, (f"inputs were generated: {_described(generator, first)}", *extra)


def _trial(generator: FeedGenerator, loaded: Session, numbers: Sequence[int]) -> bool:
    """Run some feeds; whether all float outputs are finite.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot run one.
    """
    outputs = [output for number in numbers for output in loaded.run(generator.feed(number)).values()]
    return all(_finite(output) for output in outputs)


def _finite(output: Any) -> bool:
    if isinstance(output, list):
        return all(_finite(element) for element in output)
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f":
        return True
    return bool(np.isfinite(output).all())


def _described(generator: FeedGenerator, plan: Plan) -> str:
    shown = (f"{port.name}:{','.join(map(str, feed_shapes.shape_of(port, plan)))}" for port in generator.ports)
    return " ".join(shown) or "no inputs"
