"""The machine that a model is for (being written)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A machine."""

    name: str
    activation: str = "uint8"
    reduced_range: bool = False
    description: str = ""


def resolve(name: str) -> Target:
    """The target called ``name``."""
    return Target("x86-vnni" if name == "auto" else name)


def is_this_machine(target: Target) -> bool:
    """Whether it is this machine."""
    return target.name == "x86-vnni"
