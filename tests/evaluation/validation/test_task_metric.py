"""A task metric as the budget: what it is given, what it decides, and how it may fail."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optimizer
from optimizer.errors import DataError, UsageError
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import Slot
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.task_metric import Score, TaskMetric, guidance
from small_nets import Net

CLASSES = 8
METRICS = """
import numpy as np

def accuracy(outputs, feeds):
    assert all("label" in feed and "x" in feed for feed in feeds)
    right = [output["y"].argmax(-1) == feed["label"] for output, feed in zip(outputs, feeds, strict=True)]
    return 100 * np.mean(right)

def broken(outputs, feeds):
    raise KeyError("label")

def nothing(outputs, feeds):
    return None

def infinite(outputs, feeds):
    return float("inf")

number = 3
"""


def classifier():
    """Two layers; the second is told by the first output's name ``y``."""
    net = Net(16, 256)
    hidden = net.node("Relu", net.node("MatMul", "x", net.weight(256, 256, scale=0.06)))
    model = net.model(net.node("MatMul", hidden, net.weight(256, CLASSES, scale=0.06)))
    old = model.graph.output[0].name
    model.graph.node[-1].output[0] = model.graph.output[0].name = "y"
    assert old != "y"
    return model


def labelled(model, count=12, seed=0):
    """Feeds whose labels are what the model answers."""
    ready = optimizer.load(model)
    from optimizer.evaluation.runtime.session import session  # noqa: PLC0415 - only here

    loaded = session(ready)
    random = np.random.default_rng(seed)
    made = [{"x": random.standard_normal((16, 256)).astype(np.float32)} for _ in range(count)]
    return [{**feed, "label": loaded.run(feed)["y"].argmax(-1)} for feed in made]


def accuracy(outputs, feeds):
    right = [output["y"].argmax(-1) == feed["label"] for output, feed in zip(outputs, feeds, strict=True)]
    return 100 * float(np.mean(right))


def run(metric, max_drop=5.0, preset="weights-int8", **options):
    model = classifier()
    options = {"data": labelled(model), "timing": False, **options}
    return optimizer.optimize(model, preset=preset, metric=metric, max_drop=max_drop, **options).report


def test_it_gets_all_feeds_with_their_labels_and_decides():
    sizes = set()

    def counting(outputs, feeds):
        sizes.add((len(outputs), len(feeds)))
        return accuracy(outputs, feeds)

    report = run(counting)
    assert report.stages[-1].kept
    assert sizes == {(4, 4), (3, 3)}, "validation feeds, and a third of the others"
    assert report.score.reference == 100
    assert report.score.drop <= 5
    assert report.to_dict()["task_metric"]["drop"] == report.score.drop
    assert "counting" in report.to_text()


def test_it_alone_is_the_budget_where_numbers_are_off():
    report = run(lambda _outputs, _feeds: 5.0, preset="weights-int4")
    assert report.stages[-1].changes["weights in 4 bits, for integer kernels"] == 2
    assert report.outputs[0].rel_l2 > 0.1


def on_the_reference(points, otherwise):
    """A metric that knows the reference's outputs, by heart; it is ``otherwise`` for all others."""
    seen = []

    def metric(outputs, _feeds):
        if len(outputs) == 3:  # the search's feeds
            return points
        seen.append(outputs[0]["y"])
        return points if np.array_equal(seen[0], outputs[0]["y"]) else otherwise()

    return metric


def test_it_alone_is_the_budget_where_numbers_are_right():
    report = run(on_the_reference(1.0, lambda: 0.0), max_drop=0.5)
    assert not report.stages[-1].kept
    assert "falls from 1 to 0, by 1; the limit is 0.5" in report.stages[-1].reason
    assert report.score.drop == 0


@pytest.mark.parametrize(
    ("otherwise", "words"), [(lambda: math.nan, "it returned nan"), (lambda: 1 / 0, "it raised ZeroDivisionError")]
)
def test_a_candidate_that_it_fails_on_is_undone_with_the_reason(otherwise, words):
    report = run(on_the_reference(1.0, otherwise))
    assert not report.stages[-1].kept
    assert f"has no value: {words}" in report.stages[-1].reason


