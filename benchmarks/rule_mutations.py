#!/usr/bin/env python3
"""Do the tables of the rules hold every condition of theirs? Each one is dropped, one at a time, and its tests are run.

    python benchmarks/rule_mutations.py [RULE ...] [--seconds 30] [--work benchmarks/work/rule_mutations.jsonl]

``RULE`` is the name of a file in passes/rules; all, if none is named. A mutant is a rule file in which

    if GUARD: return REFUSAL        does not return (nor continue, nor raise)
    A or B, A and B                 has one operand less, wherever it is: in guards, predicates, choices
    return A == B                   is always true, in a function that answers yes or no
    X if A else None                is always X, and so with a refusal in the place of None
    [X for Y in Z if A]             takes all of Z

It is caught if a row of the tables in the test file of the rule's name does not come out, or takes longer than
``--seconds``. What survives is listed with file, line and condition; ``EQUIVALENT`` has those that no model can tell
from the original, each with the reason. The exit code is 1 if any other survives.

Each mutant is tried in a fork of one process, and is nowhere but in its memory. What a rewrite comes to is compared
with its row, which was run in ONNX Runtime, so that no mutant need be. Results are written down one by one, under the
contents of the rule, its tests and their support: a run that was stopped goes on where it was, and only what was edited
since is tried again.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import importlib.util
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
RULES, TESTS, SUPPORT = ROOT / "passes/rules", ROOT / "tests/passes/rules", ROOT / "tests/support"
sys.path.insert(0, str(SUPPORT))

import rule_tables  # noqa: E402 - tests/support has to be on the path

# By rule file and the mutant's text: why no model can tell it from the original
EQUIVALENT: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Mutant:
    """A rule file without one of its conditions.

    Attributes:
        line: Where the condition is.
        text: What it was, and what it is now.
        module: The file's syntax tree.
    """

    line: int
    text: str
    module: ast.Module


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """The mutants of ``tree``, in the order of its lines."""
    places = [node for node in ast.walk(tree) if isinstance(node, ast.expr)]
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for place, node in sorted(enumerate(places), key=lambda item: (item[1].lineno, item[1].col_offset)):
        for new in _instead(node, parents):
            changed = copy.deepcopy(tree)
            same = [each for each in ast.walk(changed) if isinstance(each, ast.expr)][place]
            _put(changed, same, new)
            context = ast.unparse(_statement(node, parents)).partition("\n")[0]
            text = f"{context}  [{ast.unparse(node)} -> {ast.unparse(new)}]"
            yield Mutant(node.lineno, text, ast.fix_missing_locations(changed))


def _instead(node: ast.expr, parents: dict[ast.AST, ast.AST]) -> Iterator[ast.expr]:
    """What stands in the place of the condition ``node`` in its mutants; nothing if it is none."""
    parent = parents[node]
    if isinstance(node, ast.BoolOp):
        for index in range(len(node.values)):
            others = [value for place, value in enumerate(node.values) if place != index]
            yield others[0] if len(others) == 1 else ast.BoolOp(node.op, others)
    has_operands = isinstance(node, ast.BoolOp)
    is_or = has_operands and isinstance(node.op, ast.Or)
    match parent:
        case ast.If(test=test, body=body) if node is test and _leaves(body) and not is_or:
            yield ast.Constant(value=False)
        case ast.IfExp(test=test, body=body, orelse=orelse) if node is test and not has_operands:
            if _is_refusal(orelse) or _is_refusal(body):
                yield ast.Constant(value=_is_refusal(orelse))
        case ast.Return() if _answers(parent, parents) and _is_question(node):
            yield ast.Constant(value=True)
        case ast.comprehension(ifs=conditions) if node in conditions and not has_operands:
            yield ast.Constant(value=True)
        case ast.match_case(guard=guard) if node is guard and not has_operands:
            yield ast.Constant(value=True)


def _leaves(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], ast.Return | ast.Continue | ast.Raise | ast.Break)


def _is_refusal(node: ast.expr) -> bool:
    text = ast.unparse(node)
    return text in {"None", "False", "[]", "()"} or text.startswith("Refusal")


def _answers(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether ``node`` is in a function that answers yes or no."""
    while not isinstance(node, ast.FunctionDef):
        node = parents[node]
    return node.returns is not None and ast.unparse(node.returns) == "bool"


