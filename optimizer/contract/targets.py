"""The machines that a quantized model can be made for, told apart by what their int8 kernels compute.

ONNX Runtime's x86 kernels multiply unsigned by signed bytes. With VNNI the products are summed in 32 bits; without, by
VPMADDUBSW, which adds two of them in 16 bits and saturates at 32767 (255 * 127 * 2 = 64770): weights of 7 bits
(255 * 64 * 2 = 32640) cannot. Arm's kernels multiply signed by signed bytes without a loss.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "Data type selection"
"""

from __future__ import annotations

import functools
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optimizer.errors import UsageError, no_such

AUTO = "auto"
_CPUINFO = Path("/proc/cpuinfo")
_MACOS = ("/usr/sbin/sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features")
_VNNI = frozenset({"avx512_vnni", "avx512vnni", "avx_vnni", "avxvnni"})  # Linux's and macOS's words
_ARM = frozenset({"arm64", "aarch64"})
_X86 = frozenset({"x86_64", "amd64"})


@dataclass(frozen=True)
class Target:
    """A machine that the model is for.

    Attributes:
        name: What ``--target`` calls it.
        activation: The type of quantized activations that its kernels are made for.
        reduced_range: Whether weights are held to 7 bits, since its kernels saturate otherwise.
        description: One line.
    """

    name: str
    activation: Literal["uint8", "int8"]
    reduced_range: bool
    description: str


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("arm64", "int8", reduced_range=False, description="Arm, 64 bits"),
        Target("x86-avx2", "uint8", reduced_range=True, description="x86 without VNNI: 7-bit weights do not saturate"),
        Target("x86-vnni", "uint8", reduced_range=False, description="x86 with AVX512-VNNI or AVX-VNNI"),
    )
}


def resolve(name: str) -> Target:
    """The target called ``name``; ``auto`` is this machine, or the most careful one if it is of another kind.

    Raises:
        UsageError: If there is none.
    """
    if name == AUTO:
        return TARGETS[_here() or "x86-avx2"]
    if name not in TARGETS:
        raise UsageError(no_such("target", name, [AUTO, *sorted(TARGETS)]))
    return TARGETS[name]


def is_this_machine(target: Target) -> bool:
    """Whether what is measured here holds for ``target``."""
    return target.name == _here()


def name_of(machine: str, features: frozenset[str]) -> str | None:
    """The name of the target that a CPU is; ``None`` if none of them.

    Args:
        machine: Its architecture, as ``platform.machine()`` says it.
        features: Its features, in small letters.
    """
    if machine.lower() in _ARM:
        return "arm64"
    if machine.lower() in _X86:
        return "x86-avx2" if features.isdisjoint(_VNNI) else "x86-vnni"
    return None


def features_in(text: str) -> frozenset[str]:
    """The CPU features in the text of ``/proc/cpuinfo``, of the first CPU, or in that of macOS's ``sysctl -n``."""
    lines = text.lower().splitlines()
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), text.lower())
    return frozenset(flags.split())


@functools.cache
def _here() -> str | None:
    return name_of(platform.machine(), features_in(_text_of_system()))


def _text_of_system() -> str:
    """What the system says about the CPU; nothing on systems that do not, such as Windows."""
    try:
        if platform.system() == "Darwin":
            completed = subprocess.run(_MACOS, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - fixed
            return completed.stdout
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
