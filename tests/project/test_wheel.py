"""What is in the wheel: the two packages, all of them, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in ("optimizer", "passes"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, folder / "dist"], cwd=folder, check=True, capture_output=True)
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_wheel_has_exactly_the_two_packages(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    (metadata,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"optimizer", "passes", metadata}


def test_wheel_has_every_module_and_the_type_markers(wheel):
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("optimizer", "passes")
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == sources


def test_metadata_names_licence_and_command(wheel):
    files = {name.split(".dist-info/")[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(wheel.read(files["METADATA"]).decode())
    entry_points = wheel.read(files["entry_points.txt"]).decode()
    assert (metadata["Name"], metadata["License-Expression"]) == ("onnxhone", "Apache-2.0")
    assert "Apache License" in wheel.read(files["licenses/LICENSE"]).decode()
    assert "onnxhone = optimizer.cli:main" in entry_points
    assert "[onnxhone.passes]" in entry_points
