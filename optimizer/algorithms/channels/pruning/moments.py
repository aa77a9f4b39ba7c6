"""Second moments of channels: how the channels of a value vary together, over all positions and calibration feeds.

They are those of the rows of a kernel of one tap (``optimizer.statistics.second_moments``), so a copy of the model is
given one for each value. C^2 numbers are kept for a value of C channels, however many feeds and positions there are,
and for all values together that the same weights read.

Behind a pool over the whole map there is one row a feed, too few to tell how channels depend on each other. What holds
for the channels in front of it at each position holds for their means too, so those are looked at in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Sites
from optimizer.graph import constants, queries
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.contract.evaluator import Evaluator
    from optimizer.statistics.second_moments import SecondMoments


_MEANS = frozenset({"GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Squeeze"})


def observed_value(groups: ChannelGroups, value: ir.Value) -> ir.Value:
    """The value whose channels are observed for those of ``value``: itself, or what it holds the means of."""
    axis_of_value = groups.channel_axes[value]
    producer = value.producer()
    while producer is not None and queries.is_standard(producer, *_MEANS):
        source = producer.inputs[0]
        channel_axis = groups.axis_of(source)
        if (
            source is None
            or channel_axis is None
            or not np.array_equal(channel_axis.channel_ids, axis_of_value.channel_ids)
        ):
            break
        value, producer = source, source.producer()
    return value


def channel_moments(
    model: ir.Model, channels: Mapping[str, tuple[int, int]], sum_keys: Mapping[str, Hashable], evaluator: Evaluator
) -> dict[str, SecondMoments]:
    """Second moments of the channels of values of the main graph.

    Args:
        model: Not changed.
        channels: By the value's name, the axis of its channels counted from the end, and how many there are. The axis
            is the last one, or the second one.
        sum_keys: By name, a key that is equal for values whose rows are summed up as one.
        evaluator: Runs the model.

    Returns:
        By name, with one group; one object for all values that are summed up together. Those that no feed reached, or
        that have too many channels, are left out.
    """
    copy = clone(model)
    rewriter = Rewriter(copy, Sites())
    values = {value.name: value for value in copy.graph.inputs}
    values.update((value.name, value) for node in copy.graph for value in node.outputs)
    # 1. A kernel of one tap behind each value: what its second moments are taken of are the channels at each position
    probes: dict[str, str] = {}
    for name, (from_end, count) in channels.items():
        probe = _probe(values[name], from_end, count, rewriter)
        if probe is not None:
            copy.graph.append(probe)
            probes[str(probe.outputs[0].name)] = name
    # 2. One sweep for all of them; rows of values that belong together are added up
    sums: dict[Hashable, SecondMoments] = {}
    moments_by_name: dict[str, SecondMoments] = {}
    for output, moments in evaluator.second_moments(copy, list(probes)) if probes else ():
        name = probes[output]
        if not moments.rows:
            continue
        if sum_keys[name] in sums:
            sums[sum_keys[name]].merge(moments)
        moments_by_name[name] = sums.setdefault(sum_keys[name], moments)
    return moments_by_name


def _probe(value: ir.Value, from_end: int, count: int, rewriter: Rewriter) -> ir.Node | None:
    """A kernel of one tap and one output that reads ``value``: its rows are the channels at each position.

    ``None`` where the channels are neither the last nor the second axis, or are not floating point.
    """
    rank = queries.rank(value)
    dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
    if rank is None or dtype.kind != "f":
        return None
    # Channels on the last axis are the rows of a MatMul, on the second those of a Conv
    is_row = from_end == 1
    if not is_row and (from_end != rank - 1 or rank < 3):
        return None
    shape = (count, 1) if is_row else (1, count, *[1] * (rank - 2))
    graph, name = rewriter.model.graph, rewriter.names.fresh("probe_weight")
    weight = constants.add_initializer(graph, name, np.zeros(shape, dtype))
    output = ir.Value(name=rewriter.names.fresh("probe"), type=value.type)
    return ir.node("MatMul" if is_row else "Conv", [value, weight], outputs=[output], name=output.name)
