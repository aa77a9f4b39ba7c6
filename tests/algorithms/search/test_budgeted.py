"""The search keeps the allowance whatever the errors are, believes only what it measured, and takes what pays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from optimizer.algorithms.search.budgeted import Group, Search, grouped


@dataclass
class FakeLab:
    """A model is the set of its quantized units; squared errors add up, but for pairs that disturb each other."""

    errors: dict[str, float]
    gains: dict[str, float]
    disturbing: frozenset[str] = frozenset()
    is_timed: bool = True
    time: float = math.inf
    asked: list[frozenset[str]] = field(default_factory=list)

    def budget_used(self, names):
        self.asked.append(names)
        squares = sum(self.errors[name] ** 2 for name in names)
        return math.sqrt(squares) * (10 if self.disturbing and self.disturbing <= names else 1)

    def seconds(self, names):
        return 10 - sum(self.gains[name] for name in names)

    def time_left(self):
        return self.time if self.time == math.inf else self.time - len(self.asked)


def searched(evaluator, allowance=1.0):
    search = Search(lambda names: names, evaluator, allowance)
    return search.run(grouped(list(evaluator.errors), evaluator.gains)), search


UNITS = st.dictionaries(
    st.sampled_from("abcdefghij"), st.tuples(st.floats(0, 2), st.floats(-0.1, 1)), min_size=1, max_size=10
)


@given(UNITS, st.floats(0.1, 2), st.data())
def test_what_is_chosen_was_measured_and_keeps_the_allowance(units, allowance, data):
    names = sorted(units)
    disturbing = frozenset(data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)))
    evaluator = FakeLab({n: units[n][0] for n in names}, {n: units[n][1] for n in names}, disturbing)
    chosen, search = searched(evaluator, allowance)
    assert not chosen or chosen in evaluator.asked
    assert evaluator.budget_used(chosen) <= allowance
    assert len(set(search.shares)) == len(search.shares), "nothing is measured twice"


@given(UNITS)
def test_all_that_saves_time_is_chosen_where_the_budget_allows_it(units):
    evaluator = FakeLab(dict.fromkeys(units, 0.01), {name: gain for name, (_, gain) in units.items()})
    chosen, _ = searched(evaluator)
    assert chosen >= {name for name in units if evaluator.gains[name] > 1e-6}
    assert evaluator.seconds(chosen) <= evaluator.seconds(frozenset(units)) / 0.98 + 1e-9


def test_the_dearest_second_is_left_out_first():
    evaluator = FakeLab({"stem": 3.0, "body": 0.3, "head": 0.3}, {"stem": 0.1, "body": 1.0, "head": 1.0})
    assert searched(evaluator)[0] == {"body", "head"}


def test_units_that_cost_time_are_left_out():
    evaluator = FakeLab({"fast": 0.1, "slow": 0.1}, {"fast": 1.0, "slow": -1.0})
    assert searched(evaluator)[0] == {"fast"}


def test_units_that_save_nothing_are_taken_only_where_all_gets_clearly_faster():
    evaluator = FakeLab({"body": 0.1, "glue": 0.1}, {"body": 1.0, "glue": -0.01})
    evaluator.seconds = lambda names: 9.9 if names == {"body", "glue"} else 10.0
    assert searched(evaluator)[0] == {"body"}
    evaluator.seconds = lambda names: 9.0 if names == {"body", "glue"} else 10.0
    assert searched(evaluator)[0] == {"body", "glue"}


def test_what_saves_next_to_nothing_is_not_worth_most_of_the_error():
    evaluator = FakeLab({"body": 0.3, "head": 0.8}, {"body": 1.0, "head": 0.02})
    assert searched(evaluator)[0] == {"body"}
    comfortable = FakeLab({"body": 0.03, "head": 0.08}, {"body": 1.0, "head": 0.02})
    assert searched(comfortable)[0] == {"body", "head"}
    paying = FakeLab({"body": 0.3, "head": 0.8}, {"body": 1.0, "head": 0.5})
    assert searched(paying)[0] == {"body", "head"}


def test_without_times_everything_that_holds_is_taken():
    evaluator = FakeLab({"fast": 0.1, "slow": 0.1}, {"fast": 1.0, "slow": -1.0}, is_timed=False)
    assert searched(evaluator)[0] == {"fast", "slow"}


def test_nothing_is_chosen_where_nothing_holds():
    evaluator = FakeLab({"a": 5.0, "b": 7.0}, {"a": 1.0, "b": 1.0})
    assert searched(evaluator)[0] == frozenset()


def test_a_search_without_time_still_ends_with_something_that_holds():
    names = [str(number) for number in range(40)]
    evaluator = FakeLab(dict.fromkeys(names, 0.3), dict.fromkeys(names, 1.0), time=10)
    chosen, _ = searched(evaluator)
    assert evaluator.budget_used(chosen) <= 1
    assert len(evaluator.asked) < 25


def test_many_units_are_searched_in_groups_of_neighbours():
    names = [str(number) for number in range(130)]
    groups = grouped(names, dict.fromkeys(names, 1.0), most=64)
    assert len(groups) == 44
    assert [name for group in groups for name in group.names] == names
    assert groups[0] == Group(("0", "1", "2"), 3.0)
    assert grouped([], {}) == []
