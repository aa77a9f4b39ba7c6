"""Which channels of which values depend on each other: what removing channels has to keep consistent.

A *channel axis* is an axis of a value along which channels lie; each position of it has a *channel id*. Operators unify
channel ids: those of two operands of an Add are one, a Concat puts axes behind each other, a depthwise Conv hands its
input's ids on, a Flatten repeats each of them, a kernel ends one channel axis and begins another. In the end all
positions are partitioned into *channel groups*, which can only be removed as a whole: the *units* of pruning. It is
what Torch-Pruning calls a dependency graph (DepGraph: Fang et al. 2023, arXiv:2301.12900) and NNCF propagates as
pruning masks, found by union and find over single channels instead of whole layers, so that Concat, Split and Flatten
need no rules of their own.

::

    Conv 1 ── Relu ──┐                           Conv 1, Conv 2 and Relu carry the same 64 ids, since the Add unifies
                     Add ── Conv 3 ── Flatten    them; Conv 3 reads them as a *consumer*; its own 32 ids lie on the
    Conv 2 ──────────┘                           flattened axis 49 times each.

A channel id is *frozen* if something reads its channel in a way that is not understood: outputs of the graph, unknown
operators, normalizations over the channels, subgraphs. Which operator does what is in
``optimizer.algorithms.channels.dependency.operators``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Hashable

    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ChannelAxis:
    """The channels of a value.

    Attributes:
        from_end: Their axis, counted from the end; 1 is the last.
        channel_ids: The channel id of each position along that axis, before ``ChannelGroups.roots``; (size,).
    """

    from_end: int
    channel_ids: NDArray[np.int64]

    @property
    def size(self) -> int:
        """The size of the axis."""
        return int(self.channel_ids.size)


@dataclass(frozen=True)
class SlicedParameter:
    """A constant whose axis carries channel ids: a weight, a bias, the scales of a normalization.

    Attributes:
        value: The constant.
        axis: Of the constant, from 0.
        channel_ids: One for each position along the axis; (size,).
        is_vector: Whether it has no other axes.
        readers: Its consumers: nodes, and the number of the input.
    """

    value: ir.Value
    axis: int
    channel_ids: NDArray[np.int64]
    is_vector: bool
    readers: set[tuple[ir.Node, int]] = field(default_factory=set)


@dataclass(frozen=True)
class SizeConstant:
    """An element of an integer constant that counts channels: of a Reshape's target, say.

    Attributes:
        node: The consumer of the constant.
        index: Which of its inputs it is.
        position: Of the element.
        channel_ids: Those that it counts; (number,).
    """

    node: ir.Node
    index: int
    position: int
    channel_ids: NDArray[np.int64]


@dataclass(frozen=True)
class ChannelConsumer:
    """Where a channel axis ends: a kernel that sums over the channels of what it reads.

    Attributes:
        node: The kernel.
        channel_axis: Of what it reads.
        weight: Its weight.
        axis: The weight's axis of input channels.
        produced: Its own channel ids, by position of its output; (outputs,), empty if it begins no channel axis.
        output_axis: The weight's axis of output channels.
    """

    node: ir.Node
    channel_axis: ChannelAxis
    weight: ir.Value
    axis: int
    produced: NDArray[np.int64]
    output_axis: int


@dataclass
class ChannelGroups:
    """The channel axes of one graph, what of it is as wide as they are, and which channel ids are one.

    Attributes:
        opset: The version of the standard operators.
        prunes_states: Whether recurrent nodes begin channel axes.
        channel_axes: By value.
        sliced_parameters: Constants to slice when channel ids go, by constant, axis and, for vectors, consumer.
        size_constants: Elements of constants that count channels.
        consumers: In the order of the graph.
        producers: For each node that begins a channel axis, its channel ids; (outputs,).
        selected: For values that have some positions of the axis that they come from, which: Split, Slice, Gather and
            Flatten; (size,).
        element_offsets: For those of them that have one element of a channel at a position, which one; (size,).
        concatenated_sizes: For each Concat along channels, how many come from each input.
        group_ids: For each kernel with groups, the channel id of each group; (groups,).
        hidden_units: For each recurrent node that begins a channel axis, its channel ids; (units,).
    """

    opset: int
    prunes_states: bool = False
    channel_axes: dict[ir.Value, ChannelAxis] = field(default_factory=dict)
    sliced_parameters: dict[Hashable, SlicedParameter] = field(default_factory=dict)
    size_constants: list[SizeConstant] = field(default_factory=list)
    consumers: list[ChannelConsumer] = field(default_factory=list)
    producers: dict[ir.Node, NDArray[np.int64]] = field(default_factory=dict)
    selected: dict[ir.Value, NDArray[np.int64]] = field(default_factory=dict)
    element_offsets: dict[ir.Value, NDArray[np.int64]] = field(default_factory=dict)
    concatenated_sizes: dict[ir.Node, list[int]] = field(default_factory=dict)
    group_ids: dict[ir.Node, NDArray[np.int64]] = field(default_factory=dict)
    hidden_units: dict[ir.Node, NDArray[np.int64]] = field(default_factory=dict)
    _parents: list[int] = field(default_factory=list)
    _frozen: dict[int, str] = field(default_factory=dict)

    def begin(self, node: ir.Node, size: int, from_end: int) -> ChannelAxis:
        """A new channel axis of ``size`` new channel ids on the first output of ``node``."""
        channel_ids = self.new_channel_ids(size)
        self.producers[node] = channel_ids
        return self.put(node.outputs[0], ChannelAxis(from_end, channel_ids))

    def new_channel_ids(self, count: int) -> NDArray[np.int64]:
        """Channel ids that are unified with nothing yet; (count,)."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def put(self, value: ir.Value, channel_axis: ChannelAxis) -> ChannelAxis:
        """Give ``value`` the channel axis."""
        self.channel_axes[value] = channel_axis
        return channel_axis

    def select(self, value: ir.Value, source: ChannelAxis, positions: NDArray[np.int64]) -> ChannelAxis:
        """Give ``value`` some positions of a channel axis, on the same axis."""
        self.selected[value] = positions
        return self.put(value, ChannelAxis(source.from_end, source.channel_ids[positions]))

    def axis_of(self, value: ir.Value | None) -> ChannelAxis | None:
        """The channel axis of ``value``, if it has one."""
        return None if value is None else self.channel_axes.get(value)

    def unify(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Make the channel ids at the same positions of both, (size,), one."""
        for first_id, second_id in zip(first.tolist(), second.tolist(), strict=True):
            # The smaller root stays, so that roots do not depend on the order of unification
            a, b = self._root(first_id), self._root(second_id)
            if a != b:
                self._parents[max(a, b)] = min(a, b)

    def freeze(self, channel_ids: NDArray[np.int64], reason: str) -> None:
        """Forbid to remove ``channel_ids``; the first reason counts."""
        for channel_id in channel_ids.tolist():
            self._frozen.setdefault(channel_id, reason)

    def slice_parameter(self, node: ir.Node, index: int, axis: int, channel_ids: NDArray[np.int64]) -> None:
        """Note that ``axis`` of the constant that is input ``index`` of ``node`` carries ``channel_ids``.

        All consumers of a weight have to agree, so their channel ids are unified. A vector is copied for each that
        slices it.
        """
        value = _constant(node, index)
        tensor = constants.constant_tensor(value)
        is_vector = tensor is not None and tensor.size == channel_ids.size
        parameter = self.sliced_parameters.setdefault(
            (value, axis, (node, index) if is_vector else None), SlicedParameter(value, axis, channel_ids, is_vector)
        )
        parameter.readers.add((node, index))
        if parameter.channel_ids is not channel_ids:
            self.unify(parameter.channel_ids, channel_ids)

    def add_size_constant(self, node: ir.Node, index: int, position: int, channel_ids: NDArray[np.int64]) -> None:
        """Note that an element of the integer constant that is input ``index`` of ``node`` counts ``channel_ids``."""
        _constant(node, index)
        self.size_constants.append(SizeConstant(node, index, position, channel_ids))

    def freeze_shared_parameters(self) -> None:
        """Freeze the channel ids of parameters that are graph outputs, or that a consumer reads which is not sliced."""
        for parameter in self.sliced_parameters.values():
            readers = {(use.node, use.idx) for use in parameter.value.uses()}
            if not parameter.is_vector and (readers != parameter.readers or parameter.value.is_graph_output()):
                self.freeze(parameter.channel_ids, f"{parameter.value.name} is read elsewhere too")

    def roots(self, channel_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each of ``channel_ids``, (size,), the root of its channel group; (size,)."""
        return np.fromiter((self._root(channel_id) for channel_id in channel_ids.tolist()), np.int64, channel_ids.size)

    def frozen(self) -> dict[int, str]:
        """Why channel groups may not go, by root; the first reason of any member."""
        reasons: dict[int, str] = {}
        for channel_id, reason in self._frozen.items():
            reasons.setdefault(self._root(channel_id), reason)
        return reasons

    def _root(self, channel_id: int) -> int:
        # Find with path halving: every other id on the way is hung up to its grandparent (Tarjan & van Leeuwen 1984)
        parents = self._parents
        while parents[channel_id] != channel_id:
            parents[channel_id] = parents[parents[channel_id]]
            channel_id = parents[channel_id]
        return channel_id


def _constant(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None or constants.constant_tensor(value) is None:
        raise ValueError(f"input {index} of {queries.site(node)} is no constant")
    return value
