#!/usr/bin/env python3
"""Do the tables of the rules hold every condition of theirs? Each one is dropped, one at a time, and its tests are run.

    python benchmarks/rule_mutations.py [RULE ...]      names of files in passes/rules; all, if none is named

A mutant is a rule file in which

    if GUARD: return REFUSAL        does not return, or drops one operand of an `or` (`and`) in GUARD
    return A and B                  drops one operand: a predicate that is true more often
    return X if A else REFUSAL      is always X

It is caught if a test of the file of the rule's name fails, or runs ten times as long as all of them do. What survives
is listed with its line; `EQUIVALENT` has those of which it was looked at why no test can tell them from the original.
Mutants run in forks of one process, so that nothing is imported twice. The exit code is 1 if one survives.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
RULES, TESTS = ROOT / "passes/rules", ROOT / "tests/passes/rules"
LEAST_SECONDS = 20
EQUIVALENT: dict[tuple[str, str], str] = {}


def is_refusal(statements: list[ast.stmt]) -> bool:
    """Whether a guard that holds ends here: it returns, or goes on with the next candidate."""
    return len(statements) == 1 and isinstance(statements[0], ast.Return | ast.Continue)


def weaker(test: ast.expr) -> Iterator[ast.expr]:
    """``test`` without one operand, wherever it has several."""
    if isinstance(test, ast.BoolOp):
        for index, value in enumerate(test.values):
            left = [each for place, each in enumerate(test.values) if place != index]
            yield left[0] if len(left) == 1 else ast.BoolOp(test.op, left)
            for inner in weaker(value):
                yield ast.BoolOp(test.op, [*test.values[:index], inner, *test.values[index + 1 :]])
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from (ast.UnaryOp(test.op, inner) for inner in weaker(test.operand))


def narrows_a_type(test: ast.expr) -> bool:
    """Whether ``test`` only asks for ``None`` or a refusal: without it, the next line raises."""
    text = ast.unparse(test)
    return text.startswith("isinstance(") or (text.endswith(" is None") and " or " not in text and " and " not in text)


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, what is dropped, and the module without it."""
    places = [node for node in ast.walk(tree) if isinstance(node, ast.If | ast.Return | ast.IfExp)]
    for place, node in enumerate(places):
        changes: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.If) and is_refusal(node.body) and not node.orelse:
            if not narrows_a_type(node.test):
                changes.append((f"if {ast.unparse(node.test)}", ast.Constant(value=False)))
            changes += [(f"{ast.unparse(node.test)} -> {ast.unparse(new)}", new) for new in weaker(node.test)]
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.BoolOp):
            changes += [(f"{ast.unparse(node.value)} -> {ast.unparse(new)}", new) for new in weaker(node.value)]
        elif isinstance(node, ast.IfExp) and "Refusal" in ast.unparse(node.orelse):
            changes.append((f"always {ast.unparse(node.body)} of {ast.unparse(node)}", ast.Constant(value=True)))
        for text, new in changes:
            changed = copy.deepcopy(tree)
            same = [each for each in ast.walk(changed) if isinstance(each, ast.If | ast.Return | ast.IfExp)][place]
            if isinstance(same, ast.Return):
                same.value = new
            else:
                same.test = new
            yield node.lineno, text, ast.fix_missing_locations(changed)


def run_tests(name: str, mutant: ast.Module | None, seconds: float) -> str:
    """``passed``, ``failed`` or ``timeout`` of the tests of the rule file ``name`` with ``mutant`` in its place."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(seconds) + 1)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if mutant is not None:
                module = importlib.import_module(f"passes.rules.{name}")
                exec(compile(mutant, module.__file__ or name, "exec"), vars(module))  # noqa: S102 - that is the mutation
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(TESTS / f"test_{name}.py")])
        os._exit(int(code != 0))
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "timeout"
    return "failed" if os.WEXITSTATUS(status) else "passed"


def main() -> int:
    """Print each survivor, and a line of sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*")
    names = parser.parse_args().rules or sorted(path.stem for path in RULES.glob("*.py") if path.stem != "__init__")
    os.chdir(ROOT)
    counts = dict.fromkeys(("mutants", "caught", "equivalent", "survived"), 0)
    for name in names:
        began = time.monotonic()
        if run_tests(name, None, 600) != "passed":
            print(f"{name}: its tests fail as it is")
            return 1
        limit = max(LEAST_SECONDS, 10 * (time.monotonic() - began))
        for line, text, mutant in mutants(ast.parse((RULES / f"{name}.py").read_text(encoding="utf-8"))):
            counts["mutants"] += 1
            if (name, text) in EQUIVALENT:
                counts["equivalent"] += 1
            elif run_tests(name, mutant, limit) == "passed":
                counts["survived"] += 1
                print(f"{name}.py:{line}: {text}", flush=True)
            else:
                counts["caught"] += 1
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return int(counts["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
