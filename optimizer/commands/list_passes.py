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
    """Name, distribution, exactness, gain, options and steps of each installed pass; of a broken one its ``error``."""
    return [_described(name) for name in pass_names()]


def _described(name: str) -> dict[str, Any]:
    try:
        pass_class = load_pass(name)
        distribution = origin(name)
    except UsageError as error:
        return {"name": name, "error": str(error)}
    instance = _instance(pass_class)
    return {
        "name": name,
        "summary": pass_class.summary,
        "distribution": distribution,
        "exact": None if instance is None else instance.exact,
        "gain": pass_class.gain.value,
        "options": [
            {
                "name": option.name.replace("_", "-"),
                "type": words(type_hints(pass_class)[option.name]),
                "default": None if option.default is MISSING else toml_value(option.default),
                "required": option.default is MISSING and option.default_factory is MISSING,
            }
            for option in pass_class.option_fields()
        ],
        "steps": []
        if instance is None
        else [{"name": step.name, "summary": step.summary} for step in instance.steps()],
    }


def _instance(pass_class: type[Pass]) -> Pass | None:
    """The pass with its defaults; ``None`` if it has options without a default."""
    try:
        return pass_class()
    except TypeError:
        return None


def listing_table(listed: Sequence[dict[str, Any]]) -> Table:
    """The passes as a table, one row each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("pass", "kind", "for", "options (default)", "what it does"):
        table.add_column(title, overflow="fold")
    for description in listed:
        if "error" in description:
            table.add_row(description["name"], "broken", "", "", description["error"])
            continue
        options = ", ".join(f"{option['name']} ({option['default']})" for option in description["options"])
        exactness = {True: "exact", False: "lossy", None: "by option"}[description["exact"]]
        table.add_row(description["name"], exactness, description["gain"], options or "none", description["summary"])
    return table
