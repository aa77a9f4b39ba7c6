"""The outputs of a model for each feed, kept while there is room, else computed anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.evaluation.feeds.sets import FeedSet
from optimizer.evaluation.runtime.session import Loadable, Session, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MOST_BYTES = 256 << 20  # outputs that are kept, with optimizations on and off each


class ReferenceOutputs:
    """Iterates over pairs of a feed and its outputs, by name.

    Attributes:
        seconds: The fastest run so far; infinite before the first.
    """

    def __init__(self, loadable: Loadable, feeds: Sequence[Mapping[str, Any]], *, optimize: bool, threads: int) -> None:
        self._feeds = feeds
        self._threads = threads
        self._loadable = loadable
        self._optimize = optimize
        self._kept: dict[int, dict[str, Any]] = {}
        self._bytes_left = _MOST_BYTES
        self._session: Session | None = None
        self.seconds = float("inf")

    @property
    def whole_feeds(self) -> Sequence[Mapping[str, Any]]:
        """The feeds with what is in them beside the model's inputs."""
        return self._feeds.whole if isinstance(self._feeds, FeedSet) else self._feeds

    def session(self) -> Session:
        """The session that runs the model; it stays loaded until ``close``."""
        if self._session is None:
            self._session = session(self._loadable, optimize=self._optimize, threads=self._threads)
        return self._session

    def close(self) -> None:
        """Let go of the session; it is loaded again when outputs are needed that were not kept."""
        self._session = None

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        for number, feed in enumerate(self._feeds):
            outputs = self._kept.get(number)
            if outputs is None:
                ready = self.session()
                start = time.perf_counter()
                outputs = ready.run(feed)
                self.seconds = min(self.seconds, time.perf_counter() - start)
                self._keep(number, outputs)
            yield feed, outputs

    def _keep(self, number: int, outputs: dict[str, Any]) -> None:
        size = held_bytes(list(outputs.values()))
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._kept[number] = outputs


def held_bytes(value: Any) -> int:
    """About how many bytes one or several outputs take; 64 for what is not an array."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, dict):
        value = list(value.values())
    return sum(held_bytes(element) for element in value) if isinstance(value, (list, tuple)) else 64
