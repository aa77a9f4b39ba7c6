"""The constant target of a Reshape: 0 keeps a dimension, one -1 finds a dimension out.

A computed dimension becomes -1 only where no other is kept: if one that is kept were 0 at run time, ONNX Runtime could
not find the -1 out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optimizer.algorithms.shape_elements import is_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.shape_elements import Element


def reshape_target(source: Sequence[Any] | None, wanted: Sequence[Element], *, zero_copies: bool) -> list[int] | None:
    """A constant target by which a Reshape of ``source`` comes to ``wanted``."""
    target: list[int] = []
    for index, element in enumerate(wanted):
        if is_known(element) and (element != 0 or zero_copies):
            target.append(int(element))
        elif is_known(element):
            return None
        elif zero_copies and source is not None and index < len(source) and source[index] == element:
            target.append(0)
        else:
            target.append(-1)
    is_ambiguous = target.count(-1) > 1 or (-1 in target and -1 not in wanted and 0 in target)
    return None if is_ambiguous else target
