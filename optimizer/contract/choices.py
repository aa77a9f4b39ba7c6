"""What a pass decided by measurement, for the report of a run and from it: ``--replay`` repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self, cast

from optimizer.contract.options import fitted, type_hints
from optimizer.errors import UsageError, no_such


@dataclass(frozen=True)
class Choices:
    """Base of the frozen dataclasses in which passes tell what they decided, one class a pass."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, but for those that have their default."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: _json(value) for name, (value, default) in values.items() if value != default}

    @classmethod
    def from_json(cls, values: Any, where: str) -> Self:
        """The choices that ``to_json`` gave as ``values``.

        Args:
            values: What stands in a report.
            where: What an error begins with.

        Raises:
            UsageError: If a key is missing, is one too many, or has a value that does not fit.
        """
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {values!r} is no object of keys and values")
        declared = {field.name: field for field in fields(cls)}
        for name in values:
            if name not in declared:
                raise UsageError(f"{where}: {no_such('key', str(name), list(declared))}")
        for name, field in declared.items():
            if field.default is MISSING and name not in values:
                raise UsageError(f"{where}: the key {name!r} is missing")
        hints = type_hints(cast("type", cls))
        return cls(**{name: fitted(value, hints[name], f"{where}:{name}") for name, value in values.items()})


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(element) for element in value]
    return {key: _json(element) for key, element in value.items()} if isinstance(value, Mapping) else value
