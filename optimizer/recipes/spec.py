"""Specs, recipes and stages: ``name:key=value,key=value`` <-> a ``Pass``; a TOML recipe -> stages.

Values are TOML scalars, strings or arrays; a bare word is a string. Dashes in names of options are underscores in
Python. ``a+b`` is one stage of two passes. A recipe is a TOML file::

    [[stage]]
    passes = ["simplify", { name = "dedup-initializers", min-bytes = 64 }]
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.errors import UsageError, no_such
from optimizer.recipes.registry import load_pass

if TYPE_CHECKING:
    from pathlib import Path

    from optimizer.contract.passes import Pass


@dataclass(frozen=True)
class Stage:
    """Passes that are judged together.

    Attributes:
        passes: In the order in which they run.
        named: Whether the user asked for exactly these; a preset's stage is not named.
    """

    passes: tuple[Pass, ...]
    named: bool = True

    @property
    def exact(self) -> bool:
        """Whether every pass of the stage is exact."""
        return all(member.exact for member in self.passes)

    def __str__(self) -> str:
        return "+".join(str(member) for member in self.passes)


def parse_stage(text: str, *, named: bool = True) -> Stage:
    """The stage that ``text`` spells, ``"a:key=1+b"``.

    Raises:
        UsageError: If a pass, an option or a value does not fit.
    """
    return Stage(tuple(parse_pass(part) for part in _split(text, r"\+(?=[A-Za-z])")), named)


def parse_pass(text: str) -> Pass:
    """The pass that ``text`` spells, ``"name:key=value,key=value"``.

    Raises:
        UsageError: If the pass, an option or a value does not fit.
    """
    name, _, rest = text.strip().partition(":")
    options = {}
    for part in _split(rest, ",") if rest.strip() else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: {part!r} is no key=value; write arrays as [a,b] and quote values with commas")
        options[key.strip()] = _toml(value.strip())
    return make_pass(name.strip(), options)


def make_pass(name: str, options: dict[str, Any]) -> Pass:
    """An instance of the pass called ``name``; keys of ``options`` may have dashes.

    Raises:
        UsageError: If the pass, an option or a value does not fit.
    """
    kind = load_pass(name)
    known = [option.name for option in kind.option_fields()]
    arguments = {}
    for key, value in options.items():
        field = key.replace("-", "_")
        if field not in known:
            raise UsageError(no_such(f"option of {name}", key, [option.replace("_", "-") for option in known]))
        arguments[field] = kind.fitted_option(field, value)
    try:
        return kind(**arguments)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}") from error


def parse_recipe(path: Path) -> tuple[Stage, ...]:
    """The stages of a TOML recipe.

    Raises:
        UsageError: If the file cannot be read or does not hold ``[[stage]]`` tables with ``passes``.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: no recipe: {error}") from error
    tables = content.get("stage")
    if set(content) - {"stage"} or not isinstance(tables, list) or not tables:
        raise UsageError(
            f"{path}: a recipe holds [[stage]] tables and nothing else, found {sorted(content) or 'nothing'}"
        )
    return tuple(_stage(table, path) for table in tables)


def _stage(table: object, path: Path) -> Stage:
    members = table.get("passes") if isinstance(table, dict) else None
    if not isinstance(table, dict) or set(table) != {"passes"} or not isinstance(members, list) or not members:
        raise UsageError(f'{path}: each [[stage]] needs passes = ["name:key=value", …], found {table!r}')
    return Stage(tuple(_member(member, path) for member in members))


def _member(member: object, path: Path) -> Pass:
    if isinstance(member, str):
        return parse_pass(member)
    if isinstance(member, dict) and isinstance(member.get("name"), str):
        return make_pass(member["name"], {key: value for key, value in member.items() if key != "name"})
    raise UsageError(f'{path}: a pass is "name:key=value" or {{ name = "…", key = value }}, found {member!r}')


def _split(text: str, separator: str) -> list[str]:
    """``text`` at every ``separator`` (a regular expression) outside quotes and brackets."""
    token = re.compile(rf"\"(?:\\.|[^\"\\])*\"|'[^']*'|[\[\]]|{separator}")
    parts, start, depth = [], 0, 0
    for match in token.finditer(text):
        if match.group() in "[]":
            depth += 1 if match.group() == "[" else -1
        elif depth == 0 and match.group()[0] not in "\"'":
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.startswith("[") and text.endswith("]"):
            return [_toml(element.strip()) for element in _split(text[1:-1], ",") if element.strip()]
        return text
