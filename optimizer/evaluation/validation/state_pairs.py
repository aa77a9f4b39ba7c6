"""Which outputs of a model are its inputs of the next call, by their names: h and hn, past_key_values and present.

A name is a list of words and numbers. Without the words that only say whether it goes in or comes out (in, next, past
and so on), a state's two names are the same; or the output has an n at its end. Element type and shape have to agree.
A wrong pair does no harm: it is but one more way to make up a feed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optimizer.evaluation.runtime.session import Slot

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_EARLIER = frozenset({"past", "prev", "previous", "old"})
_DIRECTIONS = _EARLIER | {
    "in", "input", "inputs", "i", "init", "initial", "cur", "current",
    "out", "output", "outputs", "o", "y", "n", "next", "new", "present", "updated", "final",
}  # fmt: skip


def state_pairs(inputs: Sequence[Slot], outputs: Sequence[Slot]) -> dict[str, str]:
    """Outputs that feed inputs again, by the input; without those of which two could be meant."""
    # 1. For each input, the outputs of the same stem, type and shape.
    by_stem: dict[tuple[str, ...], list[Slot]] = defaultdict(list)
    for out in outputs:
        for stem in _output_stems(out.name):
            by_stem[stem].append(out)
    candidates = {
        into.name: {
            out.name
            for stem in _input_stems(into.name)
            for out in by_stem.get(stem, ())
            if out.name != into.name and _fits(out, into)
        }
        for into in inputs
    }
    # 2. Those that are one to one.
    single = {into: next(iter(outs)) for into, outs in candidates.items() if len(outs) == 1}
    used = Counter(single.values())
    return {into: out for into, out in single.items() if used[out] == 1}


def next_feed(feed: Mapping[str, Any], states: Mapping[str, Any], inputs: Sequence[Slot]) -> dict[str, Any]:
    """``feed`` with the values of ``states``; where a state is longer than in the feed, so are inputs that span it.

    An attention mask spans the past: one of its dimensions is named with that of the state (``past + 1``). Its last
    element is repeated, or its last elements are cut off.
    """
    # 1. By how much each named dimension of a state grows.
    shapes = {slot.name: slot.shape for slot in inputs}
    growth: dict[str, int] = {}
    for name, value in states.items():
        for dim, old, new in zip(shapes[name], np.shape(feed[name]), np.shape(value), strict=False):
            if isinstance(dim, str) and new != old:
                growth[dim] = new - old
    # 2. The other inputs grow along each dimension whose name contains that one. Empty axes have nothing to repeat.
    extended = {**feed, **states}
    for name in feed.keys() - states.keys():
        for axis, dim in enumerate(shapes.get(name, ())):
            growths = [growth[word] for word in re.findall(r"\w+", str(dim)) if word in growth]
            size = np.shape(extended[name])[axis] if growths else 0
            if size:
                indices = np.minimum(np.arange(max(0, size + growths[0])), size - 1)
                extended[name] = np.take(extended[name], indices, axis=axis)
    return extended


def _words(name: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(name)]
    return re.sub(r"\b(past|present) key values\b", r"\1", " ".join(words)).split()


def _stem(words: Sequence[str]) -> tuple[str, ...]:
    """The words that say which state it is; none if only numbers remain of a name that does not say "past"."""
    stem = tuple(word for word in words if word not in _DIRECTIONS)
    return stem if _EARLIER & set(words) or any(not word.isdigit() for word in stem) else ()


def _input_stems(name: str) -> set[tuple[str, ...]]:
    words = _words(name)
    shorter = words[:-1] if words[-1:] == ["0"] else words  # h0 is the first of the states of which hn is the last
    return {_stem(words), _stem(shorter)} - {()}


def _output_stems(name: str) -> Iterator[tuple[str, ...]]:
    words = _words(name)
    yield tuple(word for word in words if word not in _DIRECTIONS)
    if words and words[-1].endswith("n"):
        yield tuple(word for word in (*words[:-1], words[-1][:-1]) if word not in _DIRECTIONS)


def _fits(out: Slot, into: Slot) -> bool:
    is_tensor = out.type.startswith("tensor(") and out.ranked and into.ranked
    if not is_tensor or out.type != into.type or len(out.shape) != len(into.shape):
        return False
    pairs = zip(out.shape, into.shape, strict=True)
    return all(
        not isinstance(output_size, int) or not isinstance(input_size, int) or output_size == input_size
        for output_size, input_size in pairs
    )
