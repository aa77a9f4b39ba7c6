"""Remove outputs that nobody reads: optional ones, those of If with their branches', and those of Loop with its body's.

The outputs of a node cannot be taken out of its middle in onnx-ir, so If and Loop get a successor with fewer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer import graph

if TYPE_CHECKING:
    from collections.abc import Collection, MutableSequence, Sequence

    from optimizer.contract.passes import Sites, Step

_NEVER = frozenset({"BatchNormalization"})  # how many outputs it has says whether it trains
_FIXED_BODY_INPUTS, _FIXED_BODY_OUTPUTS, _FIXED_LOOP_INPUTS = 2, 1, 2


def remove_unused_outputs(model: ir.Model, step: Step, sites: Sites) -> int:
    """Remove unused outputs of all nodes; returns how many."""
    removed = 0
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        opset = graph.opset_version(model if root is model.graph else root)
        for scope in list(graph.with_subgraphs(root)):
            for node in list(scope):
                used = [graph.has_uses(output) for output in node.outputs]
                if node.domain not in graph.STANDARD_DOMAINS or all(used) or not any(used):
                    continue
                unused = _removable(node, opset)
                if unused and sites.permits(step.name, graph.site(node)):
                    removed += len(unused)
                    _remove(node, unused)
    return removed


def _removable(node: ir.Node, opset: int) -> list[int]:
    """The outputs of ``node`` that can go."""
    match node.op_type:
        case "If" | "Loop" if graph.has_references(node):
            return []
        case "If":
            return _unused_of_if(node)
        case "Loop":
            return _unused_of_loop(node)
    return _unused_optional(node, opset)


def _remove(node: ir.Node, unused: Sequence[int]) -> None:
    if node.op_type in {"If", "Loop"}:
        _drop(node, unused)
        return
    for index in unused:
        node.outputs[index].name = ""
    node.resize_outputs(max(index + 1 for index, output in enumerate(node.outputs) if output.name))


def _unused_optional(node: ir.Node, opset: int) -> list[int]:
    optional = () if node.op_type in _NEVER else _optional_outputs(node.op_type, opset)
    if len(node.outputs) > len(optional):
        return []
    pairs = enumerate(zip(node.outputs, optional, strict=False))
    return [index for index, (output, may_go) in pairs if may_go and output.name and not graph.has_uses(output)]


@lru_cache(maxsize=1024)
def _optional_outputs(op_type: str, opset: int) -> tuple[bool, ...]:
    """Which outputs of an operator are optional; none if it has any number of them."""
    try:
        outputs = onnx.defs.get_schema(op_type, opset, "").outputs
    except onnx.defs.SchemaError:
        return ()
    kinds = [output.option for output in outputs]
    if onnx.defs.OpSchema.FormalParameterOption.Variadic in kinds:
        return ()
    return tuple(kind == onnx.defs.OpSchema.FormalParameterOption.Optional for kind in kinds)


def _unused(node: ir.Node) -> list[int]:
    return [index for index, output in enumerate(node.outputs) if not graph.has_uses(output)]


def _unused_of_if(node: ir.Node) -> list[int]:
    branches = list(graph.subgraphs_of(node))
    return _unused(node) if len(branches) == 2 and all(len(b.outputs) == len(node.outputs) for b in branches) else []


def _unused_of_loop(node: ir.Node) -> list[int]:
    """Scan outputs, and carried values that nothing in the body reads."""
    bodies = list(graph.subgraphs_of(node))
    carried = len(node.inputs) - _FIXED_LOOP_INPUTS
    if len(bodies) != 1 or carried < 0 or len(bodies[0].inputs) != carried + _FIXED_BODY_INPUTS:
        return []
    if len(bodies[0].outputs) != len(node.outputs) + _FIXED_BODY_OUTPUTS:
        return []
    read = [graph.has_uses(value) for value in bodies[0].inputs[_FIXED_BODY_INPUTS:]]
    return [index for index in _unused(node) if index >= carried or not read[index]]


def _drop(node: ir.Node, unused: Sequence[int]) -> None:
    """Put a node without the outputs ``unused`` in the place of ``node``."""
    gone = set(unused)
    if node.op_type == "Loop":
        (body,) = graph.subgraphs_of(node)
        carried = len(node.inputs) - _FIXED_LOOP_INPUTS
        _keep(body.outputs, {index + _FIXED_BODY_OUTPUTS for index in gone})
        _keep(body.inputs, {index + _FIXED_BODY_INPUTS for index in gone if index < carried})
        inputs = [value for index, value in enumerate(node.inputs) if index - _FIXED_LOOP_INPUTS not in gone]
    else:
        for branch in graph.subgraphs_of(node):
            _keep(branch.outputs, gone)
        inputs = list(node.inputs)
    _succeed(node, inputs, [output for index, output in enumerate(node.outputs) if index not in gone])


def _keep(values: MutableSequence[ir.Value], gone: Collection[int]) -> None:
    kept = [value for index, value in enumerate(values) if index not in gone]
    values.clear()
    values.extend(kept)


def _succeed(node: ir.Node, inputs: list[ir.Value | None], outputs: list[ir.Value]) -> None:
    scope = node.graph
    if scope is None:
        raise ValueError(f"{graph.site(node)} belongs to no graph")
    successor = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes.data,
        num_outputs=len(outputs),
        name=node.name or "",
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    for old, new in zip(outputs, successor.outputs, strict=True):
        new.name, old.name = old.name, None
        new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
        new.metadata_props.update(old.metadata_props)
    scope.insert_before(node, successor)
    for old, new in zip(outputs, successor.outputs, strict=True):
        if old.is_graph_output():
            graph.replace_graph_output(old, new)
    graph.replace_values(dict(zip(outputs, successor.outputs, strict=True)))
    graph.set_inputs(node, [None] * len(node.inputs))
    scope.remove(node)
