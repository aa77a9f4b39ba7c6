"""What the widths of kernels stay multiples of when channels go."""

from __future__ import annotations

from typing import Literal, TypeAlias

from optimizer.errors import UsageError

Multiple: TypeAlias = int | Literal["auto"]

_LIKED = 4  # ONNX Runtime's blocked convolutions want channels in fours: benchmarks/channel_widths.py


def check(multiple: Multiple) -> None:
    """Check an option.

    Raises:
        UsageError: If it is not a number of channels.
    """
    if multiple != "auto" and multiple < 1:
        raise UsageError(f"multiple={multiple}: give auto, or a number of channels from 1")


def resolve(multiple: Multiple) -> int:
    """The number that ``auto`` stands for, or the one that is given."""
    return _LIKED if multiple == "auto" else multiple
