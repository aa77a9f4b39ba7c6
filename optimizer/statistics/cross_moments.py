"""Second moments of what a kernel reads in one model together with what the value of its name is in another.

    M = E[x x^T]    T = E[y x^T]    E[x]    E[y]    E[y^2]

x are the rows of the kernel (``optimizer.statistics.im2col``) in the candidate, y what the reference answers at the
same places: all that least squares of y by x needs, in K (K + out) numbers. Rows are drawn as for
``optimizer.statistics.second_moments``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.graph.linear_nodes import as_linear
from optimizer.statistics import im2col
from optimizer.statistics.second_moments import SecondMoments

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass
class CrossMoments:
    """Sums over rows.

    Attributes:
        own: Of the rows.
        products: Sum of y x^T, (groups, out, K).
        totals: Sum of y, (groups, out).
        squares: Sum of y^2, (groups, out).
    """

    inputs: SecondMoments
    products: NDArray[np.float64]
    totals: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, node: ir.Node) -> CrossMoments:
        """Nothing yet, for the kernel ``node``."""
        linear_node = as_linear(node)
        if linear_node is None:
            raise ValueError(f"{node.op_type} {node.name!r} is no kernel")
        groups, width = im2col.width(node)
        outputs = linear_node.outputs // groups
        return cls(
            SecondMoments.of(groups, width),
            np.zeros((groups, outputs, width)),
            np.zeros((groups, outputs)),
            np.zeros((groups, outputs)),
        )

    @staticmethod
    def nbytes(node: ir.Node) -> int:
        """What the sums of ``node`` take."""
        groups, width = im2col.width(node)
        linear_node = as_linear(node)
        return 8 * (groups * width * (width + 1) + (0 if linear_node is None else linear_node.outputs * (width + 2)))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.inputs.rows

    @property
    def mean(self) -> NDArray[np.float64]:
        """E[y], (groups, out)."""
        return self.totals / max(self.rows, 1)

    @property
    def power(self) -> NDArray[np.float64]:
        """E[y^2], (groups, out)."""
        return self.squares / max(self.rows, 1)

    @property
    def product(self) -> NDArray[np.float64]:
        """E[y x^T], (groups, out, K)."""
        return self.products / max(self.rows, 1)

    def add(
        self, node: ir.Node, read: NDArray[Any], answer: NDArray[Any], most: int, draw: np.random.Generator
    ) -> None:
        """Take in at most ``most`` rows of what ``node`` reads, and what it is to answer."""
        positions = im2col.sample(node, read.shape, most, draw)
        rows = im2col.gather(node, read, positions).astype(np.float64)
        wanted = im2col.outputs_at(node, answer, positions).astype(np.float64)
        finite = np.isfinite(rows).all(axis=(0, 2)) & np.isfinite(wanted).all(axis=(0, 2))
        rows, wanted = rows[:, finite], wanted[:, finite]
        self.inputs.add(rows)
        self.products += wanted.swapaxes(-1, -2) @ rows
        self.totals += wanted.sum(axis=1)
        self.squares += np.sum(wanted**2, axis=1)


def draw_for(name: str, seed: int) -> np.random.Generator:
    """Which rows are drawn for the kernel with the first output ``name``."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))
