"""Every rule file has a table of rewrites and a table of no-ops, in a test file of its name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest

from rule_tables import NoOp, Rewrite

HERE = Path(__file__).parent
RULE_FILES = sorted(path.stem for path in (HERE.parents[2] / "passes/rules").glob("*.py") if path.stem != "__init__")


def tables(name):
    spec = importlib.util.spec_from_file_location(f"tables_of_{name}", HERE / f"test_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.REWRITES, module.NO_OPS


@pytest.mark.parametrize("name", RULE_FILES)
def test_a_rule_file_has_both_tables(name):
    rewrites, no_ops = tables(name)
    assert len(rewrites) >= 2
    assert len(no_ops) >= 3
    assert {type(row) for row in rewrites} == {Rewrite}
    assert {type(row) for row in no_ops} == {NoOp}
    names = [row.name for row in (*rewrites, *no_ops)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", RULE_FILES)
def test_no_rule_of_a_file_is_left_out(name):
    rules = importlib.import_module(f"passes.rules.{name}").RULES
    for table in tables(name):
        assert {rule.name for row in table for rule in row.rules(rules)} == {rule.name for rule in rules}
