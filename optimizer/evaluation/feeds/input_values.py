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

from optimizer.evaluation.feeds.operator_values import Ask, elements, value_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.evaluation.feeds.input_roles import Arrival, Clues

Array = "NDArray[np.generic]"
_MASK = re.compile(r"mask|valid|padding")
_TYPE = re.compile(r"type|segment")
_POSITION = re.compile(r"pos(ition)?(_|s|$|ids)")
_LENGTH = re.compile(r"len(s|gth|gths)?$|(^|_)len(gth)?(s)?(_|$)")
_STATE = re.compile(r"^(h|c|hx|cx|h_?0|c_?0|h_?in|c_?in)$|state|hidden_?in|past|cache|(^|_)(h|c)n?_?(in|prev|0)$")
_DIVISORS = {("Div", 1), ("Mod", 1)}
_WORDS = ("onnx", "Runtime", "graph", "model", "a b", "")


@dataclass(frozen=True)
class Wanted:
    """An input that needs a value.

    Attributes:
        name: The input's name.
        dtype: Its element type; ``object`` for strings.
        shape: Its shape in this feed.
        clues: What the graph says about it.
        number: Number of the feed.
        shapes: Shapes of all inputs in this feed.
        wild: Whether floats may be negative and large in odd feeds.
        ints: Upper limit of integers that nothing else bounds; ``None`` for the type's own habit.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    clues: Clues
    number: int
    shapes: Mapping[str, tuple[int, ...]]
    wild: bool = True
    ints: int | None = None

    @property
    def odd(self) -> bool:
        """Whether this feed may be unusual."""
        return self.number % 2 == 1


def value(wanted: Wanted, rng: np.random.Generator) -> NDArray[np.generic]:
    """The value of one input."""
    for arrival in wanted.clues.arrivals:
        found = _by_operator(wanted, arrival)
        if found is not None:
            return found
    kind = wanted.dtype.kind
    if kind == "O":
        return np.array(rng.choice(_WORDS, wanted.shape), dtype=object)
    if kind == "b":
        return np.asarray(_mask(wanted, bool))
    if kind in "iu":
        whole = np.asarray(_integers(wanted, rng)).astype(wanted.dtype)
        divides = any(arrival.place in _DIVISORS for arrival in wanted.clues.arrivals)
        return np.where(whole == 0, np.ones_like(whole), whole) if divides else whole
    if kind == "c":
        return (rng.standard_normal(wanted.shape) + 1j * rng.standard_normal(wanted.shape)).astype(wanted.dtype)
    if _is_small_integer(wanted.dtype):
        return rng.integers(0, 2, wanted.shape).astype(wanted.dtype)
    return _floats(wanted, rng).astype(wanted.dtype)


def _by_operator(wanted: Wanted, arrival: Arrival) -> NDArray[np.generic] | None:
    def shape_of(item: ir.Value | None) -> tuple[int, ...] | None:
        if item is None:
            return None
        if item.name is not None and item.name in wanted.shapes and item.is_graph_input():
            return wanted.shapes[item.name]
        shape = wanted.clues.shape_of(item)
        return shape.numpy() if shape is not None and shape.is_static() else None

    ask = Ask(arrival.node, elements(wanted.shape), wanted.number, shape_of)
    found = value_for(arrival.node.op_type, arrival.index, ask)
    if found is None:
        return None
    array = np.asarray(found)
    if array.ndim and array.size != elements(wanted.shape):
        return None
    return (array.reshape(wanted.shape) if array.ndim else np.full(wanted.shape, array)).astype(wanted.dtype)


def _integers(wanted: Wanted, rng: np.random.Generator) -> Any:
    name, clues = _words(wanted.name), wanted.clues
    if _MASK.search(name):
        return _mask(wanted, np.int64)
    if _TYPE.search(name) and wanted.shape:
        return np.zeros(wanted.shape, np.int64)
    if _POSITION.search(name) and wanted.shape:
        return np.broadcast_to(np.arange(wanted.shape[-1]) % (clues.rows or wanted.shape[-1] or 1), wanted.shape)
    if _LENGTH.search(name) and len(wanted.shape) <= 1:
        return np.full(wanted.shape, _length(wanted))
    if clues.rows is not None:
        return rng.integers(0, max(clues.rows, 1), wanted.shape)
    if clues.equal and not wanted.shape:
        return _compared(wanted)
    if wanted.ints is not None:
        return rng.integers(0, wanted.ints, wanted.shape)
    if wanted.dtype.itemsize == 1:
        info = np.iinfo(wanted.dtype)
        return rng.integers(info.min, info.max, wanted.shape, endpoint=True)
    return rng.integers(1, 10, wanted.shape)


def _compared(wanted: Wanted) -> int:
    """A scalar that is tested against constants takes each in turn, then another, so that every branch runs."""
    choices = [int(item) for item in wanted.clues.equal]
    return (*choices, choices[0] // 2)[wanted.number % (len(choices) + 1)]


def _mask(wanted: Wanted, dtype: type) -> NDArray[np.generic]:
    """Ones; in odd feeds the last quarter of the last axis is masked out."""
    mask: NDArray[np.generic] = np.ones(wanted.shape, dtype)
    if wanted.odd and wanted.shape:
        mask[..., wanted.shape[-1] - wanted.shape[-1] // 4 :] = 0
    if not wanted.shape and wanted.odd and dtype is bool:
        return np.zeros((), dtype)
    return mask


def _length(wanted: Wanted) -> int:
    """The size of the axis that a length is about: of the input that shares most of its name, else of the largest."""
    others = {name: shape for name, shape in wanted.shapes.items() if name != wanted.name and len(shape) > 1}
    if not others:
        return 1
    stem = _LENGTH.sub("", _words(wanted.name)).strip("_")
    named = [name for name in others if stem and stem in _words(name)]
    shape = others[named[0]] if named else max(others.values(), key=elements)
    size = shape[1] if len(shape) == 2 else max(shape[1:])
    return max(1, size * 3 // 4) if wanted.odd else size


def _floats(wanted: Wanted, rng: np.random.Generator) -> NDArray[np.float64]:
    shape = wanted.shape
    if _STATE.search(_words(wanted.name)):
        return 0.1 * rng.standard_normal(shape) if wanted.odd else np.zeros(shape)
    if _MASK.search(_words(wanted.name)):
        return _mask(wanted, np.float64).astype(np.float64)
    if len(shape) == 4 and min(shape[2:], default=0) > 8:
        return _image(shape, rng, wild=wanted.odd and wanted.wild)
    if elements(shape) >= 2048 and len(shape) <= 2:
        return _audio(shape, rng, loud=wanted.odd)
    if wanted.odd and wanted.wild:
        return rng.standard_normal(shape)
    return rng.random(shape)


def _image(shape: tuple[int, ...], rng: np.random.Generator, *, wild: bool) -> NDArray[np.float64]:
    """Smooth blobs and fine noise in 0..1, or around 0 with deviation 1; channels first or last.

    White noise alone would leave most networks with nearly the same answer for every feed.
    """
    axes = (1, 2) if shape[-1] <= 4 < shape[1] else (2, 3)
    coarse = list(shape)
    for axis in axes:
        coarse[axis] = min(8, shape[axis])
    blobs = rng.random(coarse)
    for axis in axes:
        blobs = _stretch(blobs, axis, shape[axis])
    picture = np.clip(0.9 * blobs + 0.1 * rng.random(shape), 0, 1)
    return (picture - 0.5) / 0.25 if wild else picture


def _stretch(array: NDArray[np.float64], axis: int, size: int) -> NDArray[np.float64]:
    """Linear interpolation along ``axis`` to ``size``."""
    places = np.linspace(0, array.shape[axis] - 1, size)
    below = np.minimum(places.astype(int), array.shape[axis] - 1)
    above = np.minimum(below + 1, array.shape[axis] - 1)
    share = np.reshape(places - below, [-1 if axis == other else 1 for other in range(array.ndim)])
    return np.asarray(np.take(array, below, axis) * (1 - share) + np.take(array, above, axis) * share)


def _audio(shape: tuple[int, ...], rng: np.random.Generator, *, loud: bool) -> NDArray[np.float64]:
    """A few decaying tones and noise along the last long axis, at most about 0.1, or 0.5 if loud."""
    time = np.arange(elements(shape)).reshape(shape)
    sound = 0.02 * rng.standard_normal(shape)
    for pitch in rng.uniform(0.01, 0.6, 4):
        sound += 0.05 * np.sin(pitch * time + rng.uniform(0, 6)) * (1 + np.sin(time * rng.uniform(1e-4, 1e-3))) / 2
    return sound * (4 if loud else 1)


def _is_small_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.name.startswith(("int", "uint"))


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
