"""One streaming sweep over feeds that looks at values inside a model.

The values are made outputs of a copy of the model, from which everything that they do not need is taken away. ONNX
Runtime optimizes the copy as ever: it fuses nothing across an output, so each value is what its name says. A run keeps
all its outputs until it ends, so where they would be too large together the values are observed in groups, in the
order of the graph, one sweep each; later groups run longer, the last one the whole model. The calibrators of ONNX
Runtime's quantizer add outputs likewise (``augment_graph``), all of them at once.

Feeds are loaded one at a time and each array is dropped once it was looked at: memory does not grow with their number.
Values inside ``If``, ``Loop`` and ``Scan`` bodies and of functions, and those that are not numeric tensors, cannot be
made outputs: they are not in the result.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from optimizer.analysis import shape_inference
from optimizer.errors import DataError, UsageError
from optimizer.evaluation.runtime import session as runtime
from optimizer.graph import constants, editing, queries, traversal
from optimizer.graph.names import NameGenerator, names_in_use
from optimizer.io.model import clone
from optimizer.statistics.tensor_statistics import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Visit = Callable[[str, NDArray[Any]], object]

GROUP_BYTES = 256 * 1024 * 1024  # what the observed values of one run may take together
_NO_AXES: Mapping[str, int] = MappingProxyType({})
_BYTES_IF_UNKNOWN = 4  # of an element, where not even the type is inferred
_TEXT = frozenset({ir.DataType.STRING, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128})


def observe(  # noqa: PLR0913 - what to look at, in what, and how; by keyword from the fourth on
    model: ir.Model,
    values: Sequence[str],
    feeds: Sequence[Mapping[str, Any]],
    *,
    channel_axes: Mapping[str, int] = _NO_AXES,
    threads: int = 1,
    progress: Callable[[float], None] = lambda _share: None,
    group_bytes: int = GROUP_BYTES,
) -> dict[str, Observation]:
    """Statistics of ``values`` over ``feeds``.

    Args:
        model: Not changed.
        values: Names of values of the main graph: inputs, initializers, outputs and what lies between.
        feeds: One inference each, loaded when asked for.
        channel_axes: For values whose channels are to be looked at apart as well, their axis.
        threads: Threads inside an operator.
        progress: Called with the share of the work done.
        group_bytes: What the observed values of one run may take together, by their sizes in the first feed; a value
            that is larger alone has a run of its own.

    Returns:
        An observation for each of the values that can be observed; of a value that no run computed (an input that may
        be left out, say) one with a count of 0.

    Raises:
        UsageError: If the model has no value of one of the names.
        DataError: If there are no feeds, or a value has no channels along its axis.
        ReferenceRunError: If ONNX Runtime cannot run the model.
    """
    names = observable(model, values)
    observations = {name: Observation.of(channel_axes.get(name)) for name in names}

    def look(name: str, array: NDArray[Any]) -> None:
        try:
            observations[name].add(array)
        except DataError as error:
            raise DataError(f"value {name!r}: {error}") from error

    visit(model, list(observations), feeds, look, threads=threads, progress=progress, group_bytes=group_bytes)
    return observations


def visit(  # noqa: PLR0913 - as above
    model: ir.Model,
    values: Sequence[str],
    feeds: Sequence[Mapping[str, Any]],
    look: Visit,
    *,
    threads: int = 1,
    progress: Callable[[float], None] = lambda _share: None,
    group_bytes: int = GROUP_BYTES,
) -> None:
    """Call ``look(name, array)`` for each of ``values`` in each of ``feeds``; constants come once.

    ``observe`` is made of it, and so are other statistics. Arguments and errors are the same; ``look`` must neither
    change nor keep the array.
    """
    need_feeds(feeds)
    # 1. Constants need no run. Inputs come from the feeds, in the first sweep.
    names = observable(model, values)
    main = _values(model)
    inputs = [name for name in names if main[name].is_graph_input()]
    for name in names:
        tensor = constants.constant_tensor(main[name])
        if tensor is not None:
            look(name, tensor.numpy())
    # 2. The others in groups, one sweep each. With inputs alone there is one sweep, and nothing runs.
    computed = [name for name in names if name not in inputs and constants.constant_tensor(main[name]) is None]
    groups = [group for group in _groups(model, computed, feeds[0], threads, group_bytes) if group]
    runs_done, runs = 0, max(len(groups), 1) * len(feeds)
    for number, group in enumerate(groups or [[]]):
        session = runtime.session(with_outputs(model, group), threads=threads) if group else None
        for feed in loaded(feeds):
            if number == 0:
                _look_at_inputs(main, inputs, feed, look)
            outputs = {} if session is None else session.run(feed)
            for name in group:
                look(name, outputs.pop(name))
            runs_done += 1
            progress(runs_done / runs)


def need_feeds(feeds: Sequence[Mapping[str, Any]]) -> None:
    """Check that there is something to look at.

    Raises:
        DataError: If there is no feed.
    """
    if not len(feeds):
        raise DataError("there are no calibration feeds; give at least one")


def observable(model: ir.Model, values: Iterable[str]) -> list[str]:
    """Those of ``values`` that can be observed, without repetition, in the order of the graph.

    Raises:
        UsageError: If the model has no value of one of the names.
    """
    main, wanted = _values(model), set(values)
    # A value inside a subgraph or function is left out, but its name is not wrong.
    unknown = wanted - main.keys()
    unknown = unknown and unknown - names_in_use(model)
    if unknown:
        raise UsageError(f"the model has no value {', '.join(map(repr, sorted(unknown)))}")
    chosen = {name: value for name, value in main.items() if name in wanted}
    lacking = any(value.type is None for value in chosen.values())
    inferred = shape_inference.inferred(model) if lacking else {}
    return [name for name, value in chosen.items() if _is_numeric(value.type or inferred.get(value, (None, None))[0])]


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of ``model`` whose outputs are the values ``names`` of its main graph, without all that they do not need.

    It has all inputs of ``model``, so the same feeds fit; ``onnx.utils.extract_model`` keeps only those in use.
    """
    copy = clone(model)
    main = _values(copy)
    _set_outputs(copy, [main[name] for name in names])
    return copy


