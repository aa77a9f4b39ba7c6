"""What the widths of kernels stay multiples of when channels go."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from optimizer.contract.options import at_least

Multiple: TypeAlias = Annotated[int, at_least(1)] | Literal["auto"]

_LIKED = 4  # ONNX Runtime's blocked convolutions want channels in fours: benchmarks/channel_widths.py


def resolve(multiple: Multiple) -> int:
    """The number that ``auto`` stands for, or the one that is given."""
    return _LIKED if multiple == "auto" else multiple
