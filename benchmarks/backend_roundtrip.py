"""Load and save every model of onnx's backend tests, and compare the protos field by field.

    python benchmarks/backend_roundtrip.py [--every N] [--out FILE.json]

A model is *unchanged* if the file that was written says the same as the model that was read, in each field. What
carries no meaning is not counted (``optimizer.lossless``): a field that is set to its default value equals one that is
not set, and ``value_info``, ``metadata_props``, ``quantization_annotation`` and operator sets are compared by name,
not by order. *Refused* models are listed with the message. *Changed* must stay empty.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from backend_cases import backend_cases
from optimizer.errors import ModelError
from optimizer.io.model import byte_size, load, save
from optimizer.io.protos.proto_diff import difference

if TYPE_CHECKING:
    from collections.abc import Iterator


def backend_models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every model that onnx ships for tests of backends, by name: made from the node tests, or read from the wheel."""
    for case in backend_cases():
        yield case.name, case.model


def outcome(proto: onnx.ModelProto, folder: Path) -> tuple[str, str]:
    """``unchanged``, ``refused`` or ``changed``, and why."""
    source, target = folder / "source.onnx", folder / "target.onnx"
    source.write_bytes(proto.SerializeToString())
    try:
        model = load(source)
        save(model, target)
    except ModelError as error:
        return "refused", str(error)
    written = onnx.load(target)
    found = difference(proto, written) or difference(written, proto)
    if found is None and target.stat().st_size > source.stat().st_size:
        found = f"grew from {source.stat().st_size} to {target.stat().st_size} bytes"
    if found is None and byte_size(model, target) != target.stat().st_size:
        found = "byte_size is wrong"
    return ("unchanged", "") if found is None else ("changed", found)


def main() -> None:
    """Run over all models and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth model")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    found: dict[str, dict[str, str]] = {"unchanged": {}, "refused": {}, "changed": {}}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, proto) in enumerate(backend_models()):
            if index % options.every == 0:
                kind, reason = outcome(proto, Path(folder))
                found[kind][name] = reason
    counts = {kind: len(names) for kind, names in found.items()}
    print(f"{sum(counts.values())} models in {time.process_time() - began:.0f} s of CPU: {counts}")
    for kind in ("refused", "changed"):
        for name, reason in found[kind].items():
            print(f"  {kind}  {name}: {reason}")
    if options.out:
        versions = {package: version(package) for package in ("onnx", "onnx-ir", "protobuf")}
        result = {"versions": versions, "counts": counts, "refused": found["refused"], "changed": found["changed"]}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
