"""Imports stay light: who only asks for help or imports the package does not wait for heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optimizer

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "onnx", "onnx_ir", "onnx_graphsurgeon", "onnxruntime", "onnxscript", "torch")


def loaded_by(code):
    """The heavy libraries that a fresh interpreter has loaded after running ``code``."""
    code += f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


def modules():
    return sorted(path for package in ("optimizer", "passes") for path in (ROOT / package).rglob("*.py"))


def imported_by(path):
    """The top-level names that the module at ``path`` imports anywhere, but for type checking."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def test_import_of_the_package_loads_nothing_heavy():
    assert loaded_by("import optimizer") == []


def test_help_loads_nothing_heavy():
    code = """
import sys
sys.argv = ["onnxhone", "--help"]
from optimizer.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_by(code) == []


@pytest.mark.parametrize("command", ["optimize", "inspect", "compare", "passes"])
def test_help_of_a_command_loads_nothing_heavy(command):
    code = f"""
import sys
sys.argv = ["onnxhone", {command!r}, "--help"]
from optimizer.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_by(code) == []


def test_public_names_are_sorted_and_exist():
    assert len(set(optimizer.__all__)) == len(optimizer.__all__)  # ruff sorts them, constants first
    assert dir(optimizer) == sorted(optimizer.__all__)
    assert [name for name in optimizer.__all__ if not hasattr(optimizer, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        optimizer.no_such_name  # noqa: B018 - the access is what is tested


def test_only_the_runtime_imports_onnxruntime():
    found = {str(path.relative_to(ROOT)) for path in modules() if "onnxruntime" in imported_by(path)}
    assert found == {"optimizer/evaluation/runtime/ort_values.py", "optimizer/evaluation/runtime/session.py"}


def test_nothing_imports_a_training_framework_or_a_test_library():
    foreign = {"hypothesis", "pytest", "sklearn", "tensorflow", "torch"}
    assert {str(path) for path in modules() if foreign & imported_by(path)} == set()


def test_engine_does_not_import_passes():
    assert {str(path) for path in (ROOT / "optimizer").rglob("*.py") if "passes" in imported_by(path)} == set()
