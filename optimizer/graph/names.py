"""Names of values and nodes: which are in use, how a free one is made of a wanted one, and many in a line of text.

::

    hint, hint_1, hint_2, ...          the first that is not taken; numbers that were tried are not tried again
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from optimizer.graph.traversal import graphs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import onnx_ir as ir


class NameGenerator:
    """Names that are taken, and others that are free.

    Args:
        taken: The names that are taken; each as often as it occurs.
        separator: Between a hint and its number.
        first: The first number.
    """

    def __init__(self, taken: Iterable[str] = (), *, separator: str = "_", first: int = 1) -> None:
        self._taken = Counter(taken)
        self._separator, self._first = separator, first
        self._numbers: dict[str, int] = {}  # the next one to try for a hint, so that many names take no quadratic time

    def count(self, name: str) -> int:
        """How often ``name`` is taken."""
        return self._taken[name]

    def take(self, name: str) -> bool:
        """Take ``name``; whether it was free."""
        self._taken[name] += 1
        return self._taken[name] == 1

    def release(self, name: str) -> None:
        """Take ``name`` once less."""
        self._taken[name] -= 1

    def preview(self, hint: str, also: Collection[str] = ()) -> str:
        """The name that ``fresh`` would take, without taking it.

        Args:
            hint: What the name is wanted to be.
            also: Names that count as taken: what was previewed before.
        """
        return self._free(hint, also)[0]

    def fresh(self, hint: str) -> str:
        """``hint``, or ``hint_1``, ``hint_2`` …, whatever is free first; it is taken by the call."""
        name, self._numbers[hint] = self._free(hint)
        self._taken[name] += 1
        return name

    def _free(self, hint: str, also: Collection[str] = ()) -> tuple[str, int]:
        """A free name, and the number to go on with."""
        name, number = hint, self._numbers.get(hint, self._first)
        while self._taken[name] or name in also:
            name = f"{hint}{self._separator}{number}"
            number += 1
        return name, number


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first ``most`` of ``names`` in a line of text, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def names_in_use(model: ir.Model) -> set[str]:
    """Every value name and node name anywhere in the model."""
    names: set[str] = set()
    for graph in graphs(model):
        names.update(value.name for value in graph.inputs if value.name)
        names.update(graph.initializers)
        for node in graph:
            names.update(value.name for value in node.outputs if value.name)
            if node.name:
                names.add(node.name)
    return names
