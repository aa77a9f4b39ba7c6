"""A report is replayed to the same bytes; what was changed in it is told with its key."""

import json
from pathlib import Path

import pytest

import optimizer
from optimizer.errors import UsageError

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_data/calib"
INT8 = "upgrade-opset:version=13+insert-qdq:rounding=nearest,ranges=mse"
CASES = {
    INT8: {},
    "quantize-dynamic:min-elements=16": {},
    "quantize-weights:min-elements=16": {"budget": "sqnr=55"},
    "cluster-weights:entries=4,min-elements=16": {"budget": "sqnr=25"},
    "prune-magnitude:guard=false": {"budget": "sqnr=25"},
    "simplify+prune-channels:macs=0.7": {"budget": "none"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of each case the bytes of the result and its report as JSON text."""
    folder, results = tmp_path_factory.mktemp("runs"), {}
    for spec, options in CASES.items():
        passes = ["upgrade-opset:version=13", spec]
        report = optimizer.optimize(
            DIGITS, folder / "out.onnx", passes=passes, data=DATA, timing=False, **options
        ).report
        results[spec] = (folder / "out.onnx").read_bytes(), json.dumps(report.to_dict())
    return results


def choices_of(report):
    """The one object of choices in ``report``."""
    (found,) = [one for stage in report["stages"] for one in stage["decisions"] if "choices" in one]
    return found["choices"]


def replay(spec, report, tmp_path):
    path, out = tmp_path / "report.json", tmp_path / "out.onnx"
    path.write_text(json.dumps(report))
    passes = ["upgrade-opset:version=13", spec]
    return optimizer.optimize(DIGITS, out, passes=passes, data=DATA, replay=path, **CASES[spec]).report


@pytest.mark.parametrize("spec", CASES)
def test_a_replay_gives_the_same_bytes(spec, runs, tmp_path):
    expected, text = runs[spec]
    assert choices_of(json.loads(text))
    again = replay(spec, json.loads(text), tmp_path)
    assert (tmp_path / "out.onnx").read_bytes() == expected
    assert choices_of(again.to_dict()) == choices_of(json.loads(text))


@pytest.mark.parametrize("spec", CASES)
def test_a_changed_key_is_told_with_report_pass_and_key(spec, runs, tmp_path):
    for key in choices_of(json.loads(runs[spec][1])):
        report = json.loads(runs[spec][1])
        choices = choices_of(report)
        choices[f"{key}_"] = choices.pop(key)
        with pytest.raises(UsageError, match=rf"report\.json: choices of [a-z-]+: no key '{key}_'"):
            replay(spec, report, tmp_path)


@pytest.mark.parametrize(
    ("spec", "key", "value", "told"),
    [
        (INT8, "units", ["Conv -> nothing"], "choices:units: no unit 'Conv -> nothing'"),
        ("quantize-weights:min-elements=16", "block", "7", "choices:block: no block '7'"),
        ("cluster-weights:entries=4,min-elements=16", "level", 9, "choices:level: there is no level 9"),
        ("prune-magnitude:guard=false", "level", 9, "choices:level: there is no level 9"),
        ("simplify+prune-channels:macs=0.7", "removed", {"Conv -> nothing": [1]}, "no kernel 'Conv -> nothing'"),
        ("simplify+prune-channels:macs=0.7", "removed", {"Conv -> conv2": [999]}, "has no channel 999"),
    ],
)
def test_what_the_model_does_not_have_leaves_the_pass_out_with_the_key(spec, key, value, told, runs, tmp_path):
    report = json.loads(runs[spec][1])
    choices_of(report)[key] = value
    again = replay(spec, report, tmp_path)
    assert any(told in (one.skipped or "") for stage in again.stages for one in stage.passes)


def test_choices_of_a_pass_that_has_none_are_refused(runs, tmp_path):
    report = json.loads(runs[INT8][1])
    report["stages"][0]["decisions"][0]["choices"] = {"version": 13}
    with pytest.raises(UsageError, match=r"choices of upgrade-opset: .* it has none"):
        replay(INT8, report, tmp_path)


def test_the_order_of_options_is_of_no_matter(runs, tmp_path):
    report = json.loads(runs[INT8][1])
    member = report["stages"][1]["passes"][1]
    assert member["spec"] == 'insert-qdq:ranges="mse",rounding="nearest"'
    member["spec"] = 'insert-qdq:rounding="nearest",ranges="mse"'
    replay(INT8, report, tmp_path)
    assert (tmp_path / "out.onnx").read_bytes() == runs[INT8][0]
    member["spec"] = 'insert-qdq:ranges="mse"'
    with pytest.raises(UsageError, match="its stages are"):
        replay(INT8, report, tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"model": {"sha256": ""}, "stages": [1]}'])
def test_what_is_no_report_is_refused(text, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError, match=r"report\.json"):
        optimizer.optimize(DIGITS, passes=["simplify"], run=False, replay=tmp_path / "report.json")
