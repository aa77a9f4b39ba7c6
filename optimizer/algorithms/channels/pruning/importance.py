"""In which order the channels of a width group may go, and what each more costs.

::

    l1, l2       share of the absolute, or squared, weights that a unit has in all kernels that make or read it
    bn           share of the squared scales of its BatchNormalization (Liu et al. 2017, arXiv:1708.06519)
    activation   |w|^2 |x|^2: what the outputs of the kernels that read it lose (as Wanda, arXiv:2306.11695)
    error        the same after the best compensation by the channels that stay

For ``error``, let C be the covariance of the channels that a kernel reads, H its inverse and G = W W^T the Gram matrix
of its weight by input channels. Taking the channels R away and letting the others compensate for them as well as a
linear function can leaves the outputs an error of tr(G_RR (H_RR)^-1); what is left is the same problem with

    H <- H - H_:R (H_RR)^-1 H_R:          G <- (I - U P) G (I - U P)^T,   U = H_:R (H_RR)^-1,   P picks R

(Optimal Brain Surgeon, Hassibi & Stork 1992, for whole channels). Units go in steps, each time those that cost least in
the sum over all kernels that read them, each in the measure of what its outputs vary.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

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

Importance: TypeAlias = Literal["l1", "l2", "bn", "activation", "error"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)
NEED_DATA: tuple[Importance, ...] = ("activation", "error")
_STEPS = 24  # in which a width group goes


@dataclass(frozen=True)
class Curve:
    """In which order the units of a width group go.

    Attributes:
        order: Units, the first to go first.
        costs: What each adds, in that order.
    """

    order: NDArray[np.int64]
    costs: NDArray[np.float64]


def curves(
    groups: ChannelGroups,
    width_groups: WidthGroups,
    readers: Sequence[RepairableConsumer],
    moments: Mapping[str, SecondMoments],
    importance: str,
) -> list[Curve]:
    """A curve for each width group.

    Args:
        groups: The channels.
        width_groups: Their width groups.
        readers: Of ``groups``.
        moments: Of the channels of what they read, as far as they are known.
        importance: One of ``IMPORTANCES``.
    """
    if importance not in NEED_DATA:
        scores = _by_weights(groups, importance)
        return [
            _sorted(width_group, np.array([scores[unit] for unit in width_group.units.tolist()]))
            for width_group in width_groups.members
        ]
    by_family: dict[int, dict[tuple[str, ...], list[RepairableConsumer]]] = defaultdict(lambda: defaultdict(list))
    for reader in readers:
        for number in {width_groups.of[root] for root in reader.roots.tolist() if root in width_groups.of}:
            by_family[number][tuple(reader.names)].append(reader)
    result = []
    for number, width_group in enumerate(width_groups.members):
        consumer_errors = [_ConsumerError.of(width_group, members, moments) for members in by_family[number].values()]
        if importance == "error":
            result.append(_by_elimination(width_group, consumer_errors))
        else:
            result.append(
                _sorted(
                    width_group,
                    sum((error.uncompensated() for error in consumer_errors), np.zeros(width_group.units.size)),
                )
            )
    return result


def _sorted(width_group: WidthGroup, scores: NDArray[np.float64]) -> Curve:
    order = np.argsort(scores, kind="stable")
    return Curve(width_group.units[order], scores[order])


def _by_weights(groups: ChannelGroups, importance: str) -> Mapping[int, float]:
    """The share that each unit has in the weights, or scales, that are cut with it."""
    scores: dict[int, float] = defaultdict(float)
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
        into = scales if is_scale else scores
        for root, share in zip(groups.roots(cut.channel_ids).tolist(), sizes / max(sizes.sum(), 1e-300), strict=True):
            into[root] += float(share)
    if importance == "bn":
        scores.update(scales)
    return scores


@dataclass
class _ConsumerError:
    """What is read by some kernels, as far as a width group is concerned.

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
        cls, width_group: WidthGroup, members: Sequence[RepairableConsumer], moments: Mapping[str, SecondMoments]
    ) -> _ConsumerError:
        roots = members[0].roots
        seen = members[0].moments(moments)
        if seen is None:
            covariance = np.eye(roots.size)
        else:
            second, mean, rows = seen
            covariance = damped(second - np.outer(mean, mean), rows)
        gram = np.zeros_like(covariance)
        for reader in members:
            matrix = reader.matrix()
            weight_gram = matrix @ matrix.T
            # In the measure of the consumer's own output: tr(W^T C W) = sum of G * C is its variance
            gram += weight_gram / max(float((weight_gram * covariance).sum()), 1e-300)
        # A unit may lie at several positions, as behind a Flatten; all units of a width group at equally many
        order = np.argsort(roots, kind="stable")
        begin = np.searchsorted(roots[order], width_group.units)
        times = int(np.count_nonzero(roots == width_group.units[0]))
        return cls(gram, covariance, order[begin[:, np.newaxis] + np.arange(times)], np.zeros((0, 0)))

    def uncompensated(self) -> NDArray[np.float64]:
        """What each unit alone adds to the error, without compensation; (units,)."""
        product = self.gram * self.covariance
        return np.asarray(np.diag(product)[self.places].sum(axis=1))

    def compensated(self) -> NDArray[np.float64]:
        """What each unit adds to the error with compensation; (units,)."""
        if self.places.shape[1] == 1:
            # G_jj / [C^-1]_jj: Optimal Brain Surgeon's cost of input channel j, summed over the outputs
            place = self.places[:, 0]
            return np.asarray(np.diag(self.gram)[place] / np.diag(self.inverse)[place])
        rows, columns = self.places[:, :, np.newaxis], self.places[:, np.newaxis, :]
        return np.asarray(np.einsum("uij,uji->u", self.gram[rows, columns], np.linalg.inv(self.inverse[rows, columns])))

    def remove(self, going: NDArray[np.int64]) -> None:
        """Take the units at these numbers away."""
        # With R the units that go and U = [C^-1]_:R ([C^-1]_RR)^-1, the error of any later choice is that of
        #     G' = G - U G_R: - (U G_R:)^T + U G_RR U^T     and     C'^-1 = C^-1 - U [C^-1]_R:
        # on the channels that remain: block elimination, so that no inverse is taken anew
        gone = self.places[going].reshape(-1)
        spread = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone]).T  # U
        shifted = spread @ self.gram[gone]
        remaining = np.setdiff1d(np.arange(self.gram.shape[0]), gone)
        both = np.ix_(remaining, remaining)
        inner = spread[remaining] @ self.gram[np.ix_(gone, gone)] @ spread[remaining].T
        self.gram = self.gram[both] - shifted[both] - shifted[both].T + inner
        self.inverse = self.inverse[both] - spread[remaining] @ self.inverse[np.ix_(gone, remaining)]
        self.places = np.searchsorted(remaining, np.delete(self.places, going, axis=0))


def _by_elimination(width_group: WidthGroup, consumer_errors: Sequence[_ConsumerError]) -> Curve:
    for error in consumer_errors:
        error.inverse = np.linalg.inv(error.covariance).astype(np.float64)
    alive, order, costs = width_group.units, [], []
    size = max(width_group.step, width_group.units.size // _STEPS // width_group.step * width_group.step)
    while alive.size:
        scores = sum((error.compensated() for error in consumer_errors), np.zeros(alive.size))
        ranked = np.argsort(scores, kind="stable")
        if alive.size - size < width_group.least:
            size = alive.size
        going = ranked[:size]
        order.append(alive[going])
        costs.append(np.maximum(scores[going], 0))
        alive = np.delete(alive, going)
        for error in consumer_errors if alive.size else ():
            error.remove(going)
    return Curve(np.concatenate(order), np.concatenate(costs))
