"""What a pass leaves alone, by reason: one note a reason, however many nodes it holds for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.contract.passes import Note
from optimizer.graph.names import first_few

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir


class SkippedNodes:
    """Collects what a pass leaves alone, by reason."""

    def __init__(self) -> None:
        self._subjects: dict[str, dict[str, None]] = {}

    def note(self, subject: ir.Node | str, reason: str) -> None:
        """``subject`` is left alone for ``reason``; a node goes by its name, or its first output's."""
        self._subjects.setdefault(reason, {})[_name(subject)] = None

    def forget(self, subject: ir.Node) -> None:
        """``subject`` is not left alone after all."""
        for names in self._subjects.values():
            names.pop(_name(subject), None)
        self._subjects = {reason: names for reason, names in self._subjects.items() if names}

    def __bool__(self) -> bool:
        return bool(self._subjects)

    def unmatched(self, patterns: Iterable[str]) -> None:
        """Note patterns of the options that match nothing."""
        for pattern in patterns:
            self.note(pattern, "matches no node")

    def notes(self) -> tuple[Note, ...]:
        """One note a reason, in the order of their first subjects; of many subjects the first three are named."""
        return tuple(Note(first_few(list(names)), reason) for reason, names in self._subjects.items())


def _name(subject: ir.Node | str) -> str:
    return subject if isinstance(subject, str) else subject.name or subject.outputs[0].name or subject.op_type
