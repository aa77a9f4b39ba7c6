"""What ``onnx.version_converter`` gets wrong, and how it is corrected, one function an operator.

The converter of onnx 1.23 gives another result than the node had (found by running ONNX Runtime on both):

    Hardmax             of opset 12 normalizes all axes from ``axis`` on, as Softmax does; only Softmax is flattened
    Resize, Upsample    of opset 10 are asymmetric, ONNX Runtime's rounds up where it shrinks, and down where it does
                        not; the defaults since 11 are half_pixel and round_prefer_floor
    Clip, Pad           limits and values become float32, whatever the type of the data
    GroupNormalization  of opset 20 has a scale and a bias for each group; they are scaled by channel, and do not fit
    Dropout             the mask changes its type in 10 and its meaning in 12: refused where something reads it

    https://github.com/onnx/onnx/blob/main/docs/Changelog.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optimizer.algorithms.version_conversion.single_node import Conversion


def _check_mask(node: ir.Node, conversion: Conversion) -> None:
    if (
        len(node.outputs) > 1
        and queries.has_uses(node.outputs[1])
        and (conversion.crosses(10) or conversion.crosses(12))
    ):
        raise conversion.refuse(node, "its mask, which is read, has another meaning there")


def _check_type(node: ir.Node, conversion: Conversion) -> None:
    data = node.inputs[0] if node.inputs else None
    if conversion.crosses(11) and (data is None or not isinstance(data.type, ir.TensorType)):
        raise conversion.refuse(node, "the type of its input is not known")


def _hardmax(_node: ir.Node, single: onnx.ModelProto, conversion: Conversion) -> onnx.GraphProto:
    # As if it were a Softmax, which the library does flatten
    single.graph.node[0].op_type = "Softmax"
    converted = conversion.by_library(single)
    single.graph.node[0].op_type = "Hardmax"
    for node in converted.node:
        if node.op_type == "Softmax":
            node.op_type = "Hardmax"
    return converted


def _asymmetric(node: ir.Node, single: onnx.ModelProto, conversion: Conversion) -> onnx.GraphProto:
    rounding = _rounding(node, conversion)
    converted = conversion.by_library(single)
    for converted_node in converted.node:
        if converted_node.op_type == "Resize":
            converted_node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            if rounding:
                converted_node.attribute.append(onnx.helper.make_attribute("nearest_mode", rounding))
    return converted


def _rounding(node: ir.Node, conversion: Conversion) -> str:
    """Where a Resize or Upsample of opset 10 or older takes the nearest element; nothing if it takes others too."""
    if node.attributes.get_string("mode", "nearest") != "nearest":
        return ""
    if node.op_type == "Upsample":
        return "floor"  # its scales are at least 1
    scales = constants.constant_array(node.inputs[1], max_elements=16)
    if scales is None or (scales.min() < 1 < scales.max()):
        raise conversion.refuse(node, "it rounds by scales, which are not known, or smaller and larger than 1")
    return "ceil" if scales.min() < 1 else "floor"


def _typed(_node: ir.Node, single: onnx.ModelProto, conversion: Conversion) -> onnx.GraphProto:
    """Give the floats that became inputs the type of the data."""
    converted = conversion.by_library(single)
    elem_type = single.graph.input[0].type.tensor_type.elem_type
    for tensor in (*converted.initializer, *(attribute.t for node in converted.node for attribute in node.attribute)):
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_type != elem_type:
            array = onnx.numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return converted


def _scaled_by_channel(source: ir.Node, single: onnx.ModelProto, conversion: Conversion) -> onnx.GraphProto:
    """Repeat scale and bias, which are there for each group, for each of its channels."""
    converted = onnx.GraphProto()
    converted.CopyFrom(single.graph)
    data, groups = source.inputs[0], source.attributes.get_int("num_groups", 0)
    shape = None if data is None else conversion.shape_of(data)
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if not isinstance(channels, int) or not groups or channels % groups:
        raise conversion.refuse(source, "the number of its channels is not known")
    # GroupNormalization stays, and reads Gather(scale, [0, 0, …, 1, 1, …]) for its scale, and so for its bias
    index = onnx.numpy_helper.from_array(np.repeat(np.arange(groups), channels // groups), "channels")
    converted.initializer.append(index)
    normalization = converted.node.pop()
    for position in (1, 2):
        name = f"by_channel_{position}"
        converted.node.append(
            onnx.helper.make_node("Gather", [normalization.input[position], "channels"], [name], axis=0)
        )
        normalization.input[position] = name
    converted.node.append(normalization)
    return converted


CHECKS: Mapping[str, Callable[[ir.Node, Conversion], None]] = {
    "Clip": _check_type,
    "Dropout": _check_mask,
    "Pad": _check_type,
}
# Operator -> the version whose conversion the library gets wrong, and what corrects it
RULES: Mapping[str, tuple[int, Callable[[ir.Node, onnx.ModelProto, Conversion], onnx.GraphProto]]] = {
    "Clip": (11, _typed),
    "GroupNormalization": (21, _scaled_by_channel),
    "Hardmax": (13, _hardmax),
    "Pad": (11, _typed),
    "Resize": (11, _asymmetric),
    "Upsample": (11, _asymmetric),
}
