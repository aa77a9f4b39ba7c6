"""Whether calibration data suits the model: the most frequent cause of a bad int8 model is wrong preprocessing.

What is looked at, and what it takes to be named:

- **The first BatchNormalization on each path from an input** holds mean m and variance v of its input in training.
  It is named where the observed variance is beyond 16 times larger or smaller, or the mean more than 3 sqrt(v) away, in
  the median over the channels. Real inputs of real models: factors up to 4.4 and distances up to 0.8; inputs of 0..255
  where 0..1 was trained: a factor of 20,000 and more. Later ones tell less, since normalization in between hides the
  scale. Look at the model as it was exported: fusing takes the BatchNormalization away.
- **Inputs**: all feeds the same; nearly all elements at the two ends of the range; NaN or infinity.
- **Outputs** that are the same for all feeds, NaN or infinite.
- **Tensors** that are zero in all feeds, since no range can be told, and those whose largest element is 100 times their
  99.9th percentile or more, since few levels remain for all the others.

Nothing can be told from a range alone: many models take 0..255 and normalize inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.evaluation.calibration.sweep import observe
from optimizer.graph import constants, queries, traversal
from optimizer.graph.names import first_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optimizer.statistics.tensor_statistics import Observation

_VARIANCE_FACTOR = 16.0
_DISTANCE = 3.0
_LEAST_ELEMENTS = 100  # of a channel, for its variance to mean anything
_LIVE = 1e-6  # of the median variance: channels below are dead
_SATURATED = 0.95  # share of elements at the two ends
_SAME = 1e-6  # of the largest magnitude: rounding
_ENOUGH_FEEDS = 8  # for an integer output, which may well be equal a few times
_OUTLIER_FACTOR = 100.0
_OUTLIER_PERCENTILE = 99.9
_LEAST_POPULATION = 10_000  # elements, for that percentile to mean anything
_SHAPE_OPS = ("Shape", "Size", "ConstantOfShape")
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def values_to_observe(model: ir.Model) -> dict[str, int | None]:
    """The values to observe for ``warnings``, and the axis of their channels: inputs, outputs, first normalizations.

    To look at more tensors costs no more than to observe them, in the same sweep.
    """
    ports = (*model.graph.inputs, *model.graph.outputs)
    channel_axes: dict[str, int | None] = {value.name: None for value in ports if value.name}
    channel_axes.update(
        (str(node.inputs[0].name), 1) for node in _first_normalizations(model) if node.inputs[0] is not None
    )
    return channel_axes


def check(model: ir.Model, feeds: Sequence[Mapping[str, Any]], *, threads: int = 1) -> tuple[str, ...]:
    """The warnings about ``feeds``, in a sweep of their own.

    Args:
        model: As it was exported.
        feeds: Calibration feeds.
        threads: Threads inside an operator.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot run the model.
    """
    values = values_to_observe(model)
    axes = {name: axis for name, axis in values.items() if axis is not None}
    return warnings(model, observe(model, list(values), feeds, channel_axes=axes, threads=threads))


def warnings(model: ir.Model, observations: Mapping[str, Observation]) -> tuple[str, ...]:
    """What looks wrong with the data, one line each; nothing where all looks right.

    Args:
        model: As it was exported; what is left out of ``observations`` is not judged.
        observations: By the names of its values; those of ``wanted`` at least.
    """
    observed = {
        name: observation for name, observation in observations.items() if observation.count or observation.non_finite
    }
    inputs = [str(value.name) for value in model.graph.inputs if value.name in observed and not value.is_initializer()]
    outputs = [value for value in model.graph.outputs if value.name in observed]
    inner = [name for name in _inner_floats(model) if name in observed]
    return (
        *_about_inputs(model, inputs, observed),
        *_about_preprocessing(model, inputs, observed),
        *_about_outputs(outputs, observed),
        *_about_tensors(inner, observed),
    )


def _about_inputs(model: ir.Model, inputs: Sequence[str], observed: Mapping[str, Observation]) -> Iterator[str]:
    feeds = max((observed[name].feeds for name in inputs), default=0)
    if feeds > 1 and all(observed[name].feed_change == 0 for name in inputs):
        yield f"all {feeds} feeds are the same: ranges are those of a single inference"
    for value in model.graph.inputs:
        name = str(value.name)
        if name not in inputs or value.dtype not in _FLOATS:
            continue
        observation = observed[name]
        if observation.non_finite:
            yield f"input {name!r} holds {observation.non_finite:,} elements that are NaN or infinite"
        low, high = observation.minimum, observation.maximum
        at_ends = observation.share(low, low) + observation.share(high, high)
        # All of it at the ends: it has two values, as a mask has.
        if not observation.is_constant and _SATURATED <= at_ends < 1:
            yield f"input {name!r} is saturated: {at_ends:.1%} of it is {low:.4g} or {high:.4g}"


def _about_preprocessing(model: ir.Model, inputs: Sequence[str], observed: Mapping[str, Observation]) -> Iterator[str]:
    for node in _first_normalizations(model):
        name = str(node.inputs[0].name) if node.inputs[0] is not None else ""
        channels = observed[name].channels if name in observed else None
        if channels is None or channels.count.min(initial=_LEAST_ELEMENTS) < _LEAST_ELEMENTS:
            continue
        trained = _trained(node)
        if trained is None or trained[0].shape != channels.mean.shape:
            continue
        mean, variance = trained
        # Without dead channels, whose variance in training was next to nothing; tiny stands in for a variance of 0.
        live = variance > _LIVE * np.median(variance)
        factor = float(np.median((channels.variance[live] + np.finfo(float).tiny) / variance[live]))
        distance = float(np.median(np.abs(channels.mean - mean)[live] / np.sqrt(variance[live])))
        if 1 / _VARIANCE_FACTOR <= factor <= _VARIANCE_FACTOR and distance <= _DISTANCE:
            continue
        spans = ", ".join(f"{key!r} spans {observed[key].minimum:.4g} to {observed[key].maximum:.4g}" for key in inputs)
        yield (
            f"preprocessing looks wrong: {name!r}, before the first BatchNormalization, has {factor:.3g} times the"
            f" variance of the training data, and means {distance:.3g} deviations away; {spans}"
        )


def _about_outputs(outputs: Sequence[ir.Value], observed: Mapping[str, Observation]) -> Iterator[str]:
    # Integer outputs, such as a class, may be equal a few times by chance; floats are not.
    constant = []
    for value in outputs:
        observation = observed[str(value.name)]
        if observation.non_finite:
            yield f"output {value.name!r} holds {observation.non_finite:,} elements that are NaN or infinite"
        enough = 2 if value.dtype in _FLOATS else _ENOUGH_FEEDS
        is_same = observation.feed_change <= _SAME * observation.largest or observation.is_constant
        if observation.feeds >= enough and is_same and not observation.non_finite:
            constant.append(str(value.name))
    if constant:
        yield f"the same for all feeds: output {first_few(constant)}; the data may be no inputs of this model"


def _about_tensors(names: Sequence[str], observed: Mapping[str, Observation]) -> Iterator[str]:
    zero = [name for name in names if observed[name].is_constant and observed[name].largest == 0]
    if zero:
        yield f"zero in all feeds, so without a range: {first_few(zero)}"
    factors = {name: _outlier_factor(observed[name]) for name in names}
    far = sorted((name for name in names if factors[name] >= _OUTLIER_FACTOR), key=lambda name: -factors[name])
    if far:
        worst = f"{factors[far[0]]:,.0f} times its {_OUTLIER_PERCENTILE:g}th percentile"
        yield f"outliers, the worst {worst}: {first_few(far)}"


def _outlier_factor(observation: Observation) -> float:
    """The largest magnitude over the percentile of magnitudes; 1 where too few elements were seen."""
    if observation.count < _LEAST_POPULATION:
        return 1.0
    bulk = observation.range("percentile", percentile=_OUTLIER_PERCENTILE, symmetric=True).largest
    return observation.largest / bulk if bulk else 1.0


def _first_normalizations(model: ir.Model) -> list[ir.Node]:
    """BatchNormalizations of the main graph whose input no other one has normalized."""
    normalizations = []
    # Each node's outputs are raw or normalized by its inputs, in topological order; one normalized input is enough.
    raw = {value for value in model.graph.inputs if not value.is_initializer()}
    normalized: set[ir.Value] = set()
    for node in traversal.in_order(model.graph):
        inputs = [value for value in (*node.inputs, *traversal.captured(node)) if value is not None]
        is_first = queries.is_standard(node, "BatchNormalization") and inputs[0] in raw and queries.rank(inputs[0]) != 1
        if is_first:
            normalizations.append(node)
        if is_first or any(value in normalized for value in inputs):
            normalized.update(node.outputs)
        elif any(value in raw for value in inputs):
            raw.update(node.outputs)
    return normalizations


def _inner_floats(model: ir.Model) -> list[str]:
    """Values between inputs and outputs that data reaches, not only its shape, as far as they are or may be floats."""
    reached = {value for value in model.graph.inputs if not value.is_initializer()}
    values = []
    for node in traversal.in_order(model.graph):
        if queries.is_standard(node, *_SHAPE_OPS) or not reached.intersection(
            (*node.inputs, *traversal.captured(node))
        ):
            continue
        reached.update(node.outputs)
        values += [value for value in node.outputs if value.dtype in {None, *_FLOATS} and not value.is_graph_output()]
    return [value.name for value in values if value.name]


def _trained(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean and variance of the training data, (channels,) each; ``None`` where they are unknown or were never set."""
    if node.attributes.get_int("training_mode", 0) or len(node.inputs) < 5:
        return None
    arrays = [constants.constant_array(value) for value in node.inputs[3:5]]
    if arrays[0] is None or arrays[1] is None:
        return None
    mean, variance = (np.asarray(array, np.float64) for array in arrays)
    # 0 and 1 are how a BatchNormalization begins, or how it is used as a mere scale and shift.
    if (np.all(mean == 0) and np.all(variance == 1)) or not np.median(variance) > 0:
        return None
    return mean, variance
