"""Float constants that are kernels' weights, as the matrices that the kernels multiply with.

A weight may be stored otherwise than it is read: behind Identity, Cast, Transpose and Reshape, in a Constant node, once
for several kernels. ``Prunable.places`` says where in the stored tensor each element of the matrix lies, so a new
matrix can be written back, and the graph stays as it is. (torch.nn.utils.prune is told a module and the name of its
parameter instead.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.stored_constants import stored_constants
from optimizer.graph import constants, queries, traversal, weight_sources
from optimizer.graph.graph_tree import GraphTree
from optimizer.graph.linear_nodes import OPS, as_linear
from optimizer.graph.operators import Trait, having
from optimizer.graph.sparse import SparseTensor
from optimizer.statistics import im2col, second_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.stored_constants import StoredConstant
    from optimizer.contract.node_filter import NodeFilter
    from optimizer.contract.skipped import SkippedNodes

_INTEGER_KERNELS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})
_RECURRENT = having(Trait.RECURRENT)


@dataclass(frozen=True)
class Prunable:
    """A constant that only Conv, ConvTranspose, Gemm and MatMul read, as their weight.

    Attributes:
        constant: Where it is stored.
        nodes: The kernels that read it.
        shape: Groups, outputs of a group, inputs of a group, taps of the window; the last two make up K.
        is_alike: Whether all of the kernels read it as the same matrix.
    """

    constant: StoredConstant
    nodes: tuple[ir.Node, ...]
    shape: tuple[int, int, int, int]
    is_alike: bool

    @property
    def name(self) -> str:
        """The name of the constant."""
        return self.constant.name

    @property
    def places(self) -> NDArray[np.intp]:
        """Where in the flat constant the elements of the first kernel's matrix lie, (groups, out, K)."""
        return im2col.as_matrix(self.nodes[0], _index(_source(self.nodes[0])))

    def matrix(self) -> NDArray[np.float64]:
        """The weight, (groups, out, K)."""
        return np.asarray(self.constant.tensor.numpy().reshape(-1)[self.places], np.float64)

    def write(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Store ``matrix``, (groups, out, K), in the place of the weight, in its type; returns it as it is stored."""
        tensor = self.constant.tensor
        flat = np.empty(tensor.size, tensor.dtype.numpy())
        places = self.places
        flat[places.reshape(-1)] = matrix.reshape(-1).astype(flat.dtype)
        constants.set_array(self.constant.value, flat.reshape(self.constant.shape))
        return np.asarray(flat[places], np.float64)

    def measured(self, model: ir.Model) -> tuple[str, ...]:
        """First outputs of its kernels if the second moments of all their inputs can be taken, else nothing."""
        names = [node.outputs[0].name for node in self.nodes]
        is_main = all(node.graph is model.graph and second_moments.refusal(node) is None for node in self.nodes)
        return tuple(name for name in names if name) if is_main and self.is_alike and all(names) else ()


def prunable(model: ir.Model, node_filter: NodeFilter, skipped: SkippedNodes, *, guard: bool) -> list[Prunable]:
    """The weights of kernels in ``model``, in its subgraphs and functions too.

    Shapes of views of weights are filled in, where shape inference has not run.

    Args:
        model: The model.
        node_filter: Which nodes.
        skipped: Where what is not among them is noted, with the reason.
        guard: Whether to leave out the first and the last kernels of the main graph.
    """
    skipped.unmatched(node_filter.unmatched(model))
    for node in traversal.nodes(model):
        reason = _unsupported(node)
        if reason is not None:
            skipped.note(node, reason)
    # By constant, not by kernel: one that several kernels read is pruned once
    guarded = _first_and_last(model.graph) if guard else frozenset()
    weights = []
    for stored in stored_constants(GraphTree.of(model), lambda _: False):
        nodes = tuple(node for node, position in weight_sources.readers(stored.value) if _is_weight(node, position))
        if not nodes or not stored.tensor.dtype.is_floating_point():
            continue
        reason = _refusal(stored, nodes, node_filter, guarded)
        if reason is None:
            weights.append(_prunable(stored, nodes))
        else:
            skipped.note(stored.name, reason)
    if not weights and not skipped:
        skipped.note("the model", "has no kernels with float weights")
    return weights


def _unsupported(node: ir.Node) -> str | None:
    """Why ``node``, whatever its constants, has no weight to prune; ``None`` if it may have, or is not a kernel."""
    if queries.is_standard(node, *_INTEGER_KERNELS):
        return "has integer weights: it is quantized already"
    if queries.is_standard(node, *_RECURRENT):
        return f"is a {node.op_type}: only Conv, ConvTranspose, Gemm and MatMul are pruned"
    if not queries.is_standard(node, "Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    source = weight_sources.origin_of(value)
    if source is not None:
        return None if source.is_float_throughout else "has a weight cast from integers: it is quantized already"
    producer = None if value is None else value.producer()
    computed = f"by a {producer.op_type}" if producer is not None else "from an input"
    is_quantized = producer is not None and producer.op_type == "DequantizeLinear"
    return f"has a weight that is computed {computed}{': it is quantized already' if is_quantized else ''}"


def _is_weight(node: ir.Node, position: int) -> bool:
    """Whether ``node`` is a kernel that reads its weight at ``position``, of a shape that is filled in if unknown."""
    if position != 1 or not queries.is_standard(node, *OPS):
        return False
    value, source = node.inputs[1], weight_sources.origin_of(node.inputs[1])
    if value is not None and source is not None and source.path and queries.static_shape(value) is None:
        value.shape, value.type = ir.Shape(_index(source).shape), ir.TensorType(source.dtype)
    return as_linear(node) is not None


def _refusal(
    stored: StoredConstant, nodes: tuple[ir.Node, ...], node_filter: NodeFilter, guarded: frozenset[ir.Node]
) -> str | None:
    other_consumers = [node.op_type for node, _ in weight_sources.readers(stored.value) if node not in nodes]
    if not all(node_filter.matches(node, stored.name) for node in nodes):
        return "is left out by include= or exclude="
    if any(node in guarded for node in nodes):
        return "belongs to a first or a last kernel, which guard=true leaves alone"
    if stored.keep_reason is not None:
        return stored.keep_reason.value
    if isinstance(stored.tensor, SparseTensor):
        return "is stored sparse"
    if other_consumers:
        return f"is read by a {other_consumers[0]} too"
    if weight_sources.is_given_out(stored.value):
        return "is a graph output"
    if not np.isfinite(stored.tensor.numpy().astype(np.float32)).all():
        return "is not finite"
    sources = [weight_sources.origin_of(node.inputs[1]) for node in nodes]
    if not all(source is not None and source.is_float_throughout for source in sources):
        return "is cast from integers or to them: it is quantized already"
    return None


def _prunable(stored: StoredConstant, nodes: tuple[ir.Node, ...]) -> Prunable:
    linear_nodes = [linear_node for node in nodes if (linear_node := as_linear(node)) is not None]
    # Alike: the same way from the constant to the kernel, and the same arrangement of outputs, inputs and window in it
    views = {
        (
            _source(linear.node).steps,
            linear.node.op_type in {"Gemm", "MatMul"} or linear.node.op_type,
            linear.shape,
            linear.groups,
            linear.transposed,
        )
        for linear in linear_nodes
    }
    first = linear_nodes[0]
    window = math.prod(first.shape[2:])
    shape = (first.groups, first.outputs // first.groups, first.inputs // first.groups, window)
    return Prunable(stored, nodes, shape, len(views) == 1)


def _source(node: ir.Node) -> weight_sources.ConstantOrigin:
    source = weight_sources.origin_of(node.inputs[1])
    if source is None:
        raise ValueError(f"{queries.site(node)} has no constant weight")
    return source


def _index(source: weight_sources.ConstantOrigin) -> NDArray[np.intp]:
    """Where in the flat constant each element lies of the tensor that the kernel reads."""
    # The numbers of the elements, through the same Transposes and Reshapes
    shape = tuple(source.tensor.shape.numpy())
    index = np.arange(math.prod(shape), dtype=np.intp).reshape(shape)
    without_casts = replace(source, path=tuple(node for node in source.path if node.op_type != "Cast"))
    return without_casts.applied_to(index)


def _first_and_last(main: ir.Graph) -> frozenset[ir.Node]:
    """The kernels of ``main`` that depend on no other kernel, and those on which no other depends."""
    nodes = list(traversal.in_order(main))
    kernels = {node for node in nodes if queries.is_standard(node, *OPS, *_RECURRENT) and _multiplies_constant(node)}
    # Forwards: a kernel of which no input depends on another kernel is a first one
    downstream: set[ir.Value] = set()
    first = set()
    for node in nodes:
        is_downstream = any(
            value in downstream for value in (*node.inputs, *traversal.captured(node)) if value is not None
        )
        if node in kernels and not is_downstream:
            first.add(node)
        if node in kernels or is_downstream:
            downstream.update(node.outputs)
    # Backwards: a kernel on whose outputs no other kernel depends is a last one
    upstream: set[ir.Value] = set()
    last = set()
    for node in reversed(nodes):
        is_upstream = any(value in upstream for value in node.outputs)
        if node in kernels and not is_upstream:
            last.add(node)
        if node in kernels or is_upstream:
            upstream.update(value for value in (*node.inputs, *traversal.captured(node)) if value is not None)
    return frozenset(first | last)


def _multiplies_constant(node: ir.Node) -> bool:
    return len(node.inputs) > 1 and weight_sources.origin_of(node.inputs[1]) is not None
