"""The command line: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def onnxhone(*arguments, **options):
    command = [sys.executable, "-m", "optimizer.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_optimize_writes_and_prints_json(tmp_path):
    done = onnxhone("optimize", DIGITS, "-o", tmp_path / "out.onnx", "--no-timing", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "improved"
    assert report["after"]["bytes"] == (tmp_path / "out.onnx").stat().st_size
    assert done.stderr == "", "no progress where stderr is no terminal"


def test_verbose_lists_what_rules_refused_and_why(tmp_path):
    report = tmp_path / "r.json"
    done = onnxhone("optimize", DIGITS, "-o", tmp_path / "o.onnx", "--no-run", "-v", "--report", report)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "a MatMul has no bias" in line]
    assert line.split()[:2] == ["fuse-shift", "4"]
    simplify = next(one for one in passes_of(report) if one["name"] == "simplify")
    assert {
        "step": "fuse-shift",
        "reason": "a MatMul has no bias",
        "count": 4,
        "example": "Add -> dense1",
    } in simplify["refusals"]


def test_nothing_is_collected_where_nobody_asks(tmp_path):
    report = tmp_path / "r.json"
    done = onnxhone("optimize", DIGITS, "-o", tmp_path / "o.onnx", "--no-run", "--report", report)
    assert "because" not in done.stdout
    assert [one["refusals"] for one in passes_of(report)] == [None] * len(passes_of(report))


def passes_of(report):
    return [one for stage in json.loads(report.read_text())["stages"] for one in stage["passes"]]


def test_quiet_prints_nothing(tmp_path):
    report = tmp_path / "r.json"
    done = onnxhone("optimize", DIGITS, "-o", tmp_path / "o.onnx", "--no-run", "--quiet", "--report", report)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(report.read_text())["verdict"] == "unverified"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "simplfy"], "did you mean 'simplify'?"),
        (["-p", "simplify:depth=1"], "no option of simplify 'depth'"),
        (["--preset", "fastest"], "there are: exact"),
        (["--recipe", "none.toml"], "none.toml"),
        (["--data", "nowhere"], "nowhere"),
        (["--shape", "image"], "image"),
        (["--replay", "none.json"], "none.json"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, arguments, words):
    done = onnxhone("optimize", DIGITS, "-o", tmp_path / "out.onnx", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_one_line_and_exit_code_2(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(DIGITS.read_bytes()[:5000])
    done = onnxhone("optimize", broken, "-o", tmp_path / "out.onnx")
    assert done.returncode == 2
    assert "broken.onnx" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.onnx").exists()


def test_inspect_shows_models_side_by_side():
    done = onnxhone("inspect", DIGITS, DIGITS, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first == second
    assert first["nodes"] > 0


def test_compare_a_model_with_itself():
    done = onnxhone("compare", DIGITS, DIGITS, "--no-timing", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equal"] is True


def test_passes_lists_names_kinds_and_options():
    listed = {one["name"]: one for one in json.loads(onnxhone("passes", "--json").stdout)}
    assert listed["simplify"]["exact"] is True
    assert {option["name"] for option in listed["dedup-initializers"]["options"]} >= {"exclude", "min-bytes"}


def test_inspect_shows_shapes_in_brackets():
    done = onnxhone("inspect", DIGITS)
    assert done.returncode == 0, done.stderr
    assert "[batch" in done.stdout or "[N" in done.stdout


def test_the_version_is_that_of_the_distribution():
    done = onnxhone("--version")
    assert done.stdout.split() == ["onnxhone", version("onnxhone")]
