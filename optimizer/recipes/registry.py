"""Names of passes -> their classes, through the entry points ``onnxhone.passes``; loaded only when asked for."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import EntryPoint, entry_points

from optimizer.contract.passes import Pass
from optimizer.errors import UsageError, no_such

GROUP = "onnxhone.passes"
_NOT_INSTALLED = f"; one that is registered under {GROUP!r} is found once its checkout is installed: `pip install -e .`"


def pass_names() -> tuple[str, ...]:
    """The names of all installed passes, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load_pass(name: str) -> type[Pass]:
    """The class of the pass called ``name``.

    Raises:
        UsageError: If no pass has this name, two distributions claim it, or its module does not give a ``Pass``.
    """
    point = _entry_point(name)
    try:
        pass_class = point.load()
    except Exception as error:
        raise UsageError(
            f"pass {name!r} of {_origin(point)} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(pass_class, type) and issubclass(pass_class, Pass)):
        raise UsageError(f"pass {name!r} of {_origin(point)} is not a subclass of optimizer.Pass, but {pass_class!r}")
    if pass_class.name != name:
        raise UsageError(
            f"pass {name!r} of {_origin(point)} calls itself {pass_class.name!r}; the two names must agree"
        )
    return pass_class


def origin(name: str) -> str:
    """The distribution that offers the pass called ``name``."""
    return _origin(_entry_point(name))


def _entry_point(name: str) -> EntryPoint:
    by_value: dict[str, EntryPoint] = {}
    groups: dict[str, list[EntryPoint]] = defaultdict(list)
    for point in entry_points(group=GROUP):
        groups[point.name].append(point)
    by_value = {point.value: point for point in groups.get(name, ())}
    if not by_value:
        raise UsageError(f"{no_such('pass', name, sorted(groups))}{_NOT_INSTALLED}")
    if len(by_value) > 1:
        claims = " and ".join(_origin(point) for point in by_value.values())
        raise UsageError(f"pass {name!r} is offered by {claims}; uninstall one of them")
    return next(iter(by_value.values()))


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