def _set_outputs(copy: ir.Model, outputs: Sequence[ir.Value]) -> None:
    copy.graph.outputs.clear()
    for value in outputs:
        value.shape = None  # a stale one would be held against the real one
    copy.graph.outputs.extend(outputs)
    editing.remove_unused(list(copy.graph))
    for name, value in list(copy.graph.initializers.items()):
        if not queries.has_uses(value) and not value.is_graph_input():
            del copy.graph.initializers[name]


def _values(model: ir.Model) -> dict[str, ir.Value]:
    """The values of the main graph by name, in topological order."""
    main = model.graph
    values = {value.name: value for value in (*main.inputs, *main.initializers.values()) if value.name}
    for node in traversal.in_order(main):
        values.update((value.name, value) for value in node.outputs if value.name)
    return values


def _is_numeric(type_: ir.TypeProtocol | None) -> bool:
    return type_ is None or (isinstance(type_, ir.TensorType) and type_.dtype not in _TEXT)


def _look_at_inputs(main: Mapping[str, ir.Value], names: Sequence[str], feed: Mapping[str, Any], look: Visit) -> None:
    for name in names:
        tensor = main[name].const_value
        if feed.get(name) is not None:
            look(name, feed[name])
        elif tensor is not None:
            look(name, tensor.numpy())


def loaded(feeds: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Each feed, loaded when the one before is gone."""
    for number in range(len(feeds)):
        yield feeds[number]


def _groups(
    model: ir.Model, names: Sequence[str], feed: Mapping[str, Any], threads: int, limit: int
) -> list[list[str]]:
    """``names`` in groups of at most ``limit`` bytes."""
    return packed(sizes(model, names, feed, threads), limit)


def packed(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """The names in order, in groups of at most ``limit`` bytes; a larger one stands alone."""
    groups: list[list[str]] = [[]]
    taken = 0
    for name, size in sizes.items():
        if groups[-1] and taken + size > limit:
            groups.append([])
            taken = 0
        groups[-1].append(name)
        taken += size
    return groups


def sizes(model: ir.Model, names: Sequence[str], feed: Mapping[str, Any], threads: int) -> dict[str, int]:
    """The bytes of each of the values in ``feed``: a run that gives out their shapes alone."""
    if not names:
        return {}
    # A Shape behind each value, and those as the only outputs: nothing large is given out, or computed if unused.
    copy = clone(model)
    main, name_generator = _values(copy), NameGenerator(names_in_use(copy))
    if not queries.opset_version(copy):
        copy.graph.opset_imports[""] = 17
    shapes: dict[str, ir.Value] = {}
    for name in names:
        shapes[name] = ir.Value(name=name_generator.fresh(f"{name}.shape"), type=ir.TensorType(ir.DataType.INT64))
        copy.graph.append(ir.node("Shape", [main[name]], outputs=[shapes[name]]))
    _set_outputs(copy, list(shapes.values()))
    outputs = runtime.session(copy, threads=threads).run(feed)
    element_bytes = {name: _element_bytes(main[name]) for name in names}
    return {
        name: int(math.prod(outputs[str(value.name)].tolist()) * element_bytes[name]) for name, value in shapes.items()
    }


def _element_bytes(value: ir.Value) -> float:
    return _BYTES_IF_UNKNOWN if value.dtype is None else value.dtype.bitwidth / 8
