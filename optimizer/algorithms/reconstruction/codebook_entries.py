"""Entries of codebooks fitted to the outputs that a kernel is to have; which entry each element has stays as it is.

A row of a weight is w = P e, P saying which entry each element is. With M, t and y as for weights that are stored
(``optimizer.algorithms.reconstruction.least_squares``), the e that many rows share minimizes

    sum of E[(P e . x - y)^2]        A e = b,   A = sum P^T M P,   b = sum P^T t

over its rows, M damped towards the entries that there are. An entry that is 0 stays 0, so that pruning survives.

A codebook is recognized by what it does: nodes that compute a weight from constants alone, one of them in floats, and
whose result has the elements of that one, at the places that the same nodes give for the numbers of the elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.analysis import constant_evaluation
from optimizer.graph import queries
from optimizer.graph.constants import constant_array, constant_tensor, set_array
from optimizer.graph.linear_nodes import OPS, as_linear
from optimizer.statistics import im2col, second_moments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from optimizer.algorithms.reconstruction.least_squares import Fit

_DEPTH = 16  # nodes between a codebook and the kernel, at most
_MOST_PLACES = 1 << 24  # elements of a codebook: their numbers are exact as 32-bit floats


@dataclass(frozen=True)
class Codebook:
    """The weight of one kernel, looked up in a constant.

    Attributes:
        node: The kernel.
        value: The constant.
        places: Which of its elements each element of the kernel's matrix is, (groups, out, K).
    """

    node: ir.Node
    value: ir.Value
    places: NDArray[np.intp]

    @property
    def name(self) -> str:
        """The name of the kernel's output."""
        return self.node.outputs[0].name or ""

    def entries(self) -> NDArray[np.float64]:
        """The elements of the constant; (entries,)."""
        tensor = constant_tensor(self.value)
        if tensor is None:
            raise ValueError(f"{self.value.name} is no constant")
        return np.asarray(tensor.numpy().reshape(-1), np.float64)

    def matrix(self) -> NDArray[np.float64]:
        """The weight of the kernel, (groups, out, K)."""
        return np.asarray(self.entries()[self.places])

    def write(self, entries: NDArray[np.float64]) -> None:
        """Store ``entries``, (entries,), in the type of the constant."""
        tensor = constant_tensor(self.value)
        if tensor is not None:
            set_array(self.value, entries.astype(tensor.dtype.numpy()).reshape(tensor.shape.numpy()))


def codebook(node: ir.Node, opset: int) -> Codebook | None:
    """The codebook that the kernel ``node`` alone reads; ``None`` if its weight is stored otherwise.

    The shape of the weight is filled in, where shape inference has not run.
    """
    value = node.inputs[1] if len(node.inputs) > 1 and queries.is_standard(node, *OPS) else None
    computation = None if value is None or constant_tensor(value) is not None else _computation(value)
    if value is None or computation is None:
        return None
    nodes, constants = computation
    floats = [constant for constant in constants if constant.dtype is not None and constant.dtype.is_floating_point()]
    is_private = all(queries.use_count(output) == 1 for producer in nodes for output in producer.outputs)
    if len(floats) != 1 or queries.use_count(floats[0]) != 1 or floats[0].is_graph_output() or not is_private:
        return None
    array = constant_array(floats[0])
    if array is None or not 0 < array.size < _MOST_PLACES:
        return None
    # 1. The same nodes on the numbers of the elements say which element lies where
    numbered = _evaluated(value, {floats[0]: np.arange(array.size, dtype=np.float32).reshape(array.shape)}, opset)
    looked_up = _evaluated(value, {}, opset)
    if numbered is None or looked_up is None:
        return None
    if value.shape is None:
        value.shape = ir.Shape(looked_up.shape)
    if as_linear(node) is None or second_moments.refusal(node) is not None:
        return None
    # 2. That is only so if the nodes just look elements up, and compute nothing with them
    places = numbered.astype(np.intp)
    if not (places.min() >= 0 and places.max() < array.size and np.array_equal(array.reshape(-1)[places], looked_up)):
        return None
    return Codebook(node, floats[0], np.asarray(im2col.as_matrix(node, places)))


