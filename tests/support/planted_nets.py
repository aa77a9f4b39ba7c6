"""Random nets whose channels are planted: equal, parallel, constant and unused ones beside those of a compact net.

``Planter`` grows a net operator by operator. Each value has *kinds*: for every channel, where it comes from. The
widths without what was planted are known, so that a pass can be asked to come back to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Channel:
    """Where a channel comes from: channel ``own`` of the compact net times ``scale``, a constant, or nowhere."""

    own: int
    scale: float = 1.0
    kind: str = "own"  # or dead, unused


@dataclass
class Value:
    name: str
    channels: list[Channel]
    size: int  # of each axis behind the channels
    rank: int


@dataclass
class Planter:
    """Grows a net of ``dims`` spatial axes.

    Attributes:
        seed: Of all weights.
        opset: Its version.
        scaled: Whether parallel channels are planted, and all operators let factors pass.
        padded: Whether convolutions are padded, so that constants have to be zero.
    """

    seed: int
    opset: int = 17
    dims: int = 2
    scaled: bool = True
    padded: bool = False
    kind: Any = np.float32
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def name(self) -> str:
        return f"v{len(self.nodes)}"

    def constant(self, array: Any, kind: Any = None) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array).astype(kind or self.kind), name))
        return name

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        name = self.name()
        outs = [name] if outputs == 1 else [f"{name}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, outs, name=f"n{len(self.nodes)}", **attributes))
        return outs

    def plant(self, width: int) -> list[Channel]:
        """Channels of the compact net in random order, with others planted between them."""
        channels = [Channel(at) for at in range(width)]
        for _ in range(self.random.integers(0, 4)):
            scale = float(self.random.uniform(0.3, 3)) if self.scaled and self.random.random() < 0.5 else 1.0
            channels.append(Channel(int(self.random.integers(width)), scale))
        kinds = ["dead", "unused"]
        channels += [Channel(-1, kind=kinds[at]) for at in self.random.integers(0, 2, self.random.integers(0, 3))]
        return [channels[at] for at in self.random.permutation(len(channels))]

    def rows(self, channels: list[Channel], columns: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (width, inputs, taps) and bias of the compact net, as planted along ``channels``."""
        weight = np.zeros((len(channels), *columns.shape[1:]))
        planted = np.zeros(len(channels))
        for at, channel in enumerate(channels):
            if channel.kind == "own":
                weight[at], planted[at] = columns[channel.own] * channel.scale, bias[channel.own] * channel.scale
            elif channel.kind == "unused":
                weight[at], planted[at] = self.random.normal(size=columns.shape[1:]), self.random.normal()
            else:
                planted[at] = 0 if self.padded else self.random.normal()
        return weight, planted

    def columns(self, value: Value, width: int, taps: tuple[int, ...]) -> np.ndarray:
        """A weight (width, channels of ``value``, taps): what it takes from one origin is spread over its channels.

        With one sign, since sums that cancel would leave nothing but rounding to compare.
        """
        weight = self.random.normal(size=(width, len(value.channels), *taps)) / np.sqrt(len(value.channels))
        first: dict[int, int] = {}
        for at, channel in enumerate(value.channels):
            if channel.kind == "unused":
                weight[:, at] = 0
            elif channel.kind == "own":
                weight[:, at] = weight[:, first.setdefault(channel.own, at)] * self.random.uniform(0.3, 1)
        return weight

    def source(self, width: int) -> tuple[Value, onnx.ValueInfoProto]:
        """The input of the net."""
        size = 9
        info = helper.make_tensor_value_info(
            "x", helper.np_dtype_to_tensor_dtype(np.dtype(self.kind)), [2, width, *[size] * self.dims]
        )
        return Value("x", [Channel(at) for at in range(width)], size, self.dims + 2), info

    def conv(
        self,
        value: Value,
        width: int,
        channels: list[Channel] | None = None,
        *,
        transposed: bool = False,
        taps: int | None = None,
    ) -> Value:
        """A convolution of the compact width ``width``."""
        taps = taps or (int(self.random.choice([1, 3])) if value.size >= 3 else 1)
        channels = self.plant(width) if channels is None else channels
        columns = self.columns(value, width, (taps,) * self.dims)
        weight, bias = self.rows(channels, columns, self.random.normal(size=width))
        pads = taps // 2 if self.padded and not transposed else 0
        if transposed:
            weight = np.swapaxes(weight, 0, 1)
        operator = "ConvTranspose" if transposed else "Conv"
        inputs = [value.name, self.constant(weight), self.constant(bias)]
        (out,) = self.add(operator, inputs, pads=[pads] * 2 * self.dims)
        self.widths[self.nodes[-1].name] = width
        size = value.size + (taps - 1 if transposed else 2 * pads - taps + 1)
        return Value(out, channels, size, value.rank)

    def depthwise(self, value: Value, width: int) -> Value:
        """A convolution of each channel by itself; ``width`` is that of the compact net."""
        taps = 3 if value.size >= 3 else 1
        weight, bias = self.rows(
            [Channel(channel.own, 1, channel.kind) for channel in value.channels],
            self.random.normal(size=(width, 1, *(taps,) * self.dims)),
            np.zeros(width),
        )
        own = self.random.normal(size=width)
        bias = np.array([own[c.own] * c.scale if c.kind == "own" else 0.0 for c in value.channels])
        pads = taps // 2 if self.padded else 0
        inputs = [value.name, self.constant(weight), self.constant(bias)]
        (out,) = self.add("Conv", inputs, pads=[pads] * 2 * self.dims, group=len(value.channels))
        return Value(out, value.channels, value.size + 2 * pads - taps + 1, value.rank)

    def batch_norm(self, value: Value, width: int) -> Value:
        """Batch normalization with the same factor for the channels of one origin, and shifts to go with it."""
        factor, shift = self.random.uniform(0.5, 2, width), self.random.normal(size=width)
        own = [c.kind == "own" for c in value.channels]
        scale = [factor[c.own] if at else 1.0 for at, c in zip(own, value.channels, strict=True)]
        bias = [shift[c.own] * c.scale if at else 0.0 for at, c in zip(own, value.channels, strict=True)]
        one, zero = np.ones(len(own)), np.zeros(len(own))
        names = [self.constant(array) for array in (scale, bias, zero, one)]
        (out,) = self.add("BatchNormalization", [value.name, *names])
        return Value(out, value.channels, value.size, value.rank)

    def unary(self, value: Value, op: str, **attributes: Any) -> Value:
        (out,) = self.add(op, [value.name], **attributes)
        return Value(out, value.channels, value.size, value.rank)

    def pool(self, value: Value, op: str) -> Value:
        if value.size < 2:
            return value
        (out,) = self.add(op, [value.name], kernel_shape=[2] * self.dims, strides=[2] * self.dims)
        return Value(out, value.channels, value.size // 2, value.rank)

    def sum(self, one: Value, other: Value, op: str = "Add") -> Value:
        (out,) = self.add(op, [one.name, other.name])
        return Value(out, one.channels, one.size, one.rank)

    def concat(self, one: Value, other: Value) -> Value:
        (out,) = self.add("Concat", [one.name, other.name], axis=1)
        moved = [Channel(c.own + 1000, c.scale, c.kind) for c in other.channels]
        return Value(out, [*one.channels, *moved], one.size, one.rank)

    def parts(self, value: Value) -> Value:
        """Split the channels in two, and join them again the other way round.

        Only where each part has an origin of its own, since no part can be left empty.
        """
        at = len(value.channels) // 2
        one, other = ({c.own for c in part if c.kind == "own"} for part in (value.channels[:at], value.channels[at:]))
        if not one or not other or one & other:
            return value
        sizes = [at, len(value.channels) - at]
        if self.opset < 13:
            first, second = self.add("Split", [value.name], 2, axis=1, split=sizes)
        else:
            first, second = self.add("Split", [value.name, self.constant(sizes, np.int64)], 2, axis=1)
        (out,) = self.add("Concat", [second, first], axis=1)
        return Value(out, [*value.channels[at:], *value.channels[:at]], value.size, value.rank)

    def to_last(self, value: Value) -> Value:
        """Move the channels to the last axis."""
        (out,) = self.add("Transpose", [value.name], perm=[0, *range(2, value.rank), 1])
        return Value(out, value.channels, value.size, value.rank)

    def matmul(self, value: Value, width: int) -> Value:
        """A MatMul and an Add, for channels on the last axis."""
        channels = self.plant(width)
        weight, bias = self.rows(channels, self.columns(value, width, ()), self.random.normal(size=width))
        (out,) = self.add("MatMul", [value.name, self.constant(weight.T)])
        self.widths[self.nodes[-1].name] = width
        (out,) = self.add("Add", [out, self.constant(bias)])
        return Value(out, channels, value.size, value.rank)

    def head(self, value: Value, classes: int = 3) -> str:
        """Flatten and a Gemm: the output of the net."""
        (flat,) = self.add("Flatten", [value.name])
        weight = self.columns(value, classes, (value.size,) * self.dims)
        weight = weight.reshape(classes, -1) / value.size
        inputs = [flat, self.constant(weight), self.constant(self.random.normal(size=classes))]
        (out,) = self.add("Gemm", inputs, transB=1)
        return out

    def model(self, source: onnx.ValueInfoProto, output: str) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        graph = helper.make_graph(
            self.nodes, "planted", [source], [helper.make_tensor_value_info(output, kind, None)], self.constants
        )
        opsets = [helper.make_opsetid("", self.opset)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
        onnx.checker.check_model(made, full_check=True)
        assert TensorProto.FLOAT  # the default kind
        return made
