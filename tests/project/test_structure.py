"""What import-linter does not see: names in docstrings, names of classes, circles of imports, folders of tests."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("optimizer", "passes")
TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text("utf-8"))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}
FREE_FOLDERS = {"project", "support", "recipes/plugin"}  # about the whole repository; shared; a distribution


def docstrings(tree):
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return filter(None, (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)))


@pytest.mark.parametrize("module", TREES)
def test_dotted_names_in_docstrings_can_be_imported(module):
    text = "\n".join(docstrings(TREES[module]))
    for name in re.findall(r"``((?:optimizer|passes)(?:\.\w+)+)(?:\(.*?\))?``", text):
        assert pkgutil.resolve_name(name) is not None


@pytest.mark.parametrize("package", [name for name in TREES if (ROOT / name.replace(".", "/")).is_dir()])
def test_a_package_says_what_it_may_import(package):
    text = ast.get_docstring(TREES[package])
    assert package == "optimizer" or re.search(r"\b(may import|imports no other)\b", text, flags=re.IGNORECASE)


def test_a_class_name_has_one_home():
    classes = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in classes.items() if count > 1] == []


def imported(tree):
    """The modules of ours that ``tree`` imports anywhere, for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in TREES)
        elif isinstance(node, ast.ImportFrom) and node.module in TREES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in TREES else node.module for name in names)


def test_imports_have_no_circles():
    graph = {module: set(imported(tree)) - {module} for module, tree in TREES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_folders_of_tests_are_those_of_the_packages():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("*.py")}
    known = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")}
    wanted = folders - FREE_FOLDERS - {"."}
    assert [folder for folder in sorted(wanted) if not {folder, f"optimizer/{folder}"} & {*PACKAGES, *known}] == []
