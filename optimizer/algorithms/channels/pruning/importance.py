"""In which order the channels of a family may go, and what each more costs.

::

    l1, l2       share of the absolute, or squared, weights that a unit has in all kernels that make or read it
    bn           share of the squared scales of its BatchNormalization (Liu et al. 2017, arXiv:1708.06519)
    activation   |w|^2 |x|^2: what the outputs of the kernels that read it lose (as Wanda, arXiv:2306.11695)
    error        the same after the best compensation by the channels that stay

For ``error``, let C be the covariance of the channels that a kernel reads, H its inverse and G = W W^T the Gram matrix
of its weight by input channels. Taking the channels R away and letting the others speak for them as well as a linear
function can leaves the outputs an error of tr(G_RR (H_RR)^-1); what is left is the same problem with

    H <- H - H_:R (H_RR)^-1 H_R:          G <- (I - U P) G (I - U P)^T,   U = H_:R (H_RR)^-1,   P picks R

(Optimal Brain Surgeon, Hassibi & Stork 1992, for whole channels). Units go in steps, each time those that cost least in
the sum over all kernels that read them, each in the measure of what its outputs vary.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.pruning.repair import damped
from optimizer.algorithms.channels.redundancy.linear_facts import array_of
from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.algorithms.channels.pruning.repair import RepairableConsumer
    from optimizer.algorithms.channels.pruning.units import WidthGroup, WidthGroups
    from optimizer.statistics.second_moments import SecondMoments

NEED_DATA = ("activation", "error")
IMPORTANCES = ("l1", "l2", "bn", *NEED_DATA)
_STEPS = 24  # in which a family goes


@dataclass(frozen=True)
class Curve:
    """In which order the units of a family go.

    Attributes:
        order: Units, the first to go first.
        costs: What each adds, in that order.
    """

    order: NDArray[np.int64]
    costs: NDArray[np.float64]


def curves(
    groups: ChannelGroups,
    families: WidthGroups,
    readers: Sequence[RepairableConsumer],
    moments: Mapping[str, SecondMoments],
    importance: str,
) -> list[Curve]:
    """A curve for each family.

    Args:
        groups: The channels.
        families: Their families.
        readers: Of ``groups``.
        moments: Of the channels of what they read, as far as they are known.
        importance: One of ``IMPORTANCES``.
    """
    if importance not in NEED_DATA:
        scores = _by_weights(groups, importance)
        return [
            _sorted(family, np.array([scores[unit] for unit in family.units.tolist()])) for family in families.members
        ]
    by_family: dict[int, dict[tuple[str, ...], list[RepairableConsumer]]] = defaultdict(lambda: defaultdict(list))
    for reader in readers:
        for number in {families.of[root] for root in reader.roots.tolist() if root in families.of}:
            by_family[number][tuple(reader.names)].append(reader)
    found = []
    for number, family in enumerate(families.members):
        felt = [_ConsumerError.of(family, members, moments) for members in by_family[number].values()]
        if importance == "error":
            found.append(_eliminated(family, felt))
        else:
            found.append(_sorted(family, sum((one.plain() for one in felt), np.zeros(family.units.size))))
    return found


def _sorted(family: WidthGroup, scores: NDArray[np.float64]) -> Curve:
    order = np.argsort(scores, kind="stable")
    return Curve(family.units[order], scores[order])


def _by_weights(groups: ChannelGroups, importance: str) -> Mapping[int, float]:
    """The share that each unit has in the weights, or scales, that are cut with it."""
    found: dict[int, float] = defaultdict(float)
    scales: dict[int, float] = defaultdict(float)
    for cut in groups.sliced_parameters.values():
        array = array_of(cut.value)
        if array is None:
            continue
        is_scale = cut.is_vector and all(
            queries.is_standard(node, "BatchNormalization") and index == 1 for node, index in cut.readers
        )
        if cut.is_vector and not is_scale:
            continue
        sizes = np.abs(array) if importance == "l1" else array**2
        sizes = np.moveaxis(sizes, cut.axis, 0).reshape(cut.channel_ids.size, -1).sum(axis=1)
        into = scales if is_scale else found
        for root, share in zip(groups.roots(cut.channel_ids).tolist(), sizes / max(sizes.sum(), 1e-300), strict=True):
            into[root] += float(share)
    if importance == "bn":
        found.update(scales)
    return found


@dataclass
class _ConsumerError:
    """What is read by some kernels, as far as a family is concerned.

    Attributes:
        gram: Of the weights of all of them by input channels, each in the measure of its outputs; (C, C).
        covariance: Of the channels; (C, C).
        second: Their second moments.
        places: The positions of each unit; (units, times).
        inverse: Of the covariance; empty until ``remove`` is asked.
    """

    gram: NDArray[np.float64]
    covariance: NDArray[np.float64]
    places: NDArray[np.int64]
    inverse: NDArray[np.float64]

    @classmethod
    def of(
        cls, family: WidthGroup, members: Sequence[RepairableConsumer], moments: Mapping[str, SecondMoments]
    ) -> _ConsumerError:
        roots = members[0].roots
        known = members[0].moments(moments)
        if known is None:
            covariance = np.eye(roots.size)
        else:
            second, mean, rows = known
            covariance = damped(second - np.outer(mean, mean), rows)
        gram = np.zeros_like(covariance)
        for reader in members:
            matrix = reader.matrix()
            own = matrix @ matrix.T
            gram += own / max(float((own * covariance).sum()), 1e-300)
        order = np.argsort(roots, kind="stable")
        begin = np.searchsorted(roots[order], family.units)
        times = int(np.count_nonzero(roots == family.units[0]))
        return cls(gram, covariance, order[begin[:, np.newaxis] + np.arange(times)], np.zeros((0, 0)))

    def plain(self) -> NDArray[np.float64]:
        """What each unit alone adds to the error, without compensation; (units,)."""
        product = self.gram * self.covariance
        return np.asarray(np.diag(product)[self.places].sum(axis=1))

    def scores(self) -> NDArray[np.float64]:
        """What each unit adds to the error with compensation; (units,)."""
        if self.places.shape[1] == 1:
            place = self.places[:, 0]
            return np.asarray(np.diag(self.gram)[place] / np.diag(self.inverse)[place])
        rows, columns = self.places[:, :, np.newaxis], self.places[:, np.newaxis, :]
        return np.asarray(np.einsum("uij,uji->u", self.gram[rows, columns], np.linalg.inv(self.inverse[rows, columns])))

    def remove(self, going: NDArray[np.int64]) -> None:
        """Take the units at these numbers away."""
        gone = self.places[going].reshape(-1)
        spread = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone]).T  # U
        shifted = spread @ self.gram[gone]
        left = np.setdiff1d(np.arange(self.gram.shape[0]), gone)
        both = np.ix_(left, left)
        inner = spread[left] @ self.gram[np.ix_(gone, gone)] @ spread[left].T
        self.gram = self.gram[both] - shifted[both] - shifted[both].T + inner
        self.inverse = self.inverse[both] - spread[left] @ self.inverse[np.ix_(gone, left)]
        self.places = np.searchsorted(left, np.delete(self.places, going, axis=0))


def _eliminated(family: WidthGroup, felt: Sequence[_ConsumerError]) -> Curve:
    for one in felt:
        one.inverse = np.linalg.inv(one.covariance).astype(np.float64)
    alive, order, costs = family.units, [], []
    size = max(family.step, family.units.size // _STEPS // family.step * family.step)
    while alive.size:
        scores = sum((one.scores() for one in felt), np.zeros(alive.size))
        ranked = np.argsort(scores, kind="stable")
        if alive.size - size < family.least:
            size = alive.size
        going = ranked[:size]
        order.append(alive[going])
        costs.append(np.maximum(scores[going], 0))
        alive = np.delete(alive, going)
        for one in felt if alive.size else ():
            one.remove(going)
    return Curve(np.concatenate(order), np.concatenate(costs))
