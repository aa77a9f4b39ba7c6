"""Moments of the inputs of linear nodes over calibration feeds, and of those together with the reference's outputs.

One node after the other, in groups whose sums are bounded; each group is a sweep over the feeds
(``optimizer.evaluation.calibration.sweep``). The sums are those of ``optimizer.statistics.second_moments`` and
``optimizer.statistics.cross_moments``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from optimizer.evaluation.calibration.sweep import (
    GROUP_BYTES,
    loaded,
    need_feeds,
    observable,
    packed,
    sizes,
    visit,
    with_outputs,
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
    """Second moments of the rows of linear nodes, one node after the other, in the order of the graph.

    Where their sums would be too large together, they come in groups, one sweep each: use each when it comes and let
    it go. Errors are raised when the first is asked for.

    Args:
        model: Not changed.
        kernels: First outputs of nodes of the main graph.
        feeds: One inference each, loaded when asked for.
        most_rows: Limit on the rows of each node over all feeds; each feed gives as many, drawn by ``seed``.
        seed: Which rows are drawn; they do not depend on what else is asked for.
        threads: Threads inside an operator.
        progress: Called with the share of the work done.
        group_bytes: Limit on the bytes of the sums of one sweep, and of the values of one run; a node whose sums take
            more has a sweep of its own.

    Yields:
        First output and moments; nodes that share their rows have one object. Nodes that
        ``optimizer.statistics.second_moments.refusal`` names a reason for, or whose input cannot be observed, are left
        out; those that no feed reached have no rows.

    Raises:
        UsageError: If no node gives one of ``kernels``.
        DataError: If there are no feeds.
        ReferenceRunError: If ONNX Runtime cannot run the model.
    """
    # 1. Nodes with equal rows once; groups of them as their sums fit.
    sources = row_groups(model, kernels)
    names = set(observable(model, {source.value for source in sources}))
    groups = batches([source for source in sources if source.value in names], group_bytes)
    rows_of_feed = -(-most_rows // max(len(feeds), 1))
    # 2. A sweep over the feeds for each group.
    for number, group in enumerate(groups):
        collection = Collection(group, rows_of_feed, seed)
        inputs = list(dict.fromkeys(source.value for source in group))
        progress_of_group = partial(_tell, progress, number, len(groups))
        visit(
            model, inputs, feeds, collection.add, threads=threads, progress=progress_of_group, group_bytes=group_bytes
        )
        yield from collection.result()


@dataclass(frozen=True)
class _NodePair:
    """A linear node of the changed model and the value of the reference that its output stands for.

    Attributes:
        name: The name of its first output, and of the value.
        node: The node.
        read: The name of its first input.
    """

    name: str
    node: ir.Node
    read: str


def cross_moments(  # noqa: PLR0913 - as above
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
    """Moments of the rows of nodes of ``model`` together with the values of ``reference`` that their outputs stand for.

    One node after the other, in the order of the graph of ``model``, as ``second_moments`` does; arguments and errors
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
    input_bytes = sizes(model, _computed(pairs.values(), feeds[0]), feeds[0], threads)
    output_bytes = sizes(reference, list(pairs), feeds[0], threads)
    # A group is bounded by its sums and by the values that a run gives out for them.
    bytes_needed = {
        name: CrossMoments.nbytes(pair.node) + input_bytes.get(pair.read, 0) + output_bytes.get(name, 0)
        for name, pair in pairs.items()
    }
    groups = [[pairs[name] for name in group] for group in packed(bytes_needed, group_bytes) if group]
    rows_of_feed = -(-most_rows // len(feeds))
    for number, group in enumerate(groups):
        progress_of_group = partial(_tell, progress, number, len(groups))
        sums = {pair.name: CrossMoments.of(pair.node) for pair in group}
        rngs = {pair.name: draw_for(pair.name, seed) for pair in group}
        for inputs, outputs in _both(model, reference, group, feeds, threads=threads, progress=progress_of_group):
            for pair in group:
                # An optional input may be left out of a feed.
                if pair.read in inputs:
                    answer = outputs.pop(pair.name)
                    sums[pair.name].add(pair.node, inputs[pair.read], answer, rows_of_feed, rngs[pair.name])
        yield from sums.items()


def _pairs(model: ir.Model, reference: ir.Model, kernels: Sequence[str]) -> dict[str, _NodePair]:
    """Those nodes of which both sides can be observed, by name, in the order of the graph."""
    wanted = {name for group in row_groups(model, kernels) for name in group.kernels}
    pairs = {}
    for node in model.graph:
        name, value = node.outputs[0].name if node.outputs else None, node.inputs[0] if node.inputs else None
        if name in wanted and name is not None and value is not None:
            pairs[name] = _NodePair(name, node, str(value.name))
    observable_inputs = set(observable(model, {pair.read for pair in pairs.values()}))
    observable_outputs = set(observable(reference, pairs))
    return {name: pair for name, pair in pairs.items() if pair.read in observable_inputs and name in observable_outputs}


def _computed(pairs: Iterable[_NodePair], feed: Mapping[str, Any]) -> list[str]:
    """The inputs of the nodes that are no arrays of the feed, so that the model has to compute them."""
    return [name for name in dict.fromkeys(pair.read for pair in pairs) if name not in feed]


def _both(  # noqa: PLR0913 - what to run, on what, and how; by keyword from the fifth on
    model: ir.Model,
    reference: ir.Model,
    group: Sequence[_NodePair],
    feeds: Sequence[Mapping[str, Any]],
    *,
    threads: int,
    progress: Callable[[float], None],
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """For each feed, the inputs of the nodes of ``group`` in ``model``, and their outputs in ``reference``."""
    values = _computed(group, feeds[0])
    model_session = session.session(with_outputs(model, values), threads=threads) if values else None
    reference_session = session.session(with_outputs(reference, [pair.name for pair in group]), threads=threads)
    for count, feed in enumerate(loaded(feeds), 1):
        yield {**feed, **({} if model_session is None else model_session.run(feed))}, reference_session.run(feed)
        progress(count / len(feeds))


def _tell(progress: Callable[[float], None], groups_done: int, total: int, share: float) -> None:
    """Call ``progress`` while group number ``groups_done`` of ``total`` runs, of which ``share`` is done."""
    progress((groups_done + share) / total)