def fitted(codebook: Codebook, fit: Fit) -> NDArray[np.float64] | None:
    """The entries that fit best, (entries,); ``None`` if they are no better than those that there are."""
    start, places = codebook.entries(), codebook.places
    square, target = np.zeros((start.size, start.size)), np.zeros(start.size)
    for group, rows in enumerate(places):
        for row, row_target in zip(rows, fit.target[group], strict=True):
            # 1. P of this row, of the entries that it uses: A += P^T M P, b += P^T t
            distinct, numbers = np.unique(row, return_inverse=True)
            selection = np.zeros((row.size, distinct.size))
            selection[np.arange(row.size), numbers] = 1
            square[np.ix_(distinct, distinct)] += selection.T @ (fit.square[group] @ selection)
            target[distinct] += selection.T @ row_target
    # 2. D = damping times how many elements an entry stands for; (A + D) e = b + D e0
    counts = np.bincount(places.reshape(-1), minlength=start.size)
    damping = fit.damping * float(np.einsum("gkk->gk", fit.square).mean()) * counts
    free = (counts > 0) & (start != 0) & (damping > 0)
    if not free.any():
        return None
    entries = start.copy()
    entries[free] = np.linalg.solve((square + np.diag(damping))[np.ix_(free, free)], (target + damping * start)[free])
    entries = np.where(np.isfinite(entries), entries, start)
    is_better = fit.errors(entries[places]).sum() < fit.errors(start[places]).sum()
    return entries if is_better else None


def _computation(value: ir.Value) -> tuple[list[ir.Node], list[ir.Value]] | None:
    """The nodes that compute ``value`` and the constants that they start from; ``None`` if inputs are among these."""
    nodes: dict[ir.Node, None] = {}
    constants: dict[ir.Value, None] = {}
    queue: list[ir.Value | None] = [value]
    while queue:
        current = queue.pop()
        if current is None:
            continue
        if constant_tensor(current) is not None:
            constants[current] = None
            continue
        producer = current.producer()
        if producer is None or len(nodes) >= _DEPTH:
            return None
        if producer not in nodes:
            nodes[producer] = None
            queue.extend(producer.inputs)
    return list(nodes), list(constants)


def _evaluated(value: ir.Value | None, replaced: Mapping[ir.Value, NDArray[Any]], opset: int) -> NDArray[Any] | None:
    """What is computed for ``value`` with some constants ``replaced``; ``None`` if a node cannot be evaluated."""
    if value is None:
        return None
    if value in replaced:
        return replaced[value]
    array = constant_array(value)
    producer = value.producer()
    if array is not None or producer is None:
        return array
    if producer.op_type not in constant_evaluation.FOLDED or queries.has_references(producer):
        return None
    arrays = [_evaluated(operand, replaced, opset) for operand in producer.inputs]
    if any(operand is not None and array is None for operand, array in zip(producer.inputs, arrays, strict=True)):
        return None
    if producer.op_type == "GatherElements":  # the reference's stops at 64 entries
        return _gathered(producer.attributes.get_int("axis", 0), *arrays)
    results = constant_evaluation.run(producer, opset, arrays)
    return None if results is None else results[producer.outputs.index(value)]


def _gathered(axis: int, data: NDArray[Any] | None, indices: NDArray[Any] | None) -> NDArray[Any] | None:
    """GatherElements, for indices of any size."""
    if data is None or indices is None:
        return None
    positive_axis = axis % data.ndim
    # Along other axes the indices may be fewer than the data, which numpy does not allow
    cropped = (
        slice(None) if dimension == positive_axis else slice(size) for dimension, size in enumerate(indices.shape)
    )
    return np.asarray(np.take_along_axis(data[tuple(cropped)], indices.astype(np.intp), positive_axis))
