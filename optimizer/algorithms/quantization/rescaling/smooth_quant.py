"""SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): outlier channels of an activation move into the weights behind.

    s_j = max |x_j|^alpha / max |W_j|^(1 - alpha)        x' = x / s        W' = s * W        x' W' = x W

for MatMul and Gemm, over all that read x; W_j is what they multiply channel j with. The division costs nothing where a
normalization makes x, for its gain and bias take it, and nobody else reads x. Elsewhere it takes one Mul in front of
the kernels. Other readers, as the residual Add behind the normalization of a post-norm transformer, go on reading x.

Only the ratios of the s_j matter, so that their geometric mean is made 1. They are powers of two: every answer stays
the same to the last bit (``optimizer.algorithms.quantization.rescaling.rescale``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.quantization.rescaling.regions import RegionReader, RescalingRegion, find_regions
from optimizer.algorithms.quantization.rescaling.rescale import ChannelMagnitudes, power_of_two
from optimizer.algorithms.quantization.rescaling.sources import norm_source, weight_obstacle
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Sites
from optimizer.graph import constants, linear_nodes
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.rescaling.rescale import Rescaler
    from optimizer.graph.linear_nodes import LinearNode

_PRODUCTS = having(Trait.PRODUCT)
_UNSEEN = 2.0**-12  # of the largest: smaller channels count as so large, or a dead one would take all the range
OUTLIER = 8.0  # a Mul is worth it where the largest channel is so many times the median


def to_observe(model: ir.Model) -> dict[str, int]:
    """Values whose channels ``smooth`` is to be told the largest magnitudes of, and the axis of the channels."""
    regions = [region for region in find_regions(model, norm_source) if not region.obstacle]
    read = {value.name or "": -region.values[value].from_end for region in regions for value in region.read()}
    return read | {value.name or "": -1 for value in _by_value(model)}


def smooth(
    model: ir.Model, channel_max: Mapping[str, NDArray[np.floating]], alpha: float, rescaler: Rescaler
) -> dict[str, int]:
    """Smooth what MatMul and Gemm of the main graph read, in place; tensors are replaced, never written into.

    Args:
        model: With shapes on its values, as far as they are known.
        channel_max: The largest magnitude of each channel of the values in ``to_observe``.
        alpha: How much of the spread goes into the weights, 0 to 1.
        rescaler: Asked for each place: the site of a normalization, or the name of a value that gets a Mul.

    Returns:
        Real changes by kind.
    """
    seen = {name: np.asarray(peaks, np.float64) for name, peaks in channel_max.items()}
    changes: Counter[str] = Counter()
    smoothed: set[ir.Value] = set()
    for region in find_regions(model, norm_source):
        if not region.is_read or region.obstacle:
            continue
        scale = _scale(region, seen, alpha)
        if scale is None:
            rescaler.skipped.note(region.name, "its channels were not observed")
        elif count := rescaler.rescale(region, scale, region.name):
            changes["channels smoothed"] += count
            smoothed.update(region.values)
    for value, readers in _by_value(model).items():
        peaks = seen.get(value.name or "")
        # A Mul costs time: it is worth it for outliers alone
        if value in smoothed or peaks is None or not peaks.max(initial=0) >= OUTLIER * np.median(peaks) > 0:
            continue
        region = RescalingRegion(
            readers[0].inputs, readers={reader.node: RegionReader(reader, 1) for reader in readers}
        )
        scale = _scale(region, seen, alpha)
        if scale is not None and rescaler.rescale(region, scale, value.name or ""):
            _insert_mul(model, value, readers, 1 / scale)
            changes["Mul inserted"] += 1
    return dict(changes)


def _by_value(model: ir.Model) -> dict[ir.Value, list[LinearNode]]:
    """What MatMul and Gemm read, with those of them whose weights may be scaled."""
    by_value: dict[ir.Value, list[LinearNode]] = {}
    for node in model.graph:
        kernel = linear_nodes.as_linear(node)
        value = node.inputs[0] if kernel is not None else None
        if (
            kernel is None
            or value is None
            or node.op_type not in _PRODUCTS
            or constants.constant_tensor(value) is not None
        ):
            continue
        if not weight_obstacle(kernel):
            by_value.setdefault(value, []).append(kernel)
    return by_value


def _scale(
    region: RescalingRegion, seen: Mapping[str, NDArray[np.float64]], alpha: float
) -> NDArray[np.float64] | None:
    """The factor of each channel; ``None`` if what is read was not observed, or by nobody."""
    peaks = [seen.get(value.name or "") for value in region.read()]
    largest = [_floored(array.reshape(region.count, -1).max(axis=1)) for array in peaks if array is not None]
    if not largest or len(largest) < len(peaks):
        return None
    columns = [
        ChannelMagnitudes(reader.kernel).inputs().reshape(region.count, -1).max(axis=1)
        for reader in region.readers.values()
    ]
    exponents = alpha * np.log2(np.max(largest, axis=0)) - (1 - alpha) * np.log2(_floored(np.max(columns, axis=0)))
    return power_of_two(exponents - exponents.mean())


def _floored(peaks: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = peaks.max(initial=0.0)
    return np.maximum(peaks, largest * _UNSEEN) if largest > 0 else np.ones_like(peaks)


def _insert_mul(model: ir.Model, value: ir.Value, readers: Sequence[LinearNode], factors: NDArray[np.float64]) -> None:
    """Let ``readers`` read ``value`` times ``factors``, one for each channel."""
    producer = value.producer()
    rewriter = Rewriter(model, Sites())
    name = value.name or "value"
    vector = rewriter.constant(readers[0].node, factors.astype(np.float32), f"{name}_smoothing")
    scaled = ir.Value(name=rewriter.names.fresh(f"{name}_smoothed"), type=value.type, shape=value.shape)
    mul = ir.Node("", "Mul", [value, vector], outputs=[scaled], name=rewriter.names.fresh(f"{name}_smooth"))
    if producer is not None and producer.graph is model.graph:
        producer.append(mul)
    else:
        model.graph.insert_before(model.graph[0], mul)
    for kernel in readers:
        kernel.node.replace_input_with(0, scaled)
