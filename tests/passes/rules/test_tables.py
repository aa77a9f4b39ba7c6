"""Every rule file has a table of rewrites and a table of no-ops, in a test file of its name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RULE_FILES = sorted(path.stem for path in (HERE.parents[2] / "passes/rules").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", RULE_FILES)
def test_a_rule_file_has_both_tables(name):
    spec = importlib.util.spec_from_file_location(f"tables_of_{name}", HERE / f"test_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert len(tables.REWRITES) >= 2
    assert len(tables.NO_OPS) >= 3
