"""Second moments of the inputs of linear nodes: the Gram matrices that rounding and refitting of weights stand on.

For rows x of K numbers (``optimizer.statistics.im2col``), summed in float64 over all feeds, for each group of channels:

    second moment   M = sum x x^T / n          mean   m = sum x / n          covariance   C = M - m m^T

A weight that is off by d shifts an output of mean square d^T M d, of which the bias can take back all but d^T C d.
Nodes that read the same value with the same window share one sum (the projections of an attention, say). GPTQ calls
2 n M the Hessian of a layer (E. Frantar et al., arXiv 2210.17323).

A limited number of rows is drawn from each feed, so neither time nor memory grows with the number of feeds or the size
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
        rows: Number of rows; 0 if no feed reached the node.
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
        # 1. C = M - m m^T
        covariance = self.second_moment
        mean = self.mean
        covariance -= mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
        # 2. Cancellation leaves variances of nearly constant inputs a little below 0.
        diagonal = np.einsum("gkk->gk", covariance)  # a view
        np.maximum(diagonal, 0, out=diagonal)
        return covariance

    def add(self, rows: NDArray[Any]) -> None:
        """Take in ``rows``, (groups, n, K), of any float type."""
        numbers = rows.astype(np.float64)
        # A row that is not finite in one group is left out of all: they share one number of rows.
        finite = np.isfinite(numbers).all(axis=(0, 2))
        if not finite.all():
            numbers = numbers[:, finite]
        # Group by group: BLAS takes half the work for a matrix times its own transpose, but not for a stack of them.
        for group, group_rows in enumerate(numbers):
            self.sums[group] += group_rows.T @ group_rows
        self.totals += numbers.sum(axis=1)
        self.rows += numbers.shape[1]

    def merge(self, others: SecondMoments) -> None:
        """Take in the rows of ``others``."""
        # Sums of disjoint sets of rows add up; means would not.
        self.sums += others.sums
        self.totals += others.totals
        self.rows += others.rows


@dataclass(frozen=True)
class RowGroup:
    """Linear nodes whose rows are the same.

    Attributes:
        value: The name of the value that they read.
        node: One of the nodes.
        kernels: The names of the first outputs of all of them.
    """

    value: str
    node: ir.Node
    kernels: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its sums."""
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
    """The linear nodes whose first outputs are ``kernels``, grouped by their rows, in the order of the graph.

    Nodes with a ``refusal`` are left out.

    Raises:
        UsageError: If no node of the main graph has such a first output.
    """
    wanted = set(kernels)
    rows_by_key: dict[Any, tuple[str, ir.Node, list[str]]] = {}
    for node in traversal.in_order(model.graph):
        name = node.outputs[0].name if node.outputs else None
        if name is None or name not in wanted:
            continue
        wanted.remove(name)
        # Equal value and equal window: equal rows, summed once.
        value = node.inputs[0] if node.inputs else None
        if value is not None and value.name and refusal(node) is None:
            rows_by_key.setdefault((value.name, im2col.key(node)), (value.name, node, []))[2].append(name)
    if wanted:
        raise UsageError(f"no node of the main graph gives {', '.join(map(repr, sorted(wanted)))}")
    return [RowGroup(value, node, tuple(names)) for value, node, names in rows_by_key.values()]


def batches(groups: Sequence[RowGroup], limit: int) -> list[list[RowGroup]]:
    """``groups`` in order, in batches whose sums take at most ``limit`` bytes; a larger group stands alone."""
    batches: list[list[RowGroup]] = []
    taken = 0
    for group in groups:
        if not batches or taken + group.nbytes > limit:
            batches.append([])
            taken = 0
        batches[-1].append(group)
        taken += group.nbytes
    return batches


@dataclass
class Collection:
    """Takes the moments of ``sources`` from the values as they come.

    Attributes:
        sources: What to sum up.
        most_rows: Limit on the rows of one array.
        seed: Seeds the drawing of rows, which does not depend on what else is collected beside.
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

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Take in ``array``, the value ``name`` in one feed."""
        for source, moments, rng in zip(self.sources, self._moments, self._draws, strict=True):
            if source.value == name:
                moments.add(im2col.rows(source.node, array, self.most_rows, rng))

    def result(self) -> Iterator[tuple[str, SecondMoments]]:
        """The moments of each node; those of one source are one object."""
        for source, moments in zip(self.sources, self._moments, strict=True):
            for name in source.kernels:
                yield name, moments