def test_a_replay_repeats_its_decisions(tmp_path):
    model, paths = classifier(), [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    options = {"preset": "weights-int4", "data": labelled(model), "metric": accuracy, "max_drop": 20.0}
    first = optimizer.optimize(model, paths[0], timing=False, **options).report
    (tmp_path / "r.json").write_text(json.dumps(first.to_dict()))
    again = optimizer.optimize(model, paths[1], replay=tmp_path / "r.json", **options).report
    assert first.stages[-1].kept
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert again.score == first.score


def test_an_exact_preset_reports_it_too():
    report = run(accuracy, preset="exact")
    assert (report.score.reference, report.score.candidate) == (100, 100)


@pytest.fixture
def folder(tmp_path):
    """A model, labelled ``.npz`` feeds, and a module of metrics."""
    model = classifier()
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "feeds").mkdir()
    for number, feed in enumerate(labelled(model)):
        np.savez(tmp_path / "feeds" / f"{number:02}.npz", **feed)
    (tmp_path / "task.py").write_text(METRICS)
    (tmp_path / "raises.py").write_text("1 / 0")
    return tmp_path


def onnxhone(folder, *arguments):
    options = ("optimize", "m.onnx", "-o", "out.onnx", "--data", "feeds", "--preset", "weights-int8", "--no-timing")
    command = [sys.executable, "-P", "-c", "from optimizer.cli import main; main()", *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)


def test_the_command_finds_it_beside_the_caller(folder):
    done = onnxhone(folder, "--metric", "task:accuracy", "--max-drop", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task_metric"]["reference"] == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "task"], "package.module:function"),
        (["--metric", "nowhere.at.all:f"], "cannot import nowhere.at.all"),
        (["--metric", "raises:f"], "ZeroDivisionError"),
        (["--metric", "task:precision"], "has no function 'precision'"),
        (["--metric", "task:number"], "has no function 'number'"),
        (["--metric", "task:broken"], "raised KeyError"),
        (["--metric", "task:nothing"], "returned a NoneType"),
        (["--metric", "task:infinite"], "returned inf"),
    ],
)
def test_what_is_wrong_with_it_is_one_line_and_exit_code_2(folder, arguments, words):
    done = onnxhone(folder, *arguments, "--max-drop", "1")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_drop": None}, "needs --max-drop"),
        ({"max_drop": -1.0}, "from 0"),
        ({"max_drop": math.nan}, "from 0"),
        ({"metric": None}, "give one with --metric"),
        ({"metric": 3}, "not a function"),
        ({"budget": "sqnr=30"}, "exclude each other"),
        ({"data": None}, "give --data"),
        ({"run": False, "preset": "exact"}, "leave out --no-run"),
    ],
)
def test_what_does_not_go_together(options, words):
    with pytest.raises(UsageError, match=words):
        run(**{"metric": accuracy, **options})


X = Slot("x", "tensor(float)", (None, 2))


def test_labels_are_seen_by_the_metric_only():
    feeds = [{"x": np.ones((1, 2), np.float32), "label": number} for number in range(6)]
    for data in (feeds, iter(feeds)):
        split = load_feeds(data, [X], extras=True)
        for part in (split.calibration, split.selection, split.validation, split.validation[:1]):
            assert all(set(feed) == {"x"} for feed in part)
        assert [int(feed["label"]) for feed in split.validation.whole] == [0, 3]
        assert [int(feed["label"]) for feed in split.validation[1:].whole] == [3]


def test_without_a_metric_they_are_no_inputs():
    with pytest.raises(DataError, match="'label' is not an input"):
        load_feeds([{"x": np.ones((1, 2), np.float32), "label": 1}], [X])


def test_labels_that_cannot_wait_in_a_file_are_refused():
    with pytest.raises(DataError, match="'label' of a feed is not a plain array"):
        load_feeds(iter([{"x": np.ones((1, 2), np.float32), "label": {"a": 1}}]), [X], extras=True)


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_search_is_led_to_smaller_errors_and_never_kept_from_what_the_metric_allows(one, other):
    assert 0 <= guidance(one) < 0.9
    assert guidance(math.inf) < 0.9
    if one < other:
        assert guidance(one) <= guidance(other)


def test_shares():
    assert Score("m", 90, 89.5, 1).budget_used == 0.5
    assert Score("m", 90, 95, 1).budget_used == 0
    assert Score("m", 90, 90, 0).budget_used == 0
    assert Score("m", 90, 89, 0).budget_used == math.inf
    assert Score("m", 90, None, 1, "it raised").budget_used == math.inf
    assert str(Budget(metric=TaskMetric.of(accuracy, 0.5))) == "accuracy, at most 0.5 lower"
