"""What a model answers to each feed, kept while there is room, else computed anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.evaluation.feeds.sets import FeedSet
from optimizer.evaluation.runtime.session import Loadable, Session, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ROOM = 256 << 20  # bytes of answers that are kept, with optimizations on and off each


class ReferenceOutputs:
    """Pairs of feed and answer; ``seconds`` is the fastest run that was needed."""

    def __init__(self, loadable: Loadable, feeds: Sequence[Mapping[str, Any]], *, optimize: bool, threads: int) -> None:
        self._feeds = feeds
        self._threads = threads
        self._loadable = loadable
        self._optimize = optimize
        self._kept: dict[int, dict[str, Any]] = {}
        self._room = _ROOM
        self._session: Session | None = None
        self.seconds = float("inf")

    @property
    def whole_feeds(self) -> Sequence[Mapping[str, Any]]:
        """The feeds with what is in them beside the model's inputs."""
        return self._feeds.whole if isinstance(self._feeds, FeedSet) else self._feeds

    def session(self) -> Session:
        """The session that answers; it stays loaded until ``close``."""
        if self._session is None:
            self._session = session(self._loadable, optimize=self._optimize, threads=self._threads)
        return self._session

    def close(self) -> None:
        """Let go of the session; it is loaded again when an answer is needed that was not kept."""
        self._session = None

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        for number, feed in enumerate(self._feeds):
            answer = self._kept.get(number)
            if answer is None:
                ready = self.session()
                begun = time.perf_counter()
                answer = ready.run(feed)
                self.seconds = min(self.seconds, time.perf_counter() - begun)
                self._keep(number, answer)
            yield feed, answer

    def _keep(self, number: int, answer: dict[str, Any]) -> None:
        size = held_bytes(list(answer.values()))
        if size <= self._room:
            self._room -= size
            self._kept[number] = answer


def held_bytes(value: Any) -> int:
    """About how many bytes an output takes, or several."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, dict):
        value = list(value.values())
    return sum(held_bytes(item) for item in value) if isinstance(value, (list, tuple)) else 64
