"""The presets: what they are made of, and what comes back where one brings nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import optimizer
from optimizer.errors import UsageError
from optimizer.recipes.presets import DEFAULT, PRESETS, preset
from small_nets import Net, feeds

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
DATA = Path(__file__).parents[2] / "models" / "digits_data"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_begins_with_the_exact_stages_and_nobody_named_its_stages(name):
    stages = preset(name)
    assert [str(stage) for stage in stages[: len(preset(DEFAULT))]] == [str(stage) for stage in preset(DEFAULT)]
    assert not any(stage.named for stage in stages)
    assert sum(not stage.exact for stage in stages) == {DEFAULT: 0, "pruned-int8": 2}.get(name, 1)


def test_a_preset_that_does_not_exist_names_those_that_do():
    with pytest.raises(UsageError, match="did you mean 'weights-int8'"):
        preset("weight-int8")


def wide_net(opset):
    """Two products that are worth it, and one that is not."""
    net = Net(16, 256, opset=opset)
    hidden = net.node("Relu", net.node("MatMul", "x", net.weight(256, 512, scale=0.06)))
    return net.model(net.node("MatMul", hidden, net.weight(512, 256, scale=0.05)))


@pytest.mark.parametrize(
    ("name", "opset", "size"), [("int8-dynamic", 9, 0.3), ("weights-int8", 9, 0.3), ("weights-int4", 9, 0.2)]
)
def test_weights_shrink_whatever_the_opset(name, opset, size):
    given = wide_net(opset)
    result = optimizer.optimize(given, preset=name, data=feeds(16, 256), timing=False, budget="rel_l2=0.2")
    report = result.report
    assert report.stages[-1].kept, report.to_text()
    assert report.after.bytes < size * report.before.bytes
    assert all(output.rel_l2 < 0.2 for output in report.outputs)


@pytest.mark.parametrize("name", ["int8-dynamic", "weights-int8", "weights-int4"])
def test_they_need_no_data(name):
    report = optimizer.optimize(wide_net(17), preset=name, timing=False, budget="none").report
    assert report.stages[-1].kept


def test_what_brings_nothing_comes_back_in_floats_with_the_reason():
    report = optimizer.optimize(DIGITS, preset="int8-dynamic", data=DATA, timing=False).report
    last = report.stages[-1]
    assert not last.kept
    assert any("no gain" in note.reason for member in last.passes for note in member.notes)
    assert report.after.bytes == report.stages[-2].bytes
    assert "int8" not in "".join(report.after.ops)


def test_what_no_choice_of_keeps_the_budget_comes_back_in_floats_with_the_reason():
    report = optimizer.optimize(
        wide_net(17), preset="weights-int8", data=feeds(16, 256), timing=False, budget="rel_l2=1e-9"
    ).report
    last = report.stages[-1]
    assert not last.kept
    assert "limit is 1e-09" in last.reason
    assert last.bytes == report.stages[-2].bytes
