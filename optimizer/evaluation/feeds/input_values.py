"""Values for one input: by what the graph says about it, by its name, by its type and shape. Seeded.

The order is from the surest sign to the weakest: an operator that reads the input as a shape or an axis, masks,
lengths and positions by name, a table that it indexes, constants that it is compared with, and last its type. Feeds
differ: even ones are tame (states zero, masks full, floats in 0..1), odd ones are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.evaluation.feeds.operator_values import Operand, elements, value_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.evaluation.feeds.input_roles import Clues, Consumer

Array = "NDArray[np.generic]"
_MASK = re.compile(r"mask|valid|padding")
_TYPE = re.compile(r"type|segment")
_POSITION = re.compile(r"pos(ition)?(_|s|$|ids)")
_LENGTH = re.compile(r"len(s|gth|gths)?$|(^|_)len(gth)?(s)?(_|$)")
_STATE = re.compile(r"^(h|c|hx|cx|h_?0|c_?0|h_?in|c_?in)$|state|hidden_?in|past|cache|(^|_)(h|c)n?_?(in|prev|0)$")
_DIVISORS = {("Div", 1), ("Mod", 1)}
_WORDS = ("onnx", "Runtime", "graph", "model", "a b", "")


@dataclass(frozen=True)
class InputSpec:
    """An input that needs a value.

    Attributes:
        name: The input's name.
        dtype: Its element type; ``object`` for strings.
        shape: Its shape in this feed.
        clues: What the graph says about it.
        number: Number of the feed.
        shapes: Shapes of all inputs in this feed.
        wild_floats: Whether floats may be negative and large in odd feeds.
        int_limit: Upper limit of integers that nothing else bounds; ``None`` for the type's own habit.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    clues: Clues
    number: int
    shapes: Mapping[str, tuple[int, ...]]
    wild_floats: bool = True
    int_limit: int | None = None

    @property
    def odd(self) -> bool:
        """Whether this feed may be unusual."""
        return self.number % 2 == 1


def value(spec: InputSpec, rng: np.random.Generator) -> NDArray[np.generic]:
    """The value of one input, of its dtype and shape."""
    # 1. What an operator demands: the shape of a Reshape, the axes of a reduction.
    for consumer in spec.clues.consumers:
        operand_value = _by_operator(spec, consumer)
        if operand_value is not None:
            return operand_value
    # 2. By type: strings, booleans, integers, complex numbers, 4- and 2-bit integers of ml_dtypes, floats.
    type_kind = spec.dtype.kind
    if type_kind == "O":
        return np.array(rng.choice(_WORDS, spec.shape), dtype=object)
    if type_kind == "b":
        return np.asarray(_mask(spec, bool))
    if type_kind in "iu":
        integers = np.asarray(_integers(spec, rng)).astype(spec.dtype)
        # An integer division by zero can end the process.
        divides = any(consumer.operand in _DIVISORS for consumer in spec.clues.consumers)
        return np.where(integers == 0, np.ones_like(integers), integers) if divides else integers
    if type_kind == "c":
        return (rng.standard_normal(spec.shape) + 1j * rng.standard_normal(spec.shape)).astype(spec.dtype)
    if _is_small_integer(spec.dtype):
        return rng.integers(0, 2, spec.shape).astype(spec.dtype)
    return _floats(spec, rng).astype(spec.dtype)


def _by_operator(spec: InputSpec, consumer: Consumer) -> NDArray[np.generic] | None:
    def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        if value.name is not None and value.name in spec.shapes and value.is_graph_input():
            return spec.shapes[value.name]
        shape = spec.clues.shape_of(value)
        return shape.numpy() if shape is not None and shape.is_static() else None

    operand = Operand(consumer.node, elements(spec.shape), spec.number, shape_of)
    operand_value = value_for(consumer.node.op_type, consumer.index, operand)
    if operand_value is None:
        return None
    array = np.asarray(operand_value)
    if array.ndim and array.size != elements(spec.shape):
        return None
    return (array.reshape(spec.shape) if array.ndim else np.full(spec.shape, array)).astype(spec.dtype)


def _integers(spec: InputSpec, rng: np.random.Generator) -> Any:
    # 1. By name: masks, token types, positions, lengths.
    name, clues = _words(spec.name), spec.clues
    if _MASK.search(name):
        return _mask(spec, np.int64)
    if _TYPE.search(name) and spec.shape:
        return np.zeros(spec.shape, np.int64)
    if _POSITION.search(name) and spec.shape:
        return np.broadcast_to(np.arange(spec.shape[-1]) % (clues.id_limit or spec.shape[-1] or 1), spec.shape)
    if _LENGTH.search(name) and len(spec.shape) <= 1:
        return np.full(spec.shape, _length(spec))
    # 2. By the graph: rows of a table, constants that a scalar is compared with.
    if clues.id_limit is not None:
        return rng.integers(0, max(clues.id_limit, 1), spec.shape)
    if clues.equal and not spec.shape:
        return _compared(spec)
    # 3. By the style that is tried; bytes in their whole range, as pixels are; else small numbers that are not 0.
    if spec.int_limit is not None:
        return rng.integers(0, spec.int_limit, spec.shape)
    if spec.dtype.itemsize == 1:
        info = np.iinfo(spec.dtype)
        return rng.integers(info.min, info.max, spec.shape, endpoint=True)
    return rng.integers(1, 10, spec.shape)


