"""A third party's distribution: installed, listed, run under the gates, and nothing of the model lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from optimizer.errors import UsageError
from optimizer.io.protos.proto_diff import difference
from optimizer.recipes.registry import load_pass

PLUGIN = Path(__file__).parent / "plugin"
NAME = "eliminate-dropout"


def install(folder: Path) -> None:
    """What an installer does with a pure Python module: the file, and a ``.dist-info`` beside it."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.copy(PLUGIN / "onnxhone_plugin_example.py", folder)
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text("\n".join(points))
    (info / "RECORD").write_text("")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder)
    return folder


def run(site: Path, *arguments: str, code: int = 0) -> str:
    """The standard output of the command line in a process that sees ``site``."""
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-W", "error", "-m", "optimizer.cli", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=site.parent)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def listed(site: Path) -> dict[str, dict]:
    return {one["name"]: one for one in json.loads(run(site, "passes", "--json"))}


def test_a_checkout_that_is_not_installed_is_not_found_and_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(PLUGIN, tmp_path / "checkout"))
    with pytest.raises(UsageError, match=r"no pass 'eliminate-dropout'.*installed: `pip install -e \.`"):
        load_pass(NAME)


def test_it_is_listed_with_its_origin_and_options(installed):
    everything = listed(installed)
    found = everything[NAME]
    assert found["distribution"] == "onnxhone-plugin-example"
    assert found["exact"] is True
    assert [option["name"] for option in found["options"]] == ["exclude"]
    assert "dedup-initializers" in everything


def test_a_real_installer_makes_the_same_of_it(tmp_path):
    pytest.importorskip("setuptools", reason="builds without the network, with what is installed")
    pytest.importorskip("pip", reason="the distribution is installed with pip")
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(PLUGIN, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True, capture_output=True)
    assert listed(site)[NAME]["distribution"] == "onnxhone-plugin-example"


MODEL = """<ir_version: 11, opset_import: ["" : 21, "m" : 1], producer_name: "maker", producer_version: "1.2",
  domain: "org.example", model_version: 7, doc_string: "a model", metadata_props: ["k" : "v"]>
main (float[N,4] x, bool c, float[4] free) => (float[N,4] y)
<float[4] w = {1, 2, 3, 4}, float[4] free = {0, 0, 0, 0}, float[2] idle = {5, 6}, float rate = {0.5}, bool off = {0}>
{
  s = Add (x, w)
  dropped = Dropout (s, rate, off)
  f = Add (dropped, free)
  t = m.scale:double <factor: float = 2.0> (f)
  u = m.scale (t)
  y = If (c) <
    then_branch = yes () => (float[N,4] p) <float[4] b = {1, 1, 1, 1}> { q = Mul (u, b)  p = Add (q, w) },
    else_branch = no () => (float[N,4] r) { r = Identity (u) }>
}
<domain: "m", opset_import: ["" : 21], overload: "">
scale (a) => (b) { k = Constant <value = float {2}> ()  b = Mul (a, k) }
<domain: "m", opset_import: ["" : 21], overload: "double">
scale <factor> (a) => (b) { k = Constant <value_float: float = @factor> ()  b = Mul (a, k) }
"""


def rich_model() -> onnx.ModelProto:
    """Something at every level that GraphSurgeon's own exporter would drop."""
    proto = onnx.parser.parse_model(MODEL)
    things = (proto.graph, *proto.graph.node, *proto.functions, *proto.functions[0].node)
    for index, thing in enumerate(things):
        thing.metadata_props.add(key="place", value=str(index))
        thing.doc_string = f"doc {index}"
    for info in (*proto.graph.input, *proto.graph.output):
        info.doc_string = f"about {info.name}"
        info.metadata_props.add(key="of", value=info.name)
    proto.graph.input[0].type.denotation = "IMAGE"
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    proto.graph.initializer[0].doc_string = "a weight"
    proto.graph.node[-1].attribute[0].doc_string = "a branch"
    proto.graph.node[-1].attribute[0].g.doc_string = "taken"
    annotation = proto.graph.quantization_annotation.add(tensor_name="f")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    info = helper.make_tensor_value_info("f", TensorProto.FLOAT, ["N", 4], doc_string="a sum")
    proto.graph.value_info.append(info)
    return proto


def without_dropout(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What the pass should make of ``rich_model()``: one node less, its reader reads past it, nothing else."""
    expected = onnx.ModelProto()
    expected.CopyFrom(proto)
    (doomed,) = (node for node in expected.graph.node if node.op_type == "Dropout")
    for node in expected.graph.node:
        for index, name in enumerate(node.input):
            if name == doomed.output[0]:
                node.input[index] = doomed.input[0]
    unused = set(doomed.input[1:])
    expected.graph.node.remove(doomed)
    kept = [tensor for tensor in expected.graph.initializer if tensor.name not in unused]
    del expected.graph.initializer[:]
    expected.graph.initializer.extend(kept)
    return expected


@pytest.mark.parametrize("options", [[], ["--no-run"]], ids=["run", "no run"])
def test_it_runs_under_the_gates_and_loses_nothing(installed, tmp_path, options):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(rich_model(), source)
    before = hashlib.sha256(source.read_bytes()).digest()
    output = run(installed, "optimize", source, "-o", target, "-p", NAME, "--no-timing", "--json", *options)
    report = json.loads(output)
    (stage,) = report["stages"]
    assert stage["kept"]
    assert stage["changes"] == {"nodes removed": 1}
    written, expected = onnx.load(target), without_dropout(rich_model())
    assert difference(expected, written) is None
    assert difference(written, expected) is None
    assert hashlib.sha256(source.read_bytes()).digest() == before


def test_a_dropout_that_trains_is_left_alone(installed, tmp_path):
    proto = rich_model()
    training = next(tensor for tensor in proto.graph.initializer if tensor.name == "off")
    training.CopyFrom(helper.make_tensor("off", TensorProto.BOOL, [], [True]))
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    report = json.loads(run(installed, "optimize", source, "-o", target, "-p", NAME, "--no-run", "--json"))
    assert not report["stages"][0]["changes"]


def test_its_options_work_from_the_command_line(installed, tmp_path):
    proto = rich_model()
    next(node for node in proto.graph.node if node.op_type == "Dropout").name = "block/drop"
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    spec = f'{NAME}:exclude=["block/*"]'
    report = json.loads(run(installed, "optimize", source, "-o", target, "-p", spec, "--no-timing", "--json"))
    assert not report["stages"][0]["changes"]
    error = run(installed, "optimize", source, "-o", target, "-p", f"{NAME}:wrong=1", code=2)
    assert error == ""
