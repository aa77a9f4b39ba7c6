"""Sums over calibration feeds of products of what kernels read, and of that with what they are to answer.

One kernel after the other, in groups whose sums are bounded; each group is a sweep over the feeds
(``optimizer.evaluation.calibration.sweep``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from optimizer.evaluation.calibration.sweep import (
    GROUP_BYTES,
    giving,
    loaded,
    need_feeds,
    observable,
    packed,
    sizes,
    visit,
)
from optimizer.evaluation.runtime import session
from optimizer.statistics.cross_moments import CrossMoments, draw_for
from optimizer.statistics.second_moments import MOST_ROWS, Collection, batches, row_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.statistics.second_moments import SecondMoments


def second_moments(  # noqa: PLR0913 - what to sum up, over what, and how; by keyword from the fourth on
    model: ir.Model,
    kernels: Sequence[str],
    feeds: Sequence[Mapping[str, Any]],
    *,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[float], None] = lambda _share: None,
    group_bytes: int = GROUP_BYTES,
) -> Iterator[tuple[str, SecondMoments]]:
    """Second moments of what kernels multiply with, one kernel after the other, in the order of the graph.

    Where their sums would be too large together, they come in groups, one sweep each: use each when it comes and let
    it go. Errors are raised when the first is asked for.

    Args:
        model: Not changed.
        kernels: First outputs of nodes of the main graph.
        feeds: One inference each, loaded when asked for.
        most_rows: Of each kernel, over all feeds; each gives the same share, drawn by ``seed``.
        seed: Which rows are drawn; they do not depend on what else is asked for.
        threads: Threads inside an operator.
        progress: Called with the share of the work done.
        group_bytes: What the sums of one sweep may take together, and the values of one run; a kernel whose sums take
            more has a sweep of its own.

    Yields:
        First output and moments; those that share their rows have one object. Kernels that
        ``optimizer.statistics.second_moments.refusal`` names a reason for, or whose input cannot be observed, are left
        out; those that no feed reached have no rows.

    Raises:
        UsageError: If no node gives one of ``kernels``.
        DataError: If there are no feeds.
        ReferenceRunError: If ONNX Runtime cannot run the model.
    """
    found = row_groups(model, kernels)
    names = set(observable(model, {item.value for item in found}))
    groups = batches([item for item in found if item.value in names], group_bytes)
    share = -(-most_rows // max(len(feeds), 1))
    for number, group in enumerate(groups):
        collection = Collection(group, share, seed)
        inputs = list(dict.fromkeys(item.value for item in group))
        told = partial(_tell, progress, number, len(groups))
        visit(model, inputs, feeds, collection.add, threads=threads, progress=told, group_bytes=group_bytes)
        yield from collection.result()


@dataclass(frozen=True)
class _PairedSums:
    """A kernel of the changed model and the value of the reference that its output stands for.

    Attributes:
        name: Of both.
        node: The kernel.
        read: The name of what it multiplies with.
    """

    name: str
    node: ir.Node
    read: str


def paired_moments(  # noqa: PLR0913 - as above
    model: ir.Model,
    reference: ir.Model,
    kernels: Sequence[str],
    feeds: Sequence[Mapping[str, Any]],
    *,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[float], None] = lambda _share: None,
    group_bytes: int = GROUP_BYTES,
) -> Iterator[tuple[str, CrossMoments]]:
    """Moments of what kernels of ``model`` read together with the values of ``reference`` that their outputs stand for.

    One kernel after the other, in the order of the graph of ``model``, as ``second_moments`` does; arguments and errors
    are the same.

    Args:
        model: Not changed.
        reference: The same network before something was done to it; not changed.
        kernels: First outputs of nodes of the main graph of ``model``, and values of that of ``reference``.
        feeds: As there.
        most_rows: As there.
        seed: As there.
        threads: As there.
        progress: As there.
        group_bytes: As there.
    """
    need_feeds(feeds)
    pairs = _pairs(model, reference, kernels)
    own = sizes(model, _computed(pairs.values(), feeds[0]), feeds[0], threads)
    given = sizes(reference, list(pairs), feeds[0], threads)
    taken = {pair.name: CrossMoments.nbytes(pair.node) + own.get(pair.read, 0) + given.get(pair.name, 0)
             for pair in pairs.values()}  # fmt: skip
    groups = [[pairs[name] for name in group] for group in packed(taken, group_bytes) if group]
    share = -(-most_rows // len(feeds))
    for number, group in enumerate(groups):
        told = partial(_tell, progress, number, len(groups))
        sums = {pair.name: CrossMoments.of(pair.node) for pair in group}
        draws = {pair.name: draw_for(pair.name, seed) for pair in group}
        for seen, wanted in _both(model, reference, group, feeds, threads=threads, progress=told):
            for pair in group:
                if pair.read in seen:
                    answer = wanted.pop(pair.name)
                    sums[pair.name].add(pair.node, seen[pair.read], answer, share, draws[pair.name])
        yield from sums.items()


def _pairs(model: ir.Model, reference: ir.Model, kernels: Sequence[str]) -> dict[str, _PairedSums]:
    """Those kernels of which both sides can be observed, by name, in the order of the graph."""
    wanted = {name for item in row_groups(model, kernels) for name in item.kernels}
    found = {}
    for node in model.graph:
        name, value = node.outputs[0].name if node.outputs else None, node.inputs[0] if node.inputs else None
        if name in wanted and name is not None and value is not None:
            found[name] = _PairedSums(name, node, str(value.name))
    known = set(observable(model, {pair.read for pair in found.values()}))
    given = set(observable(reference, found))
    return {name: pair for name, pair in found.items() if pair.read in known and name in given}


def _computed(pairs: Iterable[_PairedSums], feed: Mapping[str, Any]) -> list[str]:
    """What the kernels read and no feed has."""
    return [name for name in dict.fromkeys(pair.read for pair in pairs) if name not in feed]


def _both(  # noqa: PLR0913 - what to run, on what, and how; by keyword from the fifth on
    model: ir.Model,
    reference: ir.Model,
    group: Sequence[_PairedSums],
    feeds: Sequence[Mapping[str, Any]],
    *,
    threads: int,
    progress: Callable[[float], None],
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """For each feed, what the kernels of ``group`` read in ``model`` and what ``reference`` answers."""
    values = _computed(group, feeds[0])
    own = session.session(giving(model, values), threads=threads) if values else None
    others = session.session(giving(reference, [pair.name for pair in group]), threads=threads)
    for done, feed in enumerate(loaded(feeds), 1):
        yield {**feed, **({} if own is None else own.run(feed))}, others.run(feed)
        progress(done / len(feeds))


def _tell(progress: Callable[[float], None], done: int, total: int, share: float) -> None:
    """Call ``progress`` while the part after ``done`` of ``total`` runs."""
    progress((done + share) / total)
