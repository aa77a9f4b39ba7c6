"""Every error that onnxhone raises on purpose.

    OnnxhoneError
    ├── UsageError          an option, spec, recipe, preset or pass name that does not exist or fit
    ├── ModelError          a model that cannot be read, written or kept whole
    ├── DataError           feeds that are missing, unreadable or do not fit the model
    ├── ReferenceRunError   ONNX Runtime cannot run the reference model
    ├── PreconditionError   a pass cannot work on this model; the reason is the message
    └── CheckFailedError    a check failed under ``--strict``

Each message is one line and says what was found and what to do. ``exit_code`` is the command line's.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class OnnxhoneError(Exception):
    """Base of all errors raised on purpose; its text is one line."""

    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class UsageError(OnnxhoneError):
    """An option, spec, recipe, preset or pass name that does not exist or does not fit."""


class ModelError(OnnxhoneError):
    """A model that cannot be read, cannot be written, or would not be kept whole."""


class DataError(OnnxhoneError):
    """Feeds that are missing, unreadable or do not fit the model's inputs."""


class ReferenceRunError(OnnxhoneError):
    """ONNX Runtime cannot load or run the reference model."""


class PreconditionError(OnnxhoneError):
    """A pass cannot work on this model; the message is the reason."""


class CheckFailedError(OnnxhoneError):
    """A check failed and the user asked for ``--strict``."""

    exit_code: ClassVar[int] = 1


def no_such(kind: str, name: str, existing: Sequence[str]) -> str:
    """One line saying that ``name`` does not exist, what may have been meant, and what does exist."""
    close = difflib.get_close_matches(name, existing, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(existing) if existing else "none"
    return f"no {kind} {name!r}{hint} (there are: {listed})"