def _compared(spec: InputSpec) -> int:
    """A scalar that is tested against constants takes each in turn, then another, so that every branch runs."""
    choices = [int(constant) for constant in spec.clues.equal]
    return (*choices, choices[0] // 2)[spec.number % (len(choices) + 1)]


def _mask(spec: InputSpec, dtype: type) -> NDArray[np.generic]:
    """Ones; in odd feeds the last quarter of the last axis is masked out."""
    mask: NDArray[np.generic] = np.ones(spec.shape, dtype)
    if spec.odd and spec.shape:
        mask[..., spec.shape[-1] - spec.shape[-1] // 4 :] = 0
    if not spec.shape and spec.odd and dtype is bool:
        return np.zeros((), dtype)
    return mask


def _length(spec: InputSpec) -> int:
    """The size of the axis that a length is about: of the input that shares most of its name, else of the largest."""
    others = {name: shape for name, shape in spec.shapes.items() if name != spec.name and len(shape) > 1}
    if not others:
        return 1
    stem = _LENGTH.sub("", _words(spec.name)).strip("_")
    named = [name for name in others if stem and stem in _words(name)]
    shape = others[named[0]] if named else max(others.values(), key=elements)
    size = shape[1] if len(shape) == 2 else max(shape[1:])
    return max(1, size * 3 // 4) if spec.odd else size


def _floats(spec: InputSpec, rng: np.random.Generator) -> NDArray[np.float64]:
    # 1. By name: states, masks. 2. By shape: images, sound. 3. Numbers in 0..1, in odd feeds around 0.
    shape = spec.shape
    if _STATE.search(_words(spec.name)):
        return 0.1 * rng.standard_normal(shape) if spec.odd else np.zeros(shape)
    if _MASK.search(_words(spec.name)):
        return _mask(spec, np.float64).astype(np.float64)
    if len(shape) == 4 and min(shape[2:], default=0) > 8:
        return _image(shape, rng, wild_floats=spec.odd and spec.wild_floats)
    if elements(shape) >= 2048 and len(shape) <= 2:
        return _audio(shape, rng, loud=spec.odd)
    if spec.odd and spec.wild_floats:
        return rng.standard_normal(shape)
    return rng.random(shape)


def _image(shape: tuple[int, ...], rng: np.random.Generator, *, wild_floats: bool) -> NDArray[np.float64]:
    """Smooth blobs and fine noise in 0..1, or around 0 with deviation 1; channels first or last.

    White noise alone would leave most networks with nearly the same answer for every feed.
    """
    # 1. At most 8 x 8 random values, stretched to the size of the image.
    axes = (1, 2) if shape[-1] <= 4 < shape[1] else (2, 3)
    coarse = list(shape)
    for axis in axes:
        coarse[axis] = min(8, shape[axis])
    blobs = rng.random(coarse)
    for axis in axes:
        blobs = _stretch(blobs, axis, shape[axis])
    # 2. A tenth of noise, and the normalization that image models are trained with, about.
    picture = np.clip(0.9 * blobs + 0.1 * rng.random(shape), 0, 1)
    return (picture - 0.5) / 0.25 if wild_floats else picture


def _stretch(array: NDArray[np.float64], axis: int, size: int) -> NDArray[np.float64]:
    """Linear interpolation along ``axis`` to ``size``."""
    coordinates = np.linspace(0, array.shape[axis] - 1, size)
    below = np.minimum(coordinates.astype(int), array.shape[axis] - 1)
    above = np.minimum(below + 1, array.shape[axis] - 1)
    weight = np.reshape(coordinates - below, [-1 if axis == dimension else 1 for dimension in range(array.ndim)])
    return np.asarray(np.take(array, below, axis) * (1 - weight) + np.take(array, above, axis) * weight)


def _audio(shape: tuple[int, ...], rng: np.random.Generator, *, loud: bool) -> NDArray[np.float64]:
    """A few swelling tones and noise along the last axis, at most about 0.1, or 0.5 if loud."""
    # Noise, and four tones whose loudness swells slowly; time in samples, pitch in radians a sample.
    time = np.arange(elements(shape)).reshape(shape)
    sound = 0.02 * rng.standard_normal(shape)
    for pitch in rng.uniform(0.01, 0.6, 4):
        sound += 0.05 * np.sin(pitch * time + rng.uniform(0, 6)) * (1 + np.sin(time * rng.uniform(1e-4, 1e-3))) / 2
    return sound * (4 if loud else 1)


def _is_small_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.name.startswith(("int", "uint"))


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
