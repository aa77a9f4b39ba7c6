"""The promises of passes as checks, for passes of anybody.

    import pytest
    from optimizer.testing import check_pass, pass_checks

    @pytest.mark.parametrize(("name", "check"), pass_checks())
    def test_it_keeps_what_every_pass_promises(name, check):
        check(DropAbs())                                    # on small models of many kinds

    def test_it_drops_an_abs():
        result = check_pass(DropAbs(), "model.onnx")        # on a model of yours
        assert result.changes == {"nodes removed": 1}

A check that fails raises an ``AssertionError`` of one line: the pass, the model, what does not hold, and the promise.
The promises are in ``optimizer.testing.promises``, the models in ``optimizer.testing.models``. Needs no test library.

May import ``optimizer.engine`` and what is below that.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from optimizer.contract.passes import PassResult, Sites
from optimizer.errors import UsageError, no_such
from optimizer.testing.models import models
from optimizer.testing.promises import PROMISES
from optimizer.testing.trials import Subject, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from optimizer.contract.passes import Pass
    from optimizer.testing.promises import Promise

__all__ = ["check_pass", "pass_checks"]


def check_pass(  # noqa: PLR0913 - the pass, the model, and by keyword how it is run
    pass_: Pass,
    model: Any,
    *,
    data: str | Path | Iterable[Mapping[str, Any]] | None = None,
    sites: Sites | None = None,
    may_run: bool = True,
    promises: Collection[str] = (),
) -> PassResult:
    """Check the promises of ``pass_`` on ``model``.

    Args:
        pass_: The pass, with its options.
        model: What ``optimizer.load`` takes; it is not changed.
        data: Feeds, as ``optimizer.optimize`` takes them; made up if there are none.
        sites: Steps and places that are denied to it; told what it was permitted.
        may_run: Whether models may be run; if not, ``context.evaluator`` is missing, as under ``--no-run``.
        promises: Names of those to check, as ``pass_checks`` gives them; all if there are none.

    Returns:
        What the pass gave.

    Raises:
        AssertionError: If a promise does not hold, with the pass, the promise and what is wrong.
        PreconditionError: If the pass refuses the model.
        UsageError: If there is no promise of that name.
    """
    trial = Trial(pass_, Subject("the model", model, data, may_run), sites or Sites())
    by_name = {_name(promise): promise for promise in PROMISES}
    for name in promises or by_name:
        if name not in by_name:
            raise UsageError(no_such("promise", name, list(by_name)))
        _hold(by_name[name], trial)
    if sites is not None:
        sites.permitted.update(dict.fromkeys(trial.plain.permitted))
    if trial.plain.refusal is not None:
        raise trial.plain.refusal
    return trial.plain.result


def pass_checks() -> list[tuple[str, Callable[[Pass], None]]]:
    """All promises by name, each as a function that checks it for a pass on the models of the suite."""
    return [(_name(promise), partial(_check, promise)) for promise in PROMISES]


def _check(promise: Promise, pass_: Pass) -> None:
    for subject in _subjects():
        _hold(promise, _trial(pass_, subject))


def _hold(promise: Promise, trial: Trial) -> None:
    failure = promise(trial)
    if failure:
        raise AssertionError(f"{trial.about}: {failure} ({_name(promise)})")


def _name(promise: Promise) -> str:
    return promise.__name__.replace("_", " ")


@lru_cache(maxsize=1)
def _subjects() -> tuple[Subject, ...]:
    return tuple(Subject(name, proto) for name, proto in models().items())


@lru_cache(maxsize=100)  # promises of one pass share its runs
def _trial(pass_: Pass, subject: Subject) -> Trial:
    return Trial(pass_, subject)
