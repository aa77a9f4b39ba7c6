"""The Python that the documents show really runs."""

import re
import shutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def python_blocks(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A working directory that has the digit model, as the repository's top has, and takes what examples write."""
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models/digits.onnx", tmp_path / "models")
    shutil.copytree(ROOT / "models/digits_data", tmp_path / "models/digits_data")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
@pytest.mark.usefixtures("models")
def test_python_of_a_document_runs_from_top_to_bottom(name, monkeypatch):
    blocks = python_blocks(name)
    assert blocks
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)  # dataclasses look their module up
    for block in blocks:
        exec(compile(block, name, "exec"), vars(example))


def test_links_between_documents_lead_somewhere():
    for path in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{path.name}: {target}"
