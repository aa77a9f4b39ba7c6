"""The Python that the documents show really runs."""

import re
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import passes
from optimizer.recipes.registry import load_pass

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


def run_tests(module):
    """Call the tests of ``module``, each with all that it is parametrized with."""
    for function in [value for name, value in vars(module).items() if name.startswith("test_")]:
        for mark in getattr(function, "pytestmark", []):
            names, rows = mark.args
            for row in rows:
                function(**({names: row} if isinstance(names, str) else dict(zip(names, row, strict=True))))
        if not hasattr(function, "pytestmark"):
            function()


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
@pytest.mark.usefixtures("models")
def test_python_of_a_document_runs_from_top_to_bottom(name, monkeypatch):
    """A block that names its file first is the module of that file; all others go on from each other."""
    blocks = python_blocks(name)
    assert blocks
    names = {}
    for number, block in enumerate(blocks):
        path = re.match(r"# (\S+)\.py\n", block)
        module = ModuleType(path[1].replace("/", ".") if path else f"block_{number}")
        monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
        vars(module).update({} if path else names)
        exec(compile(block, f"{name}, block {number}", "exec"), vars(module))
        names.update({key: value for key, value in vars(module).items() if not key.startswith("__")})
        if path and path[1].startswith("tests/"):
            run_tests(module)


def registered():
    """The names of our passes, in the order of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["entry-points"]["onnxhone.passes"])


def test_passes_are_registered_in_the_order_of_their_names():
    assert registered() == sorted(registered())


def test_docstring_of_the_passes_lists_them():
    kinds = {name: load_pass(name) for name in registered()}
    rows = [f"{name:<20} {'exact' if kind().exact else 'lossy':<6} {kind.summary}" for name, kind in kinds.items()]
    table = passes.__doc__.split("::\n\n")[1].split("\n\n")[0]
    assert textwrap.dedent(table).splitlines() == rows


def test_readme_lists_the_passes():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| pass | kind |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)`", table, flags=re.MULTILINE)) == registered()


def glossary():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("\n## Words\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", section, flags=re.MULTILINE)
    return [word.strip() for row in rows if row not in {"word", "---"} for word in row.split(",")]


def test_words_of_the_glossary_are_those_of_the_code():
    files = [path for package in ("optimizer", "passes") for path in (ROOT / package).rglob("*.py")]
    code = re.sub(r"[\s_-]+", " ", " ".join(path.read_text(encoding="utf-8") for path in files)).lower()
    words = glossary()
    assert len(words) > 40
    assert len(set(words)) == len(words)
    assert [word for word in words if word.lower() not in code] == []


def test_links_between_documents_lead_somewhere():
    for path in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{path.name}: {target}"
