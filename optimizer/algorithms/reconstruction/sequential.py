"""Kernels of a changed model fitted so that their outputs are the reference's, on what they read now.

From the first kernel to the last, a sweep over the calibration feeds for each that depends on another: it makes up for
the errors of those before it (``optimizer.algorithms.reconstruction.least_squares``; the asymmetric form: x is read in
the changed model, y comes from the reference). Free are the elements of a weight that are not 0, and the bias, b' =
E[y] - v . E[x]. A weight that several kernels read stays, and only their biases are fitted. Of a weight that is looked
up in a codebook, the entries are free (``optimizer.algorithms.reconstruction.codebook_entries``). A kernel is left
alone where its output is so far off that the value of its name in the reference may be another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.reconstruction import codebook_entries
from optimizer.algorithms.reconstruction.bias import bias_of
from optimizer.algorithms.reconstruction.least_squares import Fit, damping, least_squares
from optimizer.graph import traversal
from optimizer.graph.linear_nodes import as_linear

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.reconstruction.codebook_entries import Codebook
    from optimizer.algorithms.reconstruction.kernel_matrices import Prunable
    from optimizer.contract.evaluator import Evaluator
    from optimizer.statistics.cross_moments import CrossMoments

_STRANGE = 0.5  # of the variance of an output: what is further off is not a version of the same value


@dataclass(frozen=True)
class Refitted:
    """What became of the kernels, by first output.

    Attributes:
        weights: Those whose weight was fitted, and the squared error of the output relative to what it was.
        codebooks: Those of whose codebook the entries were fitted.
        biases: Those whose bias was corrected.
        strange: Those whose output is too far off to be the same value.
    """

    weights: dict[str, float]
    codebooks: list[str]
    biases: list[str]
    strange: list[str]


def refit_all(  # noqa: PLR0913 - what to fit, to what; by keyword from the fifth on
    model: ir.Model,
    reference: ir.Model,
    prunables: Sequence[Prunable],
    evaluator: Evaluator,
    *,
    codebooks: Sequence[Codebook] = (),
    trusts_names: bool = False,
) -> Refitted:
    """Fit the weights ``prunables`` in ``model``, which is changed, to the outputs of ``reference``.

    Args:
        model: The changed model.
        reference: The model as it was; outputs of kernels have the same names in it.
        prunables: Weights of ``model`` with ``measured`` kernels; one that several kernels read keeps its elements.
        evaluator: Runs the calibration feeds.
        codebooks: Weights of ``model`` that are looked up in codebooks.
        trusts_names: Whether a value of ``reference`` is known to be what its name says, however far off ``model`` is.
    """
    weights: dict[str, Prunable | Codebook] = {name: weight for weight in prunables for name in weight.measured(model)}
    weights.update((book.name, book) for book in codebooks)
    result = Refitted({}, [], [], [])
    limit = math.inf if trusts_names else _STRANGE
    for group in _independent(model.graph, weights):
        for name, moments in evaluator.cross_moments(model, reference, group):
            if moments.rows:
                _fit_one(model, name, weights[name], moments, result=result, limit=limit)
    return result


def _independent(main: ir.Graph, names: Collection[str]) -> list[list[str]]:
    """``names`` of first outputs in groups, in order, none of which depends on another of its group.

    Kernels that depend on each other and are fitted at once would each make up for the same error.
    """
    # The depth of a value: how many of these kernels lie on the longest way to it. Those of one depth are independent
    depths: dict[ir.Value, int] = {}
    groups: dict[int, list[str]] = {}
    for node in traversal.in_order(main):
        inputs = [value for value in (*node.inputs, *traversal.captured(node)) if value is not None]
        depth = max((depths.get(value, 0) for value in inputs), default=0)
        name = node.outputs[0].name if node.outputs else None
        if name is not None and name in names:
            groups.setdefault(depth, []).append(name)
            depth += 1
        depths.update(dict.fromkeys(node.outputs, depth))
    return [groups[depth] for depth in sorted(groups)]


def _fit_one(  # noqa: PLR0913 - what to fit, to what, and where to say so
    model: ir.Model, name: str, weight: Prunable | Codebook, moments: CrossMoments, *, result: Refitted, limit: float
) -> None:
    nodes = (weight.node,) if isinstance(weight, codebook_entries.Codebook) else weight.nodes
    node = next(node for node in nodes if node.outputs[0].name == name)
    constant = _constant(node)
    if constant is None:
        return
    matrix, bias = weight.matrix(), bias_of(node)
    constant = constant.reshape(moments.mean.shape)
    fit = _target(moments, constant, centred=bias is not None)
    errors_before = fit.errors(matrix)
    if errors_before.sum() > limit * fit.power.sum():
        result.strange.append(name)
        return
    if isinstance(weight, codebook_entries.Codebook):
        entries = codebook_entries.fitted(weight, fit)
        if entries is not None:
            weight.write(entries)
            matrix = weight.matrix()
            result.codebooks.append(name)
    elif len(nodes) == 1:
        matrix = weight.write(least_squares(matrix, matrix != 0, fit))
        result.weights[name] = float(fit.errors(matrix).sum() / max(errors_before.sum(), np.finfo(np.float64).tiny))
    # b' - b = E[y] - b - v . E[x]
    shift = moments.mean - constant - (matrix @ moments.inputs.mean[..., np.newaxis])[..., 0]
    if bias is not None and bias.add(shift.reshape(-1), model):
        result.biases.append(name)


def _constant(node: ir.Node) -> NDArray[np.float64] | None:
    """What ``node`` adds to the product, (outputs,); ``None`` if it is not known."""
    linear_node = as_linear(node)
    added = None if linear_node is None else linear_node.bias_array()
    return None if added is None or linear_node is None else np.broadcast_to(added, (linear_node.outputs,))


def _target(moments: CrossMoments, constant: NDArray[np.float64], *, centred: bool) -> Fit:
    """The output that a kernel is to have, less the constant that it adds; around the mean where the bias is free.

    Args:
        moments: Of the kernel's inputs x and the reference's output y.
        constant: What the kernel adds, (groups, out).
        centred: Whether the bias is free.
    """
    inputs, mean = moments.inputs, moments.mean
    damping_share = damping(inputs.sums.shape[-1], moments.rows)
    # t = E[y x] - c E[x], E[(y - c)^2] = E[y^2] - 2 c E[y] + c^2; c = E[y] where the bias is free, or the constant
    offset = mean if centred else constant
    target = moments.product - offset[..., np.newaxis] * inputs.mean[:, np.newaxis, :]
    square = inputs.covariance if centred else inputs.second_moment
    power = moments.power - 2 * offset * mean + offset**2
    return Fit(square, target, power, damping_share)
