import subprocess

import pytest

from optimizer.contract import targets
from optimizer.contract.targets import TARGETS, features_in, is_this_machine, name_of, resolve
from optimizer.errors import UsageError

LINUX = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse4_2 avx2 {more} rdtscp
bogomips\t: 4400

processor\t: 1
flags\t\t: fpu avx2 avx512_vnni
"""
MACOS = "FPU VME SSE4.2 AVX1.0\nSMEP BMI1 AVX2 BMI2 {more} SHA\n"
ARM_LINUX = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0c\n"


@pytest.fixture
def this_machine(monkeypatch):
    """Says which machine this is."""

    def be(machine, text):
        monkeypatch.setattr(targets.platform, "machine", lambda: machine)
        monkeypatch.setattr(targets, "_text_of_system", lambda: text)
        targets._here.cache_clear()

    yield be
    targets._here.cache_clear()


@pytest.mark.parametrize(
    ("machine", "text", "name"),
    [
        ("x86_64", LINUX.format(more="avx512_vnni"), "x86-vnni"),
        ("x86_64", LINUX.format(more="avx_vnni"), "x86-vnni"),
        ("x86_64", LINUX.format(more="avx512f"), "x86-avx2"),
        ("x86_64", LINUX.format(more="avx512_vnnix"), "x86-avx2"),
        ("x86_64", MACOS.format(more="AVX512VNNI"), "x86-vnni"),
        ("x86_64", MACOS.format(more=""), "x86-avx2"),
        ("AMD64", "", "x86-avx2"),
        ("arm64", "", "arm64"),
        ("aarch64", ARM_LINUX, "arm64"),
        ("riscv64", "", None),
    ],
)
def test_auto_is_told_by_architecture_and_features(machine, text, name, this_machine):
    assert name_of(machine, features_in(text)) == name
    this_machine(machine, text)
    assert resolve("auto").name == (name or "x86-avx2")
    assert [one for one in TARGETS.values() if is_this_machine(one)] == ([TARGETS[name]] if name else [])


def test_each_name_gives_its_target_and_every_machine_is_at_most_one():
    assert [resolve(name).name for name in TARGETS] == list(TARGETS)
    assert sum(map(is_this_machine, TARGETS.values())) <= 1


def test_what_each_target_computes():
    assert {name: (one.activation, one.reduced_range) for name, one in TARGETS.items()} == {
        "arm64": ("int8", False),
        "x86-avx2": ("uint8", True),
        "x86-vnni": ("uint8", False),
    }


@pytest.mark.parametrize("name", ["x86-vni", "", "AUTO"])
def test_an_unknown_name_is_answered_with_those_that_exist(name):
    with pytest.raises(UsageError, match=r"no target '.*\(there are: auto, arm64, x86-avx2, x86-vnni\)"):
        resolve(name)


def test_a_mac_is_asked_by_sysctl_and_a_silent_system_is_no_error(monkeypatch):
    monkeypatch.setattr(targets.platform, "system", lambda: "Darwin")
    asked = []

    def run(command, **_options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, MACOS.format(more="AVX512VNNI"), "")

    monkeypatch.setattr(targets.subprocess, "run", run)
    assert "avx512vnni" in features_in(targets._text_of_system())
    assert asked[0][0] == "/usr/sbin/sysctl"

    def fail(command, **_options):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(targets.subprocess, "run", fail)
    assert targets._text_of_system() == ""


def test_a_missing_cpuinfo_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(targets.platform, "system", lambda: "Windows")
    monkeypatch.setattr(targets, "_CPUINFO", tmp_path / "none")
    assert targets._text_of_system() == ""


def test_this_machine_has_a_target_that_agrees_with_itself():
    here = resolve("auto")
    assert here in TARGETS.values()
    assert is_this_machine(here) or targets._here() is None