def _is_question(node: ast.expr) -> bool:
    is_all = isinstance(node, ast.Call) and ast.unparse(node.func) in {"any", "all", "bool"}
    return is_all or isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _statement(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node


def _put(tree: ast.Module, old: ast.expr, new: ast.expr) -> None:
    """Put ``new`` in the place of ``old``, which is somewhere in ``tree``."""

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return copy.deepcopy(new) if node is old else self.generic_visit(node)

    Replace().visit(tree)


def load_tables(name: str) -> ModuleType:
    """The tests of the rule file ``name``."""
    spec = importlib.util.spec_from_file_location(f"tables_of_{name}", TESTS / f"test_{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"no tests of {name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result_of(name: str, tables: ModuleType, mutant: ast.Module | None, seconds: int) -> str:
    """``passed``, ``failed`` or ``timeout`` of the tables of the rule file ``name`` with ``mutant`` in its place."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        os._exit(_first_failure(name, tables, mutant) is not None)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "timeout"
    return "failed" if os.WEXITSTATUS(status) else "passed"


def _first_failure(name: str, tables: ModuleType, mutant: ast.Module | None) -> str | None:
    """The row that does not come out; rewrites of the original are run in ONNX Runtime, those of a mutant are not."""
    rules = importlib.import_module(f"passes.rules.{name}")
    if mutant is not None:
        exec(compile(mutant, rules.__file__ or name, "exec"), vars(rules))  # noqa: S102 - that is the mutation
    for row in (*tables.NO_OPS, *tables.REWRITES):
        try:
            if row in tables.NO_OPS:
                rule_tables.check_no_op(row, rules.RULES)
            else:
                rule_tables.check_rewrite(row, rules.RULES, run=mutant is None)
        except Exception:  # noqa: BLE001 - a mutant may raise anything
            return str(row.name)
    return None


def contents(name: str) -> str:
    """A digest of all that the results of the rule file ``name`` hang on."""
    files = [
        RULES / f"{name}.py",
        TESTS / f"test_{name}.py",
        *(SUPPORT / f"{each}.py" for each in ("rewriting", "rule_tables")),
    ]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files if path.exists())).hexdigest()[:16]


def main() -> int:
    """Print each survivor, and a line of sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks/work/rule_mutations.jsonl")
    options = parser.parse_args()
    names = options.rules or sorted(path.stem for path in RULES.glob("*.py") if path.stem != "__init__")
    os.chdir(ROOT)
    options.work.parent.mkdir(parents=True, exist_ok=True)
    lines = options.work.read_text(encoding="utf-8").splitlines() if options.work.exists() else []
    results = {tuple(key): result for key, result in map(json.loads, lines)}
    counts: Counter[str] = Counter()
    for name in names:
        digest, tables = contents(name), load_tables(name)
        if result_of(name, tables, None, 600) != "passed":
            print(f"{name}: its tables fail as it is")
            return 1
        for number, mutant in enumerate(mutants(ast.parse((RULES / f"{name}.py").read_text(encoding="utf-8")))):
            key = (name, digest, number, mutant.text)
            if key not in results:
                results[key] = result_of(name, tables, mutant.module, options.seconds)
                with options.work.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, results[key]]) + "\n")
            is_equivalent = (name, mutant.text) in EQUIVALENT
            survives = results[key] == "passed"
            counts["equivalent" if survives and is_equivalent else "survivors" if survives else "caught"] += 1
            if survives and not is_equivalent:
                print(f"{name}.py:{mutant.line}: {mutant.text}", flush=True)
            if is_equivalent and not survives:
                print(f"{name}.py:{mutant.line}: caught, so it is not equivalent: {mutant.text}", flush=True)
    print(
        f"{sum(counts.values())} mutants: {counts['caught']} caught, {counts['equivalent']} equivalent, "
        f"{counts['survivors']} survivors"
    )
    return int(counts["survivors"] > 0)


if __name__ == "__main__":
    sys.exit(main())
