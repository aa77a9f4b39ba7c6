"""Options fitted to declared types: what fits, and what is refused with which words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest

from optimizer.contract.node_filter import NodeFilterOptions, NodePattern
from optimizer.contract.options import Count, Only, ShareBelowOne, at_least, between, fitted, toml_value, words
from optimizer.contract.passes import Gain, Pass, PassResult
from optimizer.errors import UsageError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


EVEN = Annotated[int, Only("that is even", lambda number: number % 2 == 0)]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3, 3),
        (int, np.int64(3), 3),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (str, "3", "3"),
        (str, 3, "3"),
        (bool, False, False),
        (Literal["a", "b"], "b", "b"),
        (Literal[4, 8], 8, 8),
        (Colour, "blue", Colour.BLUE),
        (Colour, Colour.RED, Colour.RED),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[str, ...], "a*", ("a*",)),
        (tuple[str, ...], ("a", "b"), ("a", "b")),
        (Mapping[str, tuple[int, ...]], {"a": [1]}, {"a": (1,)}),
        (float | None, None, None),
        (float | None, 1, 1.0),
        (int | Literal["auto"], "auto", "auto"),
        (bool | Literal["auto"], True, True),
        (EVEN | Literal["auto"], 4, 4),
        (Count, 0, 0),
        (Any, object, object),
    ],
)
def test_fits(hint, value, expected):
    result = fitted(value, hint, "pass:option")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "told"),
    [
        (int, "3", "'3' is no int"),
        (int, 3.0, "3.0 is no int"),
        (int, True, "True is no int"),
        (float, False, "False is no float"),
        (float, "much", "'much' is no float"),
        (str, None, "None is no str"),
        (bool, 1, "1 is no bool"),
        (bool, np.bool_(True), "is no bool"),
        (Literal["fast", "slow"], "fats", "no value 'fats'; did you mean 'fast'? (there are: fast, slow)"),
        (Literal[0, 1], True, "no value 'True' (there are: 0, 1)"),
        (Colour, "green", "no value 'green' (there are: red, blue)"),
        (tuple[int, ...], [1, "a"], "'a' is no int"),
        (Mapping[str, int], {"a": "b"}, "'b' is no int"),
        (Mapping[str, int], [1], "[1] is no Mapping"),
        (float | None, "x", "'x' is no float"),
        (int | Literal["auto"], "car", "'car' is none of int | auto"),
        (EVEN | Literal["auto"], 3, "3 is none of int that is even | auto"),
        (Count, -1, "-1 is no int from 0"),
        (ShareBelowOne, 1, "1.0 is no float from 0 to less than 1"),
        (ShareBelowOne, float("nan"), "nan is no float from 0 to less than 1"),
        (Annotated[int, between(2, 4)], 5, "5 is no int from 2 to 4"),
        (Annotated[float, at_least(0)], -0.5, "-0.5 is no float from 0"),
        (tuple[NodePattern, ...], ["a", ""], "'' is no str that is a name glob or op:TYPE"),
        (tuple[NodePattern, ...], "op:", "'op:' is no str that is a name glob or op:TYPE"),
    ],
)
def test_refused(hint, value, told):
    with pytest.raises(UsageError) as caught:
        fitted(value, hint, "pass:option")
    assert str(caught.value).startswith("pass:option: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (tuple[str, ...], "list of str"),
        (bool | Literal["auto"], "bool | auto"),
        (float | None, "float | none"),
        (Count, "int from 0"),
        (Literal["a", "b"], "a | b"),
    ],
)
def test_words(hint, told):
    assert words(hint) == told


def test_toml_value():
    assert toml_value((True, "a", 1.5, Colour.RED)) == '[true,"a",1.5,"red"]'


@dataclass(frozen=True)
class Sample(NodeFilterOptions, Pass):
    name: ClassVar[str] = "sample"
    summary: ClassVar[str] = "takes a few options"
    gain: ClassVar[Gain] = Gain.SIZE

    mode: Literal["fast", "slow"] = "fast"
    min_bytes: Count = 0

    def run(self, model, context):
        return PassResult(model, {})


def test_options_are_fitted_as_the_pass_is_made():
    sample = Sample("slow", np.int64(3), include=["a", "op:Conv"], exclude="b*")
    assert sample == Sample("slow", 3, include=("a", "op:Conv"), exclude=("b*",))
    assert sample.node_filter.include == ("a", "op:Conv")
    assert sample.node_filter.exclude == ("b*",)
    hash(sample)


def test_an_option_that_does_not_fit_is_told_with_pass_option_value_and_what_there_is():
    with pytest.raises(UsageError, match=r"^sample:min-bytes: -1 is no int from 0$"):
        Sample(min_bytes=-1)
    with pytest.raises(UsageError, match=r"^sample:mode: no value 'bogus' \(there are: fast, slow\)$"):
        Sample(mode="bogus")
    with pytest.raises(UsageError, match=r"^sample:include: '' is no str"):
        Sample(include=("",))


def test_options_of_the_filter_come_last():
    assert [option.name for option in Sample.option_fields()] == ["mode", "min_bytes", "include", "exclude"]
    assert str(Sample("slow", include=("a",))) == 'sample:mode="slow",include=["a"]'


def test_annotations_are_needed_at_runtime():
    @dataclass(frozen=True)
    class Lost(Sample):
        name: ClassVar[str] = "lost"
        other: Missing = 0  # noqa: F821 - what is tested

    with pytest.raises(TypeError, match=r"Lost: name 'Missing' is not defined: import at runtime"):
        Lost()
