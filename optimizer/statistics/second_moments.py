"""Second moments of what kernels read: the Gram matrices that rounding and refitting of weights stand on.

For rows x of K numbers (``optimizer.statistics.im2col``), summed in float64 over all feeds, for each group of channels:

    second moment   M = sum x x^T / n          mean   m = sum x / n          covariance   C = M - m m^T

A weight that is off by d shifts an output of mean square d^T M d, of which the bias can take back all but d^T C d.
Kernels that read the same value with the same window share one sum (the projections of an attention, say).

At most a number of rows of each feed is drawn, so neither time nor memory grows with the number of feeds or the size
of maps. Rows that are not finite are left out. K^2 numbers are kept; where K is too large, nothing is, and ``refusal``
says so.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import UsageError
from optimizer.graph import traversal
from optimizer.statistics import im2col

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

MOST_PRODUCTS = 4608  # K of a 3x3 window over 512 channels: 170 MB
MOST_ROWS = 8192  # of all feeds together


@dataclass
class SecondMoments:
    """Sums over rows.

    Attributes:
        sums: Sum of x x^T, (groups, K, K).
        totals: Sum of x, (groups, K).
        rows: Number of rows; 0 if no feed reached the kernel.
    """

    sums: NDArray[np.float64]
    totals: NDArray[np.float64]
    rows: int = 0

    @classmethod
    def of(cls, groups: int, width: int) -> SecondMoments:
        """Nothing yet, for rows of ``width`` numbers in each of ``groups``."""
        return cls(np.zeros((groups, width, width)), np.zeros((groups, width)))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean row, (groups, K); 0 where there was none."""
        return self.totals / max(self.rows, 1)

    @property
    def second_moment(self) -> NDArray[np.float64]:
        """The mean of x x^T, (groups, K, K)."""
        return self.sums / max(self.rows, 1)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The second moment around the mean, (groups, K, K); its diagonal is never negative."""
        result = self.second_moment
        mean = self.mean
        result -= mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
        diagonal = np.einsum("gkk->gk", result)  # a view
        np.maximum(diagonal, 0, out=diagonal)
        return result

    def add(self, rows: NDArray[Any]) -> None:
        """Take in ``rows``, (groups, n, K)."""
        exact = rows.astype(np.float64)
        finite = np.isfinite(exact).all(axis=(0, 2))
        if not finite.all():
            exact = exact[:, finite]
        for number, group in enumerate(exact):  # one at a time: a product with itself takes half the work
            self.sums[number] += group.T @ group
        self.totals += exact.sum(axis=1)
        self.rows += exact.shape[1]

    def absorb(self, others: SecondMoments) -> None:
        """Take in the rows of ``others``."""
        self.sums += others.sums
        self.totals += others.totals
        self.rows += others.rows


@dataclass(frozen=True)
class RowGroup:
    """Rows that some kernels have in common.

    Attributes:
        value: The name of the value that they are made from.
        node: One of the kernels.
        kernels: The first outputs of all of them.
    """

    value: str
    node: ir.Node
    kernels: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """What its sums take."""
        groups, width = im2col.width(self.node)
        return 8 * groups * width * (width + 1)


def refusal(node: ir.Node) -> str | None:
    """Why no moments are taken for ``node``; ``None`` if they are."""
    reason = im2col.refusal(node)
    if reason is not None:
        return reason
    _, width = im2col.width(node)
    if width > MOST_PRODUCTS:
        return f"each output sums {width} products; second moments are kept of at most {MOST_PRODUCTS}"
    return None


def row_groups(model: ir.Model, kernels: Iterable[str]) -> list[RowGroup]:
    """What the kernels read whose first outputs are ``kernels``, in the order of the graph.

    Kernels with a ``refusal`` are left out.

    Raises:
        UsageError: If no node of the main graph has such a first output.
    """
    wanted = set(kernels)
    by_rows: dict[Any, tuple[str, ir.Node, list[str]]] = {}
    for node in traversal.in_order(model.graph):
        name = node.outputs[0].name if node.outputs else None
        if name is None or name not in wanted:
            continue
        wanted.remove(name)
        value = node.inputs[0] if node.inputs else None
        if value is not None and value.name and refusal(node) is None:
            by_rows.setdefault((value.name, im2col.key(node)), (value.name, node, []))[2].append(name)
    if wanted:
        raise UsageError(f"no node of the main graph gives {', '.join(map(repr, sorted(wanted)))}")
    return [RowGroup(value, node, tuple(names)) for value, node, names in by_rows.values()]


def batches(groups: Sequence[RowGroup], limit: int) -> list[list[RowGroup]]:
    """``groups`` in order, in groups whose sums take at most ``limit`` bytes; a larger one stands alone."""
    result: list[list[RowGroup]] = []
    taken = 0
    for group in groups:
        if not result or taken + group.nbytes > limit:
            result.append([])
            taken = 0
        result[-1].append(group)
        taken += group.nbytes
    return result


@dataclass
class Collection:
    """Takes the moments of ``sources`` from the values as they come.

    Attributes:
        sources: What to sum up.
        most_rows: Of one array.
        seed: Which rows are drawn; the same whatever else is collected beside.
    """

    sources: Sequence[RowGroup]
    most_rows: int = MOST_ROWS
    seed: int = 0
    _moments: list[SecondMoments] = field(init=False)
    _draws: list[np.random.Generator] = field(init=False)

    def __post_init__(self) -> None:
        self._moments = [SecondMoments.of(*im2col.width(source.node)) for source in self.sources]
        self._draws = [
            np.random.default_rng((self.seed, zlib.crc32(source.kernels[0].encode()))) for source in self.sources
        ]

    def look(self, name: str, array: NDArray[Any]) -> None:
        """Take in the value ``name`` of one feed."""
        for source, moments, draw in zip(self.sources, self._moments, self._draws, strict=True):
            if source.value == name:
                moments.add(im2col.rows(source.node, array, self.most_rows, draw))

    def result(self) -> Iterator[tuple[str, SecondMoments]]:
        """The moments of each kernel; those of one source are one object."""
        for source, moments in zip(self.sources, self._moments, strict=True):
            for name in source.kernels:
                yield name, moments
