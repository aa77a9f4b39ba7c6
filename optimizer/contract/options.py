"""Values fitted to the types that the fields of a dataclass declare, and written back as TOML.

Options of passes come from Python, from the command line and from recipes, choices from the report of an earlier run.
All are fitted by the same rules::

    bool, str, other classes   an instance of it; a str may be given as a number
    int, float                 a number of that kind, NumPy's too, a float also as a whole one; never a bool
    Literal, an Enum           one of its values
    tuple[T, ...]              a list or tuple of T, or a single T
    Mapping[K, V], dict[K, V]  a mapping from K to V
    S | T, S | None            the first that fits
    Annotated[T, Only(...)]    a T for which the condition holds

Annotations are evaluated: what they name has to be imported at runtime, not under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import enum
import functools
import json
import numbers
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from optimizer.errors import UsageError, no_such


@dataclass(frozen=True)
class Only:
    """A condition on a value, as metadata of ``Annotated``.

    Attributes:
        words: What holds it, to be read behind the name of the type: ``"from 0 to 1"``.
        holds: Whether a value does.
    """

    words: str
    holds: Callable[[Any], bool]


def at_least(least: float) -> Only:
    """Numbers from ``least`` on."""
    return Only(f"from {least}", lambda number: bool(number >= least))


def between(least: float, most: float) -> Only:
    """Numbers from ``least`` to ``most``, and these two."""
    return Only(f"from {least} to {most}", lambda number: bool(least <= number <= most))


Count: TypeAlias = Annotated[int, at_least(0)]
ShareBelowOne: TypeAlias = Annotated[float, Only("from 0 to less than 1", lambda share: 0 <= share < 1)]


def fitted(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type ``hint``, which the module's docstring lists.

    Args:
        value: What is given.
        hint: The type, with its metadata.
        where: What an error begins with.

    Raises:
        UsageError: If it does not fit, with the value and what there is.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _checked(fitted(value, arguments[0], where), hint, where)
    if kind in {Union, types.UnionType}:
        return _first_fit(value, arguments, where)
    if kind is Literal:
        return _one_of(value, arguments, where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum) and not isinstance(value, hint):
        return hint(_one_of(value, [member.value for member in hint], where))
    if kind is tuple:
        elements = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(fitted(element, arguments[0], where) for element in elements)
    if kind in {dict, Mapping} and isinstance(value, Mapping):
        return {fitted(key, arguments[0], where): fitted(each, arguments[1], where) for key, each in value.items()}
    return _instance(value, kind or hint, where)


@functools.cache
def type_hints(declaring: type) -> Mapping[str, Any]:
    """The types that the fields of ``declaring`` declare, with their metadata.

    Raises:
        TypeError: If an annotation names what is not imported at runtime.
    """
    try:
        return get_type_hints(declaring, include_extras=True)
    except NameError as error:
        raise TypeError(f"{declaring.__name__}: {error}: import at runtime what annotations name") from error


def words(hint: Any) -> str:
    """``hint`` as errors and listings name it: ``"int from 0 | auto"``."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        conditions = [one.words for one in hint.__metadata__ if isinstance(one, Only)]
        return " ".join([words(arguments[0]), *conditions])
    if kind in {Union, types.UnionType}:
        return " | ".join(words(each) for each in arguments)
    if kind is Literal:
        return " | ".join(map(str, arguments))
    if hint is types.NoneType:
        return "none"
    return f"list of {words(arguments[0])}" if kind is tuple else getattr(hint, "__name__", str(hint))


def _instance(value: Any, kind: Any, where: str) -> Any:
    """``value`` as an instance of the class ``kind``, or as it is where that is no class."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is int and is_number and isinstance(value, numbers.Integral):
        return int(value)
    if kind is float and is_number:
        return float(value)
    if kind is str and is_number:
        return str(value)
    if kind is Any or not isinstance(kind, type) or (kind is not int and isinstance(value, kind)):
        return value
    raise UsageError(f"{where}: {value!r} is no {words(kind)}")


def _one_of(value: Any, choices: Any, where: str) -> Any:
    for choice in choices:
        if isinstance(value, type(choice)) and isinstance(value, bool) == isinstance(choice, bool) and value == choice:
            return choice
    raise UsageError(f"{where}: {no_such('value', str(value), [str(choice) for choice in choices])}")


def _checked(value: Any, hint: Any, where: str) -> Any:
    for condition in hint.__metadata__:
        if isinstance(condition, Only) and not condition.holds(value):
            raise UsageError(f"{where}: {value!r} is no {words(hint)}")
    return value


def _first_fit(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    if value is None and types.NoneType in hints:
        return None
    some = [hint for hint in hints if hint is not types.NoneType]
    if len(some) == 1:
        return fitted(value, some[0], where)
    for hint in some:
        try:
            return fitted(value, hint, where)
        except UsageError:
            continue
    raise UsageError(f"{where}: {value!r} is none of {' | '.join(map(words, some))}")


def toml_value(value: object) -> str:
    """``value`` as a TOML value: what the spec parser reads back as the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return toml_value(value.value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(toml_value(element) for element in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
