"""Specs and recipes: what parses, what round-trips, and what is refused with which words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.contract.passes import Gain, Pass, PassResult
from optimizer.errors import UsageError
from optimizer.recipes import spec
from optimizer.recipes.presets import PRESETS, preset
from optimizer.recipes.spec import parse_pass, parse_recipe, parse_stage


@dataclass(frozen=True)
class Sample(Pass):
    name: ClassVar[str] = "sample"
    summary: ClassVar[str] = "takes options of every kind"
    gain: ClassVar[Gain] = Gain.SIZE

    exclude: tuple[str, ...] = ()
    min_bytes: int = 0
    ratio: float = 0.5
    deep: bool = False
    mode: Literal["fast", "thorough"] = "fast"
    limit: float | None = None
    label: str = ""

    def __post_init__(self):
        if self.min_bytes < 0:
            raise ValueError("min-bytes must not be negative")

    def run(self, model, context):
        return PassResult(model, {})


@pytest.fixture(autouse=True)
def _only_sample(monkeypatch):
    real = spec.load_pass
    monkeypatch.setattr(spec, "load_pass", lambda name: Sample if name == "sample" else real(name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample", Sample()),
        ("sample:min-bytes=12", Sample(min_bytes=12)),
        ("sample:min_bytes=12,deep=true", Sample(min_bytes=12, deep=True)),
        ("sample:ratio=1", Sample(ratio=1.0)),
        ("sample:ratio=1e+2", Sample(ratio=100.0)),
        ("sample:exclude=/conv1/*", Sample(exclude=("/conv1/*",))),
        ('sample:exclude=["a,b","c:0"]', Sample(exclude=("a,b", "c:0"))),
        ("sample:exclude=[a*,op:Conv]", Sample(exclude=("a*", "op:Conv"))),
        ("sample:mode=thorough", Sample(mode="thorough")),
        ("sample:limit=3", Sample(limit=3.0)),
        ("sample:label=7", Sample(label="7")),
        ('sample:label="a+b"', Sample(label="a+b")),
    ],
)
def test_parses(text, expected):
    assert parse_pass(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smple", "no pass 'smple'"),
        ("simplfy", "did you mean 'simplify'?"),
        ("sample:depth=1", "no option of sample 'depth'; did you mean 'deep'?"),
        ("sample:min-bytes=often", "'often' is no int"),
        ("sample:min-bytes=true", "True is no int"),
        ("sample:min-bytes=-1", "must not be negative"),
        ("sample:mode=slow", "there are: fast, thorough"),
        ("sample:exclude=a,b", "is no key=value"),
        ("sample:deep=1", "1 is no bool"),
    ],
)
def test_refuses_with_one_helpful_line(text, words):
    with pytest.raises(UsageError) as caught:
        parse_pass(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plus_makes_one_stage():
    stage = parse_stage('sample:label="x+y"+sample:ratio=1e+1')
    assert stage.passes == (Sample(label="x+y"), Sample(ratio=10.0))


@given(
    st.builds(
        Sample,
        exclude=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))).map(tuple),
        min_bytes=st.integers(0, 2**62),
        ratio=st.floats(allow_nan=False, allow_infinity=False),
        deep=st.booleans(),
        mode=st.sampled_from(["fast", "thorough"]),
        limit=st.none() | st.floats(0, 1),
        label=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    )
)
def test_str_round_trips(sample):
    assert parse_pass(str(sample)) == sample


def test_recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[[stage]]\npasses = ["sample", { name = "sample", min-bytes = 3 }]\n[[stage]]\npasses = ["sample:deep=true"]\n'
    )
    first, second = parse_recipe(path)
    assert first.passes == (Sample(), Sample(min_bytes=3))
    assert second.passes == (Sample(deep=True),)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "stage = 1",
        "[[stage]]\n",
        "[[stage]]\npasses = []",
        "[[stage]]\npasses = [1]",
        "[[stages]]\npasses = ['x']",
        "[[",
        "\x00",
    ],
)
def test_recipe_refused(tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"recipe\.toml"):
        parse_recipe(path)


def test_recipe_missing(tmp_path):
    with pytest.raises(UsageError, match="no recipe"):
        parse_recipe(tmp_path / "none.toml")


def test_presets_parse_and_are_not_named_by_the_user():
    for name in PRESETS:
        assert all(not stage.named for stage in preset(name))
    with pytest.raises(UsageError, match="there are: exact"):
        preset("fastest")
