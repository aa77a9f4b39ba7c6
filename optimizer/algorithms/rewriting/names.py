"""Names that stand for one thing: a name for every node, none twice, and no value that hides another of its name.

Nodes share one set of names over the whole model. Values do so over the main graph and all of its subgraphs, and over
each function with its own: a call sees nothing of the names inside. Whoever comes first in the walk keeps its name;
inputs and outputs of the model and of functions come before all, then outer graphs before inner ones.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph import queries, traversal
from optimizer.graph.names import NameGenerator
from optimizer.graph.sparse import SparseTensor
from optimizer.io.protos import preserved

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED, RENAMED, VALUES_NAMED, VALUES_RENAMED = "nodes named", "nodes renamed", "values named", "values renamed"
_ANNOTATION = "quant_parameter_tensor_names"  # where onnx-ir keeps a quantization annotation, on a value's meta


def name_nodes(model: ir.Model) -> Counter[str]:
    """Give every node a name of its own, in subgraphs and functions too; returns what was done."""
    names, changes = NameGenerator(), Counter[str]()
    doubtful = [node for node in traversal.nodes(model) if not node.name or not names.take(node.name)]
    for node in doubtful:
        changes[RENAMED if node.name else NAMED] += 1
        node.name = names.fresh(node.name or _name_for(node))
    return changes


def name_values(model: ir.Model) -> Counter[str]:
    """Give every value a name of its own within the main graph, or function, that it is below."""
    changes: Counter[str] = Counter()
    for root in traversal.roots(model):
        changes.update(_name_values_below(root))
    return changes


def _name_for(node: ir.Node) -> str:
    output = next((value.name for value in node.outputs if value.name), "")
    return f"{node.op_type}_{output}" if output else node.op_type


def _name_values_below(root: ir.Graph) -> Counter[str]:
    names, changes = NameGenerator(), Counter[str]()
    doubtful: dict[ir.Graph, list[ir.Value]] = defaultdict(list)
    for graph, value in _values_below(root):
        if not (names.take(value.name) if value.name else not queries.has_uses(value)):
            doubtful[graph].append(value)
    for graph, values in doubtful.items():
        renamed: dict[str, str] = {}
        for value in values:
            old = value.name
            changes[VALUES_RENAMED if old else VALUES_NAMED] += 1
            rename(value, names.fresh(old or "value"))
            if old:
                renamed[old] = value.name or old
        _follow(graph, renamed)
    return changes


def _values_below(root: ir.Graph) -> Iterator[tuple[ir.Graph, ir.Value]]:
    """Every value once with the graph that it is in, those whose names must stay first."""
    seen: set[ir.Value] = set()
    borders = ((root, value) for value in (*root.inputs, *root.outputs))
    inside = ((graph, value) for graph in traversal.with_subgraphs(root) for value in _held(graph))
    for graph, value in itertools.chain(borders, inside):
        if value not in seen:
            seen.add(value)
            yield graph, value


def _held(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def rename(value: ir.Value, name: str) -> None:
    """Call ``value`` by ``name``; its tensor, which clones of the model share, keeps its own name there."""
    tensor = value.const_value
    value.const_value = None
    value.name = name
    value.const_value = None if tensor is None else _called(tensor, name)


def _called(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """A tensor over the same data with another name."""
    if isinstance(tensor, SparseTensor):  # is written by the name of its value
        return tensor
    if isinstance(tensor, ir.ExternalTensor):
        twin = copy.copy(tensor)
        twin.name = name
        return twin
    props = dict(tensor.metadata_props)
    if isinstance(tensor, ir.StringTensor):
        texts, shape = tensor.string_data(), ir.Shape(tensor.shape.numpy())
        return ir.StringTensor(texts, shape=shape, name=name, doc_string=tensor.doc_string, metadata_props=props)
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name, doc_string=tensor.doc_string, metadata_props=props)


def _follow(graph: ir.Graph, renamed: dict[str, str]) -> None:
    """Let what speaks of values of ``graph`` by name speak of them by their new names."""
    preserved.rename(graph, renamed)
    for value in _held(graph):
        spoken_of = value.meta.get(_ANNOTATION) or {}
        if not renamed.keys().isdisjoint(spoken_of.values()):
            value.meta[_ANNOTATION] = {key: renamed.get(name, name) for key, name in spoken_of.items()}
