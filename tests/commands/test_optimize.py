"""One model end to end: the same kind comes back, the same bytes come out, nothing else is written."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest

import optimizer
from optimizer.errors import ModelError, UsageError
from optimizer.recipes.presets import preset

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
DATA = Path(__file__).parents[2] / "models" / "digits_data"


def test_the_main_job(tmp_path):
    out = tmp_path / "out.onnx"
    result = optimizer.optimize(DIGITS, out, data=DATA, timing=False)
    report = result.report
    assert report.verdict == "improved"
    assert report.after.nodes < report.before.nodes
    assert report.after.bytes == out.stat().st_size < DIGITS.stat().st_size
    assert all(output.rel_l2 < 1e-5 for output in report.outputs)
    onnx.checker.check_model(str(out))
    assert {
        "schema",
        "model",
        "target",
        "versions",
        "before",
        "after",
        "outputs",
        "latency",
        "stages",
        "verdict",
    } <= set(json.loads(json.dumps(report.to_dict())))


def test_twice_and_replayed_give_the_same_bytes(tmp_path):
    paths = [tmp_path / f"{number}.onnx" for number in range(3)]
    first = optimizer.optimize(DIGITS, paths[0], data=DATA, timing=False)
    (tmp_path / "report.json").write_text(json.dumps(first.report.to_dict()))
    optimizer.optimize(DIGITS, paths[1], data=DATA, timing=False)
    optimizer.optimize(DIGITS, paths[2], data=DATA, replay=tmp_path / "report.json")
    assert paths[0].read_bytes() == paths[1].read_bytes() == paths[2].read_bytes()


def test_a_report_of_schema_1_is_replayed_and_of_a_later_one_refused(tmp_path):
    path, report = tmp_path / "report.json", optimizer.optimize(DIGITS, data=DATA, timing=False).report.to_dict()
    assert report["schema"] == 2
    for number, member in enumerate(report["stages"][0]["passes"]):  # what schema 1 called otherwise
        report["stages"][0]["passes"][number] = {**member, "undone": member.pop("reverted")}
    path.write_text(json.dumps({**report, "schema": 1}))
    again = optimizer.optimize(DIGITS, data=DATA, replay=path).report
    assert again.to_dict()["after"] == report["after"]
    path.write_text(json.dumps({**report, "schema": 3}))
    with pytest.raises(UsageError, match="is a report of schema 3, this version reads 1 and 2"):
        optimizer.optimize(DIGITS, data=DATA, replay=path)


def test_its_own_output_is_not_changed_again(tmp_path):
    first, second = tmp_path / "1.onnx", tmp_path / "2.onnx"
    optimizer.optimize(DIGITS, first, data=DATA, timing=False)
    again = optimizer.optimize(first, second, data=DATA, timing=False)
    assert again.report.verdict == "unchanged"
    assert first.read_bytes() == second.read_bytes()


def test_saving_over_the_source(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(DIGITS.read_bytes())
    optimizer.optimize(path, path, data=DATA, timing=False)
    assert path.stat().st_size < DIGITS.stat().st_size
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


class Program:
    """What torch's exporter returns, as far as it matters here."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (DIGITS.read_bytes, bytes),
        (lambda: onnx.load(DIGITS), onnx.ModelProto),
        (lambda: ir.load(DIGITS), ir.Model),
        (lambda: Program(ir.load(DIGITS)), ir.Model),
    ],
    ids=["bytes", "proto", "ir", "program"],
)
def test_the_kind_that_goes_in_comes_back(given, kind):
    result = optimizer.optimize(given(), passes=["dedup-initializers"], run=False)
    assert isinstance(result.model, kind)
    assert result.report.verdict == "unverified"


def test_a_surgeon_graph_comes_back_as_one():
    result = optimizer.optimize(gs.import_onnx(onnx.load(DIGITS)), passes=["dedup-initializers"], run=False)
    assert isinstance(result.model, gs.Graph)


def test_the_source_is_never_changed():
    proto = onnx.load(DIGITS)
    before = proto.SerializeToString(deterministic=True)
    optimizer.optimize(proto, run=False)
    assert proto.SerializeToString(deterministic=True) == before


def test_wrong_usage_is_told(tmp_path):
    with pytest.raises(UsageError, match="exclude each other"):
        optimizer.optimize(DIGITS, preset="exact", passes=["simplify"])
    with pytest.raises(UsageError, match="name one"):
        optimizer.optimize(DIGITS, keep_all=True, run=False)
    with pytest.raises(ModelError, match=r"none\.onnx"):
        optimizer.optimize(tmp_path / "none.onnx")


def test_a_report_of_another_model_is_refused(tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(optimizer.optimize(DIGITS, run=False).report.to_dict()))
    other = tmp_path / "other.onnx"
    optimizer.optimize(DIGITS, other, run=False)
    with pytest.raises(UsageError, match="another model"):
        optimizer.optimize(other, run=False, replay=report)


def test_keep_all_writes_each_stage(tmp_path):
    optimizer.optimize(DIGITS, tmp_path / "out.onnx", run=False, keep_all=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out.onnx", *(f"out.stage-{number}.onnx" for number in range(1, len(preset("exact")) + 1))]
