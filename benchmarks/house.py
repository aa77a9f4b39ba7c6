#!/usr/bin/env python3
"""How the code reads, in figures: sizes of files and functions, names, comments, folders, circles of imports.

    python benchmarks/house.py [ROOT ...]     of this checkout, or of others beside it: their optimizer/ and passes/

The figures are for looking at, not a limit that is tested: a number that is held by a test is met, not meant. Lengths
of functions are those of their bodies without docstrings. A filler name says nothing of what it holds.
"""

from __future__ import annotations

import ast
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("optimizer", "passes")
FILLERS = frozenset(
    {"found", "item", "items", "kind", "kinds", "one", "other", "part", "parts", "made"}
    | {"known", "left", "own", "given", "said", "rest", "done", "thing", "things"}
)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, the docstring not counted."""
    first, last = function.body[0], function.body[-1]
    end = last.end_lineno or last.lineno
    if ast.get_docstring(function, clean=False) is None:
        return end - first.lineno + 1
    return end - (first.end_lineno or first.lineno)


def stored_names(tree: ast.AST) -> Iterator[str]:
    """The names that assignments, loops and comprehensions bind."""
    return (node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))


def imports(tree: ast.AST, modules: set[str]) -> set[str]:
    """The modules of the project that one imports, for types too."""
    targets = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
            targets |= {name if name in modules else node.module for name in dotted}
    return targets & modules


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """What is left when modules that import none, or that none imports, are removed again and again: circles."""
    left = {name: set(targets) - {name} for name, targets in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        ends = {name for name, targets in left.items() if not targets & left.keys() or name not in imported}
        if not ends:
            return [sorted(left)] if left else []
        left = {name: targets - ends for name, targets in left.items() if name not in ends}


def comments(path: Path) -> tuple[int, int]:
    """Comment lines of their own, and comments behind code."""
    alone = behind = 0
    with path.open("rb") as opened:
        for token in tokenize.tokenize(opened.readline):
            if token.type == tokenize.COMMENT:
                alone, behind = (alone + 1, behind) if not token.line[: token.start[1]].strip() else (alone, behind + 1)
    return alone, behind


def spread(numbers: list[int]) -> str:
    """Median, ninth decile and largest."""
    ordered = sorted(numbers)
    return f"{statistics.median(ordered):g} / {ordered[len(ordered) * 9 // 10]} / {ordered[-1]}"


def measure(root: Path) -> dict[str, str]:
    """The figures of one checkout."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]
    bodies = [body_lines(function) for tree in trees.values() for function in functions(tree)]
    wide = [
        function
        for tree in trees.values()
        for function in functions(tree)
        if len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs) > 5
    ]
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = Counter(name for tree in trees.values() for name in stored_names(tree))
    folders = Counter(path.parent for path in paths if path.name != "__init__.py")
    dotted = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    graph = {name: imports(trees[path], set(dotted)) for name, path in dotted.items()}
    alone, behind = (sum(column) for column in zip(*map(comments, paths), strict=True))
    homes = defaultdict(set)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].add(path)
    total, assigned = sum(lengths), sum(names.values())
    fillers = sum(count for name, count in names.items() if name in FILLERS)
    return {
        "modules, lines": f"{len(paths)}, {total:,}",
        "modules a folder, median and largest": f"{statistics.median(folders.values()):g}, {max(folders.values())}",
        "file: median / p90 / largest": spread(lengths),
        "function: median / p90 / largest": spread(bodies),
        "functions over 40 lines": f"{sum(body > 40 for body in bodies) / len(bodies):.1%}",
        "functions of more than 5 parameters": f"{len(wide) / len(bodies):.1%}",
        "longest class": str(max((node.end_lineno or 0) - node.lineno + 1 for node in classes)),
        "comment lines in 1,000 lines": f"{1000 * alone / total:.1f}",
        "comments behind code in 1,000 lines": f"{1000 * behind / total:.1f}",
        "assignments to filler names": f"{fillers / assigned:.1%} of {assigned:,}",
        "class names with several homes": str(sum(len(paths) > 1 for paths in homes.values())),
        "modules in import circles": str(sum(map(len, circles(graph)))),
    }


def main() -> None:
    """Print a table, a column for each checkout."""
    roots = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).resolve().parents[1]]
    columns = [measure(root) for root in roots]
    print("| | " + " | ".join(str(root) for root in roots) + " |")
    print("| --- |" + " ---: |" * len(roots))
    for figure in columns[0]:
        print(f"| {figure} | " + " | ".join(column[figure] for column in columns) + " |")


if __name__ == "__main__":
    main()
