"""The promises of the preset ``exact``, on real models: those that ``python models/fetch.py --small`` fetches."""

import importlib.util
import sys

import pytest

import optimizer
from small_corpus import ROOT, SMALL

spec = importlib.util.spec_from_file_location("measure_candidate", ROOT / "benchmarks/measure_candidate.py")
measure_candidate = sys.modules["measure_candidate"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure_candidate)

pytestmark = pytest.mark.corpus


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def optimized(model, folder):
    """Optimize ``model`` into a folder of its own, without timing; returns the report."""
    folder.mkdir()
    return optimizer.optimize(model, folder / "model.onnx", timing=False).report


@pytest.fixture(scope="module", params=SMALL)
def run(request, tmp_path_factory):
    """A model of the corpus, the folder that its optimized form is in, and the report."""
    model = SMALL[request.param]
    if not model.exists():
        pytest.fail(f"{model} is missing; fetch it first: python models/fetch.py --small", pytrace=False)
    folder = tmp_path_factory.mktemp(request.param) / "first"
    before = contents(model.parent)
    report = optimized(model, folder)
    assert contents(model.parent) == before, "the input's folder was changed"
    return model, folder, report


def test_result_loads_and_equals_the_original_and_keeps_signature_and_metadata(run):
    model, folder, _ = run
    found = measure_candidate.measure(model, folder / "model.onnx", None, seconds=0)
    assert found["loads"], found["error"]
    assert found["equal"], found
    assert found["signature_same"]
    assert found["metadata_same"]


def test_result_is_not_larger_and_has_no_more_nodes(run):
    model, folder, report = run
    before, after = (measure_candidate.structure(path) for path in (model, folder / "model.onnx"))
    assert after["bytes"] <= before["bytes"]
    assert after["nodes"] <= before["nodes"]
    assert (report.before.nodes, report.after.nodes) == (before["nodes"], after["nodes"])
    assert report.after.bytes == after["bytes"] == sum(map(len, contents(folder).values()))


def test_the_same_command_gives_the_same_bytes(run, tmp_path):
    model, folder, _ = run
    optimized(model, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_its_own_output_is_left_as_it_is(run, tmp_path):
    _, folder, _ = run
    report = optimized(folder / "model.onnx", tmp_path / "second")
    assert report.verdict == "unchanged", [stage.changes for stage in report.stages]
    assert contents(tmp_path / "second") == contents(folder)
