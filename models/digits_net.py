"""A small convolutional net in NumPy, forward and backward, whose training gives the same bits on every machine.

    image / 16 -> [Conv 3x3 -> BatchNorm -> ReLU -> MaxPool 2] x 2 -> flatten -> Dropout
               -> Dense 32 -> [tied Dense 64 -> ReLU] x 2 -> Dense 10

The order in which a machine adds floats depends on its vector width and its BLAS, and so do the last bits of a sum.
Here every operand of a sum is first rounded to a multiple of 2**-GRID. Products of two of them are multiples of
2**-(2 * GRID), and a double holds their sums exactly while they stay below 2**(53 - 2 * GRID); an exact sum does not
depend on the order. All else is element by element, and correctly rounded by IEEE 754. No exponential is used: the
loss is a squared hinge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

GRID = 15
EPSILON = 2.0**-10
MOMENTUM = 0.875


def snap(array: Array) -> Array:
    """``array`` rounded to multiples of 2**-GRID, so that sums of it are exact."""
    return np.rint(array * 2.0**GRID) * 2.0**-GRID


def dot(left: Array, right: Array) -> Array:
    """Matrix product that is the same on every machine."""
    product: Array = snap(left) @ snap(right)
    return product


def total(array: Array) -> Array:
    """Sum over the first axis that is the same on every machine."""
    result: Array = snap(array).sum(axis=0)
    return result


@dataclass
class Parameter:
    """A learned array with its gradient and the two running moments of Adam."""

    value: Array
    gradient: Array = field(init=False)
    first: Array = field(init=False)
    second: Array = field(init=False)

    def __post_init__(self) -> None:
        self.gradient, self.first, self.second = (np.zeros_like(self.value) for _ in range(3))


def uniform(rng: np.random.Generator, *shape: int, fan_in: int) -> Parameter:
    """A parameter drawn from U(-a, a) with a = sqrt(6 / fan_in) (He et al., 2015)."""
    return Parameter((2.0 * rng.random(shape) - 1.0) * np.sqrt(6.0 / fan_in))


class Layer(ABC):
    """One layer; ``forward`` keeps what ``backward`` needs."""

    training = False
    parameters: Sequence[Parameter] = ()

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """The layer's output."""

    @abstractmethod
    def backward(self, gradient: Array) -> Array:
        """The gradient by the input from that by the output; adds up the parameters' gradients."""


class Conv(Layer):
    """3x3 convolution with padding 1, channels last: (N, H, W, C) -> (N, H, W, M)."""

    def __init__(self, rng: np.random.Generator, channels: int, maps: int) -> None:
        self.kernel = uniform(rng, 9 * channels, maps, fan_in=9 * channels)
        self.parameters = [self.kernel]

    def forward(self, x: Array) -> Array:
        """Patches times kernel."""
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = sliding_window_view(padded, (3, 3), axis=(1, 2))  # (N, H, W, C, 3, 3)
        self.shape = x.shape
        self.patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[3])
        return dot(self.patches, self.kernel.value).reshape(*x.shape[:3], -1)

    def backward(self, gradient: Array) -> Array:
        """Gradient by the input; adds up the kernel's."""
        flat = gradient.reshape(-1, gradient.shape[3])
        self.kernel.gradient += dot(self.patches.T, flat)
        batch, height, width, channels = self.shape
        parts = dot(flat, self.kernel.value.T).reshape(batch, height, width, 3, 3, channels)
        padded = np.zeros((batch, height + 2, width + 2, channels))
        for row in range(3):
            for column in range(3):
                padded[:, row : row + height, column : column + width] += parts[:, :, :, row, column]
        return padded[:, 1:-1, 1:-1]


