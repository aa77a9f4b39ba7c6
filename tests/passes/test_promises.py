"""What every pass promises (``optimizer.testing``), held by every installed pass: ours, and anybody's."""

import pytest

from optimizer.recipes.registry import load_pass, origin, pass_names
from optimizer.testing import pass_checks
from optimizer.testing.models import models
from optimizer.testing.trials import Subject, Trial

# On models this small, passes with these options have something to do; the search for ranges only takes time
SMALL = {"min_elements": 1, "multiple": 1, "guard": False, "ranges": "min-max"}


def for_small_models(name):
    kind = load_pass(name)
    known = {option.name for option in kind.option_fields()}
    return kind(**{key: value for key, value in SMALL.items() if key in known})


@pytest.mark.parametrize("promise", pass_checks(), ids=lambda pair: pair[0])
@pytest.mark.parametrize("name", pass_names())
def test_pass_keeps_its_promise(name, promise):
    _, check = promise
    check(for_small_models(name))


OURS = [name for name in pass_names() if origin(name) == "onnxhone"]


@pytest.mark.parametrize("name", [name for name in OURS if name != "refit-weights"])  # which needs changed weights
def test_pass_has_something_to_do_on_some_of_the_models(name):
    member = for_small_models(name)
    trials = (Trial(member, Subject(label, model)) for label, model in models().items())
    has_changed = any(run.result.changes for trial in trials for run in trial.runs)
    assert has_changed, f"{name} has nothing to do: add a model to optimizer/testing/models.py"
