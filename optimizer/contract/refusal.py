"""Why something that could have been done is left undone: a value with the reason, which a type checker can narrow.

A function that gives back either a result or the reason why there is none returns ``X | Refusal``, and its callers ask
``isinstance(result, Refusal)``. A refusal is as true as any other object: ``if result`` does not tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why it is not done.

    Attributes:
        reason: One line in the field's words, ``"the weight has other users"``.
    """

    reason: str