class BatchNorm(Layer):
    """Normalization of the last axis over all others (Ioffe and Szegedy, 2015)."""

    def __init__(self, maps: int) -> None:
        self.scale, self.shift = Parameter(np.ones(maps)), Parameter(np.zeros(maps))
        self.mean, self.variance = np.zeros(maps), np.ones(maps)
        self.parameters = [self.scale, self.shift]

    def forward(self, x: Array) -> Array:
        """With the statistics of the batch while training, with the running ones after."""
        mean, variance = self.mean, self.variance
        if self.training:
            flat = x.reshape(-1, x.shape[-1])
            self.count = len(flat)
            mean = total(flat) / self.count
            variance = total(snap(flat - mean) ** 2) / self.count
            self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * mean
            self.variance = MOMENTUM * self.variance + (1 - MOMENTUM) * variance
        self.deviation = np.sqrt(variance + EPSILON)
        self.normal = (x - mean) / self.deviation
        return self.normal * self.scale.value + self.shift.value

    def backward(self, gradient: Array) -> Array:
        """Gradient by the input, through the statistics of the batch."""
        flat, normal = gradient.reshape(self.count, -1), self.normal.reshape(self.count, -1)
        along, across = total(flat), total(snap(flat) * snap(normal))
        self.shift.gradient += along
        self.scale.gradient += across
        centred = flat - along / self.count - normal * (across / self.count)
        return (centred * self.scale.value / self.deviation).reshape(gradient.shape)


class Relu(Layer):
    """max(x, 0)."""

    def forward(self, x: Array) -> Array:
        """Keeps where the input was positive."""
        self.positive = x > 0
        return x * self.positive

    def backward(self, gradient: Array) -> Array:
        """Passes the gradient where the input was positive."""
        return gradient * self.positive


class MaxPool(Layer):
    """Maximum of 2x2 squares, channels last."""

    def forward(self, x: Array) -> Array:
        """Keeps which of the four was the first largest."""
        batch, height, width, channels = x.shape
        squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
        flat = squares.reshape(*squares.shape[:4], 4)
        self.largest = flat.argmax(axis=4)
        highest: Array = flat.max(axis=4)
        return highest

    def backward(self, gradient: Array) -> Array:
        """Sends the gradient to the largest of the four."""
        batch, height, width, channels = gradient.shape
        flat = (np.arange(4) == self.largest[..., None]) * gradient[..., None]
        squares = flat.reshape(batch, height, width, channels, 2, 2).transpose(0, 1, 4, 2, 5, 3)
        wide: Array = squares.reshape(batch, 2 * height, 2 * width, channels)
        return wide


class Flatten(Layer):
    """(N, H, W, C) -> (N, C * H * W): channels first, as the exported graph has them."""

    def forward(self, x: Array) -> Array:
        """Channels first, then one row an image."""
        self.shape = x.shape
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        """The way back."""
        batch, height, width, channels = self.shape
        return gradient.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


class Dropout(Layer):
    """Zeroes a quarter of the elements while training (Srivastava et al., 2014)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def forward(self, x: Array) -> Array:
        """Scales what is left by 4/3."""
        self.kept = (self.rng.random(x.shape) >= 0.25) / 0.75 if self.training else np.ones_like(x)
        return x * self.kept

    def backward(self, gradient: Array) -> Array:
        """Passes the gradient of what was kept."""
        return gradient * self.kept


class Dense(Layer):
    """x @ weight + bias; give it another layer's parameters to tie the two."""

    def __init__(self, weight: Parameter, bias: Parameter) -> None:
        self.weight, self.bias = weight, bias
        self.parameters = [weight, bias]

    def forward(self, x: Array) -> Array:
        """Matrix product and sum."""
        self.x = x
        return dot(x, self.weight.value) + self.bias.value

    def backward(self, gradient: Array) -> Array:
        """Gradient by the input; adds up the parameters'."""
        self.weight.gradient += dot(self.x.T, gradient)
        self.bias.gradient += total(gradient)
        return dot(gradient, self.weight.value.T)


def build(rng: np.random.Generator) -> list[Layer]:
    """The layers of the net, in order; ``digits_onnx.py`` relies on it."""
    tied = uniform(rng, 64, 64, fan_in=64), Parameter(np.zeros(64))
    return [
        Conv(rng, 1, 16),
        BatchNorm(16),
        Relu(),
        MaxPool(),
        Conv(rng, 16, 32),
        BatchNorm(32),
        Relu(),
        MaxPool(),
        Flatten(),
        Dropout(rng),
        Dense(uniform(rng, 128, 64, fan_in=128), Parameter(np.zeros(64))),
        Dense(*tied),
        Relu(),
        Dense(*tied),
        Relu(),
        Dense(uniform(rng, 64, 10, fan_in=64), Parameter(np.zeros(10))),
    ]


def forward(layers: list[Layer], images: Array, *, training: bool = False) -> Array:
    """Scores, (N, 10), of images with pixels 0 to 16, (N, 8, 8, 1)."""
    x = images / 16.0
    for layer in layers:
        layer.training = training
        x = layer.forward(x)
    return x
