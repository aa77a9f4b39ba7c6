"""The options of every pass are checked where it is made, from Python as from the command line."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from optimizer.errors import UsageError
from optimizer.recipes.spec import parse_pass
from passes.insert_qdq import InsertQdq
from passes.prune_channels import PruneChannels
from passes.prune_magnitude import PruneMagnitude

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PASSES = [
    getattr(import_module(module), name)
    for module, _, name in (each.partition(":") for each in PROJECT["entry-points"]["onnxhone.passes"].values())
]
OPTIONS = [(kind, option.name) for kind in PASSES for option in kind.option_fields()]


@pytest.mark.parametrize(("kind", "option"), OPTIONS, ids=lambda each: getattr(each, "__name__", each))
def test_no_option_takes_what_is_of_no_use(kind, option):
    with pytest.raises(UsageError) as caught:
        kind(**{option: object()})
    assert str(caught.value).startswith(f"{kind.name}:{option.replace('_', '-')}: ")
    assert "<object object" in str(caught.value)


@pytest.mark.parametrize("kind", PASSES)
def test_defaults_fit(kind):
    assert parse_pass(str(kind())) == kind()


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (
            InsertQdq,
            {"granularity": "bogus"},
            r"insert-qdq:granularity: .*'bogus' \(there are: channel, tensor\)",
        ),
        (InsertQdq, {"ranges": "bogus"}, r"insert-qdq:ranges: 'bogus' is none of auto \| min-max"),
        (PruneMagnitude, {"scope": "bogus"}, r"prune-magnitude:scope: no value 'bogus' \(there are: layer, global\)"),
        (PruneMagnitude, {"store": "x"}, r"prune-magnitude:store: no value 'x' \(there are: dense, sparse\)"),
        (PruneChannels, {"repair": "maybe"}, r"prune-channels:repair: 'maybe' is none of bool \| auto"),
    ],
)
def test_a_bad_value_is_told_with_what_there_is(kind, options, told):
    with pytest.raises(UsageError, match=told):
        kind(**options)


def test_lists_become_tuples():
    assert InsertQdq(include=["op:Conv"]) == InsertQdq(include=("op:Conv",))
