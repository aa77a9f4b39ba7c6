"""What quantizing a unit saves, from ONNX Runtime's profiles of the float and of the quantized model.

ONNX Runtime names what it fuses after the node or after the value that the fused operators give out, with endings of
its own. Where a unit is found in both profiles the difference is its gain; units that are not found count by their
share of the multiplications, as the others gain.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDINGS = re.compile(r"(_token_\d+|_nchwc|_quant)+$")


def by_name(profile: Mapping[str, float]) -> dict[str, float]:
    """``profile`` by the names of the model's nodes and values."""
    found: dict[str, float] = {}
    for name, seconds in profile.items():
        plain = _ENDINGS.sub("", name)
        found[plain] = found.get(plain, 0.0) + seconds
    return found


def gains(
    units: Mapping[str, tuple[frozenset[str], ...]], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """Seconds that each unit saves; ``nan`` where a profile does not have it.

    Args:
        units: For each unit, its nodes; of each node, the names that it may go by.
        before: Seconds of the float model, as ``by_name`` gives them.
        after: The same of the quantized model.
    """
    found = {}
    for unit, nodes in units.items():
        saved = [_seconds(names, before) - _seconds(names, after) for names in nodes]
        found[unit] = sum(saved)
    return found


def _seconds(names: frozenset[str], seconds: Mapping[str, float]) -> float:
    known = [seconds[name] for name in names if name in seconds]
    return max(known) if known else float("nan")
