"""Latency is judged over pairs of sessions; all clocks here are injected."""

from __future__ import annotations

import math
from itertools import cycle

import numpy as np
import pytest

from optimizer.evaluation.runtime.timing import Latency, bootstrap_median, clock_for, compare


class Machine:
    """A clock that runs only while models run, with noise of each session and of each run."""

    def __init__(self, session_noise=0.0, run_noise=0.0):
        self.now = 0.0
        self.made = []
        self.random = np.random.default_rng(0)
        self.session_noise, self.run_noise = session_noise, run_noise

    def clock(self):
        return self.now

    def model(self, seconds, name="m"):
        def fresh():
            self.made.append(name)
            mine = seconds * math.exp(self.session_noise * self.random.standard_normal())

            def run():
                self.now += mine * math.exp(self.run_noise * self.random.standard_normal())

            return run

        return fresh

    def compare(self, first, second, **options):
        return compare(
            self.model(first, "old"), self.model(second, "new"), clock=self.clock, wall=self.clock, **options
        )


@pytest.mark.parametrize("seconds", [1e-4, 3e-3, 0.1])
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "same"), (1.1, "slower"), (0.9, "faster"), (1.01, "same")])
def test_verdicts(seconds, factor, verdict):
    result = Machine(0.005, 0.02).compare(seconds, seconds * factor)
    assert result.verdict == verdict
    assert result.ratio == pytest.approx(factor, rel=0.02)
    assert result.pairs >= 5


def test_sessions_that_differ_by_chance_are_the_same():
    machine = Machine(0.05, 0.02)
    verdicts = [machine.compare(1e-3, 1e-3, time_limit=1000).verdict for _ in range(10)]
    assert verdicts.count("same") >= 9


def test_pairs_alternate_and_are_fresh():
    machine = Machine()
    machine.compare(0.01, 0.01)
    assert machine.made[:6] == ["old", "new", "new", "old", "old", "new"]
    assert len(machine.made) == 10


def test_the_time_limit_holds_and_undecided_is_same():
    machine = Machine()
    result = machine.compare(10.0, 20.0, time_limit=60.0)
    assert result.pairs < 5
    assert result.verdict == "same"
    assert machine.now <= 90


def test_an_outlier_does_not_count():
    slow = cycle([False] * 50 + [True])
    machine = Machine()
    fast = machine.model(1e-2)

    def hiccup():
        run = fast()

        def once():
            run()
            machine.now += 1.0 if next(slow) else 0.0

        return once

    assert compare(fast, hiccup, clock=machine.clock, wall=machine.clock).verdict == "same"


@pytest.mark.parametrize(
    ("low", "high", "pairs", "verdict"),
    [(1.03, 1.1, 5, "slower"), (0.9, 0.97, 5, "faster"), (1.01, 1.1, 5, "same"), (1.03, 1.1, 4, "same")],
)
def test_the_whole_interval_must_lie_outside(low, high, pairs, verdict):
    latency = Latency(ratio=1.0, low=low, high=high, pairs=pairs)
    assert latency.verdict == verdict
    assert latency.to_dict()["verdict"] == verdict


def test_the_interval_of_few_medians_is_their_range():
    low, high = bootstrap_median(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (low, high) == (1.0, 5.0)
    assert bootstrap_median(np.ones(5)) == (1.0, 1.0)


def test_one_thread_is_timed_by_its_own_clock():
    assert clock_for(1) is not clock_for(2)
