"""The installed passes as JSON values and as a table."""

from __future__ import annotations

from dataclasses import MISSING
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from optimizer.contract.options import toml_value, type_hints, words
from optimizer.errors import UsageError
from optimizer.recipes.registry import load_pass, origin, pass_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.contract.passes import Pass


def list_passes() -> list[dict[str, Any]]:
    """For each installed pass its name, origin, kind, gain, options and steps; a broken one has an ``error``."""
    return [_described(name) for name in pass_names()]


def _described(name: str) -> dict[str, Any]:
    try:
        kind = load_pass(name)
        distribution = origin(name)
    except UsageError as error:
        return {"name": name, "error": str(error)}
    plain = _instance(kind)
    return {
        "name": name,
        "summary": kind.summary,
        "distribution": distribution,
        "exact": None if plain is None else plain.exact,
        "gain": kind.gain.value,
        "options": [
            {
                "name": option.name.replace("_", "-"),
                "type": words(type_hints(kind)[option.name]),
                "default": None if option.default is MISSING else toml_value(option.default),
                "required": option.default is MISSING and option.default_factory is MISSING,
            }
            for option in kind.option_fields()
        ],
        "steps": [] if plain is None else [{"name": step.name, "summary": step.summary} for step in plain.steps()],
    }


def _instance(kind: type[Pass]) -> Pass | None:
    """The pass with its defaults; ``None`` if it has options without a default."""
    try:
        return kind()
    except TypeError:
        return None


def listing_table(listed: Sequence[dict[str, Any]]) -> Table:
    """The passes as a table, one row each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("pass", "kind", "for", "options (default)", "what it does"):
        table.add_column(title, overflow="fold")
    for one in listed:
        if "error" in one:
            table.add_row(one["name"], "broken", "", "", one["error"])
            continue
        options = ", ".join(f"{option['name']} ({option['default']})" for option in one["options"])
        kind = {True: "exact", False: "lossy", None: "by option"}[one["exact"]]
        table.add_row(one["name"], kind, one["gain"], options or "none", one["summary"])
    return table
