"""Second moments of the rows of a linear node in one model together with its outputs in another.

    M = E[x x^T]    T = E[y x^T]    E[x]    E[y]    E[y^2]

x are the rows of the node (``optimizer.statistics.im2col``) in the candidate, y the values of the same name in the
reference, at the same positions. Least squares of y by x needs no more than these K (K + out) numbers: the normal
equations are W M = T. Rows are drawn as for ``optimizer.statistics.second_moments``.
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
        inputs: Sums over x alone.
        products: Sum of y x^T, (groups, out, K).
        output_sums: Sum of y, (groups, out).
        output_squares: Sum of y^2, (groups, out).
    """

    inputs: SecondMoments
    products: NDArray[np.float64]
    output_sums: NDArray[np.float64]
    output_squares: NDArray[np.float64]

    @classmethod
    def of(cls, node: ir.Node) -> CrossMoments:
        """Nothing yet, for ``node``.

        Raises:
            ValueError: If ``node`` is not linear.
        """
        linear = as_linear(node)
        if linear is None:
            raise ValueError(f"{node.op_type} {node.name!r} is not a linear node")
        groups, width = im2col.width(node)
        outputs = linear.outputs // groups
        return cls(
            SecondMoments.of(groups, width),
            np.zeros((groups, outputs, width)),
            np.zeros((groups, outputs)),
            np.zeros((groups, outputs)),
        )

    @staticmethod
    def nbytes(node: ir.Node) -> int:
        """Bytes of the sums of ``node``."""
        groups, width = im2col.width(node)
        linear = as_linear(node)
        return 8 * (groups * width * (width + 1) + (0 if linear is None else linear.outputs * (width + 2)))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.inputs.rows

    @property
    def mean(self) -> NDArray[np.float64]:
        """E[y], (groups, out)."""
        return self.output_sums / max(self.rows, 1)

    @property
    def power(self) -> NDArray[np.float64]:
        """E[y^2], (groups, out)."""
        return self.output_squares / max(self.rows, 1)

    @property
    def product(self) -> NDArray[np.float64]:
        """E[y x^T], (groups, out, K)."""
        return self.products / max(self.rows, 1)

    def add(
        self, node: ir.Node, read: NDArray[Any], answer: NDArray[Any], most_rows: int, rng: np.random.Generator
    ) -> None:
        """Take in at most ``most_rows`` rows of one feed.

        Args:
            node: The linear node.
            read: Its first input, in the candidate.
            answer: Its output, in the reference.
            most_rows: Limit on the rows.
            rng: Draws them.
        """
        # 1. x and y at the same positions.
        positions = im2col.sample(node, read.shape, most_rows, rng)
        rows = im2col.gather(node, read, positions).astype(np.float64)
        targets = im2col.outputs_at(node, answer, positions).astype(np.float64)
        # 2. Without the positions where either is not finite, in any group.
        finite = np.isfinite(rows).all(axis=(0, 2)) & np.isfinite(targets).all(axis=(0, 2))
        rows, targets = rows[:, finite], targets[:, finite]
        # 3. The sums behind M and E[x]; T; E[y]; E[y^2].
        self.inputs.add(rows)
        self.products += targets.swapaxes(-1, -2) @ rows
        self.output_sums += targets.sum(axis=1)
        self.output_squares += np.sum(targets**2, axis=1)


def draw_for(name: str, seed: int) -> np.random.Generator:
    """The generator that draws rows for the node with the first output ``name``, whatever else is measured beside."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))
