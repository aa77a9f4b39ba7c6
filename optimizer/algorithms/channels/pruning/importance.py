"""In which order the channels of a width group may go, and what each more costs.

::

    l1, l2       share of the absolute, or squared, weights that a unit has in all kernels that produce or read it
    bn           share of the squared scales of its BatchNormalization (Liu et al. 2017, arXiv:1708.06519)
    activation   |w|^2 |x|^2: what the outputs of the kernels that read it lose (as Wanda, arXiv:2306.11695)
    error        the same after the best compensation by the channels that stay

For ``error``, let C be the covariance of the channels that a kernel reads, H its inverse and G = W W^T the Gram matrix
of its weight by input channels. Taking the channels R away and letting the others compensate for them as well as a
linear function can leaves the outputs an error of tr(G_RR (H_RR)^-1); what is left is the same problem with

    H <- H - H_:R (H_RR)^-1 H_R:          G <- (I - U P) G (I - U P)^T,   U = H_:R (H_RR)^-1,   P picks R

(Optimal Brain Surgeon, Hassibi & Stork 1992, for whole channels). Units go in steps, each time those that cost least in
the sum over all kernels that read them, each relative to the variance of its outputs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from optimizer.algorithms.channels.pruning.repair import damped_covariance
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
        order: Roots of the units, the first to go first; (units,).
        costs: What each adds, in that order; (units,). For ``activation`` and ``error``, squared errors relative to the
            variance of the outputs of a consumer, summed over consumers.
    """

    order: NDArray[np.int64]
    costs: NDArray[np.float64]


