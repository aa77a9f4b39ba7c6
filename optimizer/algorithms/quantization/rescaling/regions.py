"""Regions: values whose channels may be scaled at no change of any answer, if all that make and read them make up.

A region is closed. What makes its values are sources, which can divide a channel by any factor; all that reads them
are kernels, which can multiply the weights of that input channel by it. In between is only what factors pass through
(``optimizer.algorithms.channels.homogeneous``)::

    source / s  ->  Relu, pools, Add of two such …  ->  kernel * s

Which nodes count as sources is the caller's choice (``optimizer.algorithms.quantization.rescaling.sources``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from optimizer.algorithms.channels.homogeneous import as_homogeneous
from optimizer.algorithms.quantization.rescaling.sources import ScalableNode, from_end, shift_obstacle, weight_obstacle
from optimizer.graph import linear_nodes, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.channels.axes import Channels
    from optimizer.algorithms.channels.homogeneous import HomogeneousShift
    from optimizer.graph.linear_nodes import LinearNode


@dataclass(frozen=True)
class RegionReader:
    """A kernel that reads a region; each of its channels is a block of ``block`` of the kernel's input channels."""

    kernel: LinearNode
    block: int


@dataclass
class RescalingRegion:
    """Values that scale together, channel by channel.

    Attributes:
        count: How many channels.
        start: The source that it was found from.
        values: Where they lie in each value.
        sources: What makes them.
        readers: What reads them in the end.
        shifts: Constants in between that scale too, with the node that reads each.
        is_read: Whether any kernel reads it, one whose weight may not be scaled too.
        obstacle: Why it may not be scaled, empty if it may: the first that was found.
    """

    count: int
    start: ir.Node | None = None
    values: dict[ir.Value, Channels] = field(default_factory=dict)
    sources: dict[ir.Node, ScalableNode] = field(default_factory=dict)
    readers: dict[ir.Node, RegionReader] = field(default_factory=dict)
    shifts: dict[tuple[ir.Node, ir.Value], HomogeneousShift] = field(default_factory=dict)
    is_read: bool = False
    obstacle: str = ""

    @property
    def name(self) -> str:
        """The site of the node that it was found from."""
        return "?" if self.start is None else queries.site(self.start)

    def read(self) -> list[ir.Value]:
        """The values that its kernels read."""
        values = (reader.kernel.node.inputs[0] for reader in self.readers.values())
        return list(dict.fromkeys(value for value in values if value is not None))


SourceOf: TypeAlias = "Callable[[ir.Node], ScalableNode | str | None]"


def find_regions(model: ir.Model, source_of: SourceOf) -> list[RescalingRegion]:
    """The regions of the main graph of ``model`` that begin at a source, those with an obstacle too.

    Args:
        model: Not changed.
        source_of: The source that a node is; why it cannot be scaled; or ``None`` if it is nothing of the kind.
    """
    regions: list[RescalingRegion] = []
    seen: set[ir.Value] = set()
    for node in model.graph:
        scalable = source_of(node)
        value = node.outputs[0] if node.outputs else None
        if scalable is None or value is None or value in seen:
            continue
        if isinstance(scalable, str):
            regions.append(RescalingRegion(0, node, obstacle=f"{queries.site(node)} {scalable}"))
            continue
        region = _flood(value, scalable.channels, source_of)
        region.start = node
        seen.update(region.values)
        regions.append(region)
    return regions


def _flood(start: ir.Value, channels: Channels, source_of: SourceOf) -> RescalingRegion:
    """The whole region of ``start``; an obstacle does not end the search, so that none of it is searched again."""
    region = RescalingRegion(channels.count)
    waiting = [(start, channels)]
    while waiting:
        value, channels = waiting.pop()
        if value in region.values:
            if region.values[value] != channels:
                _hinder(region, f"{value.name} is read with its channels in two ways")
            continue
        region.values[value] = channels
        if value.is_graph_output():
            _hinder(region, f"{value.name} is an output of the graph")
        waiting += _behind(region, value, channels)
        waiting += _before(region, value, channels, source_of)
    if not region.is_read:
        _hinder(region, "no kernel reads it")
    return region


def _hinder(region: RescalingRegion, obstacle: str) -> None:
    region.obstacle = region.obstacle or obstacle


def _before(
    region: RescalingRegion, value: ir.Value, channels: Channels, source_of: SourceOf
) -> Sequence[tuple[ir.Value, Channels]]:
    node = value.producer()
    if node is None:
        _hinder(region, f"{value.name} is an input of the graph")
        return ()
    scalable = source_of(node)
    if isinstance(scalable, str):
        _hinder(region, f"{queries.site(node)} {scalable}")
        return ()
    if isinstance(scalable, ScalableNode):
        if scalable.channels != channels:
            _hinder(region, f"{queries.site(node)} has its channels elsewhere")
        region.sources[node] = scalable
        return ()
    return _tied(region, node, value, channels, "made by")


def _behind(region: RescalingRegion, value: ir.Value, channels: Channels) -> list[tuple[ir.Value, Channels]]:
    reached: list[tuple[ir.Value, Channels]] = []
    for use in value.uses():
        node = use.node
        kernel = linear_nodes.as_linear(node)
        if node.graph is not value.graph:
            _hinder(region, f"{value.name} is read in a subgraph")
        elif kernel is None or use.idx != 0:
            reached += _tied(region, node, value, channels, "read by")
        else:
            _read(region, kernel, channels)
    return reached


def _read(region: RescalingRegion, kernel: LinearNode, channels: Channels) -> None:
    region.is_read = True
    if reason := weight_obstacle(kernel):
        _hinder(region, f"{queries.site(kernel.node)} {reason}")
    elif kernel.inputs != channels.size or from_end(kernel) != channels.from_end:
        _hinder(region, f"{queries.site(kernel.node)} has its channels elsewhere")
    else:
        region.readers[kernel.node] = RegionReader(kernel, channels.block)


def _tied(
    region: RescalingRegion, node: ir.Node, value: ir.Value, channels: Channels, how: str
) -> Sequence[tuple[ir.Value, Channels]]:
    homogeneous = as_homogeneous(node, value, channels)
    if homogeneous is None:
        _hinder(region, f"{how} {node.op_type}, which a factor does not pass")
        return ()
    for shift in homogeneous.shifts:
        if (reason := shift_obstacle(shift.value, node)) != "":
            _hinder(region, f"{queries.site(node)} {reason}")
        region.shifts[node, shift.value] = shift
    return homogeneous.values
