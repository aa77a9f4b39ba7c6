"""A minimum cut of a directed graph, by augmenting paths (Ford & Fulkerson 1956; shortest first, Edmonds & Karp 1972).

Edges cost 1 or cannot be cut at all. Of all minimum cuts the one with the fewest nodes on the source's side is
returned: those that the source still reaches when no more can flow. Written here, since no dependency of onnxhone has
one: networkx and scipy would be loaded for 40 lines.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

UNCUTTABLE = 1 << 40


class Network:
    """Edges with capacities between hashable nodes."""

    def __init__(self, source: Hashable, sink: Hashable) -> None:
        self.source = source
        self.sink = sink
        self._residual: dict[Hashable, dict[Hashable, int]] = defaultdict(dict)

    def edge(self, tail: Hashable, head: Hashable, capacity: int = 1) -> None:
        """Add ``capacity`` to what can flow from ``tail`` to ``head``."""
        self._residual[tail][head] = self._residual[tail].get(head, 0) + capacity
        self._residual[head].setdefault(tail, 0)

    def cut(self) -> tuple[int, set[Hashable]]:
        """The cost of the cheapest cut, and the nodes on the source's side of it; flow is used up by this.

        Returns:
            The cost, which is at least ``UNCUTTABLE`` if source and sink cannot be separated.
        """
        total = 0
        while True:
            came_from = self._search()
            if self.sink not in came_from:
                return total, set(came_from)
            # Send as much along a shortest path as its narrowest edge lets through; what flows can flow back
            path = self._path(came_from)
            amount = min(self._residual[tail][head] for tail, head in path)
            for tail, head in path:
                self._residual[tail][head] -= amount
                self._residual[head][tail] += amount
            total += amount
            if total >= UNCUTTABLE:
                return total, set()

    def _search(self) -> dict[Hashable, Hashable]:
        """What the source reaches, breadth first, each with its predecessor; ends at the sink."""
        came_from: dict[Hashable, Hashable] = {self.source: self.source}
        queue = deque([self.source])
        while queue:
            tail = queue.popleft()
            for head, capacity in self._residual[tail].items():
                if capacity > 0 and head not in came_from:
                    came_from[head] = tail
                    if head == self.sink:
                        return came_from
                    queue.append(head)
        return came_from

    def _path(self, came_from: dict[Hashable, Hashable]) -> list[tuple[Hashable, Hashable]]:
        path, head = [], self.sink
        while head != self.source:
            path.append((came_from[head], head))
            head = came_from[head]
        return path
