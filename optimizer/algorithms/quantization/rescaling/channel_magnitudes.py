"""How large the weights of a kernel are, by output and input channel, while its channels are being scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import constants

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.graph.kernels import Kernel


class Magnitudes:
    """The largest magnitude for each pair of output and input channel.

    Attributes:
        table: Shape (groups, outputs in a group, inputs in a group).
    """

    def __init__(self, kernel: Kernel) -> None:
        array = constants.float_array(kernel.weight)
        if array is None:
            raise ValueError(f"{kernel.weight.name} is no float constant")
        flat = np.abs(array).reshape(*array.shape[:2], -1).max(axis=2, initial=0)
        flat = np.where(np.isfinite(flat), flat, 0)  # a weight that is not finite is left alone in the end
        if kernel.node.op_type in {"Conv", "ConvTranspose"}:
            flat = flat.reshape(kernel.groups, -1, flat.shape[1])
        else:
            flat = flat[np.newaxis]
        turned = kernel.node.op_type != "Conv" and not kernel.transposed
        self.table: NDArray[np.floating] = np.swapaxes(flat, 1, 2) if turned else flat

    def scale_outputs(self, factors: NDArray[np.float64]) -> None:
        """Multiply each output channel."""
        self.table = (self.table * factors.reshape(len(self.table), -1, 1)).astype(self.table.dtype)

    def scale_inputs(self, factors: NDArray[np.float64]) -> None:
        """Multiply each input channel."""
        self.table = (self.table * factors.reshape(len(self.table), 1, -1)).astype(self.table.dtype)

    def outputs(self) -> NDArray[np.float64]:
        """The largest magnitude of each output channel."""
        return np.asarray(self.table.max(axis=2).reshape(-1), np.float64)

    def inputs(self) -> NDArray[np.float64]:
        """The largest magnitude of each input channel."""
        return np.asarray(self.table.max(axis=1).reshape(-1), np.float64)

    def inputs_in_rows(self) -> NDArray[np.float64]:
        """The largest share of each input channel in the range of an output channel, 0 to 1."""
        peaks = self.table.max(axis=2, keepdims=True)
        shares = np.divide(self.table, peaks, out=np.zeros_like(self.table), where=peaks > 0)
        return np.asarray(shares.max(axis=1).reshape(-1), np.float64)