def curves(
    groups: ChannelGroups,
    width_groups: WidthGroups,
    consumers: Sequence[RepairableConsumer],
    moments: Mapping[str, SecondMoments],
    importance: str,
) -> list[Curve]:
    """A curve for each width group.

    Args:
        groups: The channels.
        width_groups: Their width groups.
        consumers: The weights that read channels of ``groups``.
        moments: Of the channels of what they read, as far as they are known.
        importance: One of ``IMPORTANCES``.
    """
    if importance not in NEED_DATA:
        scores = _by_weights(groups, importance)
        return [
            _sorted(width_group, np.array([scores[unit] for unit in width_group.units.tolist()]))
            for width_group in width_groups.members
        ]
    consumers_by_group: dict[int, dict[tuple[str, ...], list[RepairableConsumer]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for consumer in consumers:
        for number in {width_groups.of[root] for root in consumer.roots.tolist() if root in width_groups.of}:
            consumers_by_group[number][tuple(consumer.names)].append(consumer)
    result = []
    for number, width_group in enumerate(width_groups.members):
        consumer_errors = [
            _ConsumerError.of(width_group, same_inputs, moments) for same_inputs in consumers_by_group[number].values()
        ]
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
    """The share that each unit has in the weights, or scales, that are sliced with it, summed over these; by root."""
    scores: dict[int, float] = defaultdict(float)
    scales: dict[int, float] = defaultdict(float)
    for parameter in groups.sliced_parameters.values():
        array = array_of(parameter.value)
        if array is None:
            continue
        is_scale = parameter.is_vector and all(
            queries.is_standard(node, "BatchNormalization") and index == 1 for node, index in parameter.readers
        )
        if parameter.is_vector and not is_scale:
            continue
        sizes = np.abs(array) if importance == "l1" else array**2
        sizes = np.moveaxis(sizes, parameter.axis, 0).reshape(parameter.channel_ids.size, -1).sum(axis=1)
        sums = scales if is_scale else scores
        for root, share in zip(
            groups.roots(parameter.channel_ids).tolist(), sizes / max(sizes.sum(), 1e-300), strict=True
        ):
            sums[root] += float(share)
    if importance == "bn":
        scores.update(scales)
    return scores


@dataclass
class _ConsumerError:
    """The error of the outputs of kernels that read the same channels, by the units of a width group that go.

    Attributes:
        gram: Of the weights of all of them by input channels, each relative to the variance of its outputs; (C, C).
        covariance: Of the channels; (C, C).
        places: The positions of each unit; (units, times).
        inverse: Of the covariance, H; empty until ``compensated`` or ``remove`` is to be called.
    """

    gram: NDArray[np.float64]
    covariance: NDArray[np.float64]
    places: NDArray[np.int64]
    inverse: NDArray[np.float64]

    @classmethod
    def of(
        cls, width_group: WidthGroup, consumers: Sequence[RepairableConsumer], moments: Mapping[str, SecondMoments]
    ) -> _ConsumerError:
        """The error of ``consumers``, which read the same values; without moments, as if channels were uncorrelated."""
        roots = consumers[0].roots
        input_moments = consumers[0].moments(moments)
        if input_moments is None:
            covariance = np.eye(roots.size)
        else:
            second, mean, rows = input_moments
            covariance = damped_covariance(second - np.outer(mean, mean), rows)
        gram = np.zeros_like(covariance)
        for consumer in consumers:
            matrix = consumer.matrix()
            weight_gram = matrix @ matrix.T
            # Relative to the variance of the consumer's own outputs, tr(W^T C W) = sum of G * C
            gram += weight_gram / max(float((weight_gram * covariance).sum()), 1e-300)
        # A unit may lie at several positions, as behind a Flatten; all units of a width group at equally many
        order = np.argsort(roots, kind="stable")
        begin = np.searchsorted(roots[order], width_group.units)
        times = int(np.count_nonzero(roots == width_group.units[0]))
        return cls(gram, covariance, order[begin[:, np.newaxis] + np.arange(times)], np.zeros((0, 0)))

    def uncompensated(self) -> NDArray[np.float64]:
        """What each unit alone adds to the error without compensation, G_jj C_jj over its positions j; (units,)."""
        product = self.gram * self.covariance
        return np.asarray(np.diag(product)[self.places].sum(axis=1))

    def compensated(self) -> NDArray[np.float64]:
        """What each unit alone adds to the error with compensation, tr(G_RR (H_RR)^-1); (units,)."""
        if self.places.shape[1] == 1:
            # One position each: G_jj / H_jj
            place = self.places[:, 0]
            return np.asarray(np.diag(self.gram)[place] / np.diag(self.inverse)[place])
        rows, columns = self.places[:, :, np.newaxis], self.places[:, np.newaxis, :]
        return np.asarray(np.einsum("uij,uji->u", self.gram[rows, columns], np.linalg.inv(self.inverse[rows, columns])))

    def remove(self, going: NDArray[np.int64]) -> None:
        """Take the units at these numbers, (n,), away: G and H become those of what remains, as in the module.

        It is block elimination, so no inverse is taken anew.
        """
        # 1. R: the positions of the units that go. U = H_:R (H_RR)^-1
        removed = self.places[going].reshape(-1)
        compensation = np.linalg.solve(self.inverse[np.ix_(removed, removed)], self.inverse[removed]).T  # U
        # 2. G - U G_R: - (U G_R:)^T + U G_RR U^T, on what remains
        shifted = compensation @ self.gram[removed]
        remaining = np.setdiff1d(np.arange(self.gram.shape[0]), removed)
        among_remaining = np.ix_(remaining, remaining)
        correction = compensation[remaining] @ self.gram[np.ix_(removed, removed)] @ compensation[remaining].T
        self.gram = self.gram[among_remaining] - shifted[among_remaining] - shifted[among_remaining].T + correction
        # 3. H - U H_R:, on what remains
        self.inverse = (
            self.inverse[among_remaining] - compensation[remaining] @ self.inverse[np.ix_(removed, remaining)]
        )
        # 4. Positions among what remains
        self.places = np.searchsorted(remaining, np.delete(self.places, going, axis=0))


def _by_elimination(width_group: WidthGroup, consumer_errors: Sequence[_ConsumerError]) -> Curve:
    """The order in which units go if, step by step, those go that cost least after all that went before."""
    for error in consumer_errors:
        error.inverse = np.linalg.inv(error.covariance).astype(np.float64)
    alive, order, costs = width_group.units, [], []
    size = max(width_group.step, width_group.units.size // _STEPS // width_group.step * width_group.step)
    while alive.size:
        scores = sum((error.compensated() for error in consumer_errors), np.zeros(alive.size))
        ranked = np.argsort(scores, kind="stable")
        # The last of them, which have to stay, are ranked in one step
        if alive.size - size < width_group.least:
            size = alive.size
        going = ranked[:size]
        order.append(alive[going])
        costs.append(np.maximum(scores[going], 0))
        alive = np.delete(alive, going)
        for error in consumer_errors if alive.size else ():
            error.remove(going)
    return Curve(np.concatenate(order), np.concatenate(costs))
