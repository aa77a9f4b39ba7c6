"""Remove what no output needs: nodes, outputs of nodes, initializers, functions, imported operator sets.

Nodes without any output stay, whatever they are there for.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

import onnx

from optimizer.graph import editing, queries, traversal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, MutableSequence, Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Sites, Step


def remove_dead(model: ir.Model, step: Step, sites: Sites) -> Mapping[str, int]:
    """Remove it all; returns the changes by kind."""
    changes: Counter[str] = Counter()
    changes["unused nodes"] += _remove_nodes(model, step, sites)
    changes["unused outputs"] += remove_unused_outputs(model, step, sites)
    if changes["unused outputs"]:
        changes["unused nodes"] += _remove_nodes(model, step, sites)
    for graph in traversal.graphs(model):
        for name, value in list(graph.initializers.items()):
            is_dead = not queries.has_uses(value) and not value.is_graph_input()
            if is_dead and sites.permits(step.name, name):
                del graph.initializers[name]
                changes["unused initializers"] += 1
    changes["unused functions"] += _remove_functions(model)
    changes["unused imports"] += _remove_imports(model)
    return {change: count for change, count in changes.items() if count}


def _remove_nodes(model: ir.Model, step: Step, sites: Sites) -> int:
    dead = [
        node
        for node in traversal.nodes(model)
        if node.outputs
        and not any(map(queries.has_uses, node.outputs))
        and sites.permits(step.name, queries.site(node))
    ]
    return editing.remove_unused(dead)


def _remove_functions(model: ir.Model) -> int:
    called: set[tuple[str, str, str]] = set()
    waiting = [model.graph]
    while waiting:
        for graph in traversal.with_subgraphs(waiting.pop()):
            for node in graph:
                key = node.op_identifier()
                if key in model.functions and key not in called:
                    called.add(key)
                    waiting.append(model.functions[key].graph)
    unused = [key for key in model.functions if key not in called]
    for key in unused:
        del model.functions[key]
    return len(unused)


def _remove_imports(model: ir.Model) -> int:
    used = {node.domain for node in traversal.nodes(model)} | {key[0] for key in model.functions} | {"", "ai.onnx"}
    unused = [domain for domain in model.opset_imports if domain not in used]
    for domain in unused:
        del model.opset_imports[domain]
    return len(unused)


_NEVER = frozenset({"BatchNormalization"})  # how many outputs it has says whether it trains


_FIXED_BODY_INPUTS, _FIXED_BODY_OUTPUTS, _FIXED_LOOP_INPUTS = 2, 1, 2


def remove_unused_outputs(model: ir.Model, step: Step, sites: Sites) -> int:
    """Remove unused outputs of all nodes; returns how many."""
    removed = 0
    for root in traversal.roots(model):
        opset = queries.opset_version(model if root is model.graph else root)
        for graph in list(traversal.with_subgraphs(root)):
            for node in list(graph):
                used = [queries.has_uses(output) for output in node.outputs]
                if node.domain not in queries.STANDARD_DOMAINS or all(used) or not any(used):
                    continue
                unused = _removable(node, opset)
                if unused and sites.permits(step.name, queries.site(node)):
                    removed += len(unused)
                    _remove(node, unused)
    return removed


def _removable(node: ir.Node, opset: int) -> list[int]:
    """The outputs of ``node`` that can go."""
    match node.op_type:
        case "If" | "Loop" if queries.has_references(node):
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
    return [index for index, (output, may_go) in pairs if may_go and output.name and not queries.has_uses(output)]


@lru_cache(maxsize=1024)
def _optional_outputs(op_type: str, opset: int) -> tuple[bool, ...]:
    """Which outputs of an operator are optional; none if it has any number of them."""
    try:
        outputs = onnx.defs.get_schema(op_type, opset, "").outputs
    except onnx.defs.SchemaError:
        return ()
    options = [output.option for output in outputs]
    if onnx.defs.OpSchema.FormalParameterOption.Variadic in options:
        return ()
    return tuple(option == onnx.defs.OpSchema.FormalParameterOption.Optional for option in options)


def _unused(node: ir.Node) -> list[int]:
    return [index for index, output in enumerate(node.outputs) if not queries.has_uses(output)]


def _unused_of_if(node: ir.Node) -> list[int]:
    branches = list(traversal.subgraphs_of(node))
    return _unused(node) if len(branches) == 2 and all(len(b.outputs) == len(node.outputs) for b in branches) else []


def _unused_of_loop(node: ir.Node) -> list[int]:
    """Scan outputs, and carried values that nothing in the body reads."""
    bodies = list(traversal.subgraphs_of(node))
    carried = len(node.inputs) - _FIXED_LOOP_INPUTS
    if len(bodies) != 1 or carried < 0 or len(bodies[0].inputs) != carried + _FIXED_BODY_INPUTS:
        return []
    if len(bodies[0].outputs) != len(node.outputs) + _FIXED_BODY_OUTPUTS:
        return []
    read = [queries.has_uses(value) for value in bodies[0].inputs[_FIXED_BODY_INPUTS:]]
    return [index for index in _unused(node) if index >= carried or not read[index]]


def _drop(node: ir.Node, unused: Sequence[int]) -> None:
    """Put a node without the outputs ``unused`` in the place of ``node``."""
    gone = set(unused)
    if node.op_type == "Loop":
        (body,) = traversal.subgraphs_of(node)
        carried = len(node.inputs) - _FIXED_LOOP_INPUTS
        _keep(body.outputs, {index + _FIXED_BODY_OUTPUTS for index in gone})
        _keep(body.inputs, {index + _FIXED_BODY_INPUTS for index in gone if index < carried})
        inputs = [value for index, value in enumerate(node.inputs) if index - _FIXED_LOOP_INPUTS not in gone]
    else:
        for branch in traversal.subgraphs_of(node):
            _keep(branch.outputs, gone)
        inputs = list(node.inputs)
    _succeed(node, inputs, [output for index, output in enumerate(node.outputs) if index not in gone])


def _keep(values: MutableSequence[ir.Value], gone: Collection[int]) -> None:
    kept = [value for index, value in enumerate(values) if index not in gone]
    values.clear()
    values.extend(kept)


def _succeed(node: ir.Node, inputs: list[ir.Value | None], outputs: list[ir.Value]) -> None:
    graph = node.graph
    if graph is None:
        raise ValueError(f"{queries.site(node)} belongs to no graph")
    successor = editing.copy_of_node(node, inputs, [None] * len(outputs))
    graph.insert_before(node, successor)
    for old, new in zip(outputs, successor.outputs, strict=True):
        editing.replace_under_its_name(new, old)
    editing.set_inputs(node, [None] * len(node.inputs))
    graph.remove(node)
