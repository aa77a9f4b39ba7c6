"""How far a pass goes within its part of the budget: level by level, then unit by unit.

Levels go from what saves most to what costs the least error. Past the last, units stay as they are::

    whole    all units at level 0, 1, 2, ..., each candidate measured, until one keeps the limit
    mixed    the units that save most for their error at the level before it, the others at it; if none keeps the
             limit, at the last and past it (``optimizer.algorithms.search.budgeted``)

What an earlier run decided is repeated without measuring, and where nothing may be run all units are at level 0.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from optimizer.algorithms.search.budgeted import Search, grouped
from optimizer.contract.passes import PassResult
from optimizer.contract.progress import Progress
from optimizer.errors import PreconditionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

_NEARLY = 2.0  # times the limit: what finishing a candidate may still bring under it

_Result = TypeVar("_Result", bound=PassResult)


@dataclass(frozen=True)
class Point:
    """All units at ``level``, but for those called ``finer``, which are at the next one."""

    level: int = 0
    finer: frozenset[str] = frozenset()


@dataclass
class Measured:
    """What was measured of the candidates of one model, for the next try with another limit.

    Attributes:
        shares: By level, the share of the budget that is used with these units at it and the others at the next.
        errors: By level, the share that a unit uses when it alone is at it.
    """

    shares: defaultdict[int, dict[frozenset[str], float]] = field(default_factory=lambda: defaultdict(dict))
    errors: defaultdict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(frozen=True)
class Levels(Generic[_Result]):
    """What a pass can make of a model.

    Attributes:
        build: Makes a candidate from a clone of the model, and tells the progress of the context what it does.
        savings: What each unit saves at a coarser level, by name, in the order of the graph; asked for when units are
            told apart.
        whole: How many levels are tried with all units; 0: single units are searched at level 0 at once.
        mixes: Whether units are told apart between a level that keeps the limit and the one before it.
        finish: Makes of a candidate that is kept, or nearly keeps the limit, a better one or gives it back.
    """

    build: Callable[[Context, Point], _Result]
    savings: Callable[[], Mapping[str, float]]
    whole: int = 0
    mixes: bool = True
    finish: Callable[[_Result], _Result] | None = None


def within_budget(
    levels: Levels[_Result], context: Context, measured: Measured | None = None, replayed: Point | None = None
) -> _Result:
    """The candidate that saves most and keeps ``context.budget_limit``.

    Args:
        levels: The candidates.
        context: Of the pass.
        measured: What was measured before; is added to.
        replayed: Where an earlier run ended, if it is to be repeated.

    Raises:
        PreconditionError: If there is no such level as ``replayed`` names.
    """
    evaluator = context.evaluator
    if replayed is not None and replayed.level > max(levels.whole - 1, 0):
        raise PreconditionError(f"choices:level: there is no level {replayed.level}, the last is {levels.whole - 1}")
    if replayed is not None or evaluator is None:
        return levels.build(context, replayed or Point())
    measured = measured or Measured()
    for level in range(levels.whole):
        result = levels.build(context, Point(level))
        if not result.changes:
            return result
        share = measured.shares[level][frozenset(levels.savings())] = evaluator.budget_used(result.model)
        if share <= context.budget_limit:
            is_kept = level == 0 or not levels.mixes
            return _finished(levels, result) if is_kept else _mixed(levels, level - 1, context, evaluator, measured)
        if levels.finish is not None and share <= _NEARLY * context.budget_limit:
            finished = levels.finish(result)
            if evaluator.budget_used(finished.model) <= context.budget_limit:
                return finished
    return _mixed(levels, max(levels.whole - 1, 0), context, evaluator, measured)


def _mixed(levels: Levels[_Result], level: int, context: Context, evaluator: Evaluator, measured: Measured) -> _Result:
    """As many units at ``level`` as keep the limit, the others at the next; all at the next if there are no units."""
    savings = levels.savings()
    if not savings:
        return _finished(levels, levels.build(context, Point(level + 1)))
    silent = replace(context, progress=Progress())  # to build is a part of the search

    def build(coarse: frozenset[str]) -> _Result:
        return levels.build(silent, Point(level, frozenset(savings) - coarse))

    search = Search(
        lambda coarse: build(coarse).model,
        evaluator,
        context.budget_limit,
        context.progress,
        measured.errors[level],
        measured.shares[level],
    )
    return _finished(levels, build(search.run(grouped(list(savings), savings))))


def _finished(levels: Levels[_Result], result: _Result) -> _Result:
    return result if levels.finish is None else levels.finish(result)
