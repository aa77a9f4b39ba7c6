"""Remove what no output needs: nodes, outputs of nodes, initializers, functions, imported operator sets.

Nodes without any output stay, whatever they are there for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from optimizer import graph
from optimizer.algorithms.rewriting.unused_outputs import remove_unused_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from optimizer.contract.passes import Sites, Step


def remove_dead(model: ir.Model, step: Step, sites: Sites) -> Mapping[str, int]:
    """Remove it all; returns the changes by kind."""
    changes: Counter[str] = Counter()
    changes["unused nodes"] += _remove_nodes(model, step, sites)
    changes["unused outputs"] += remove_unused_outputs(model, step, sites)
    if changes["unused outputs"]:
        changes["unused nodes"] += _remove_nodes(model, step, sites)
    for scope in graph.graphs(model):
        for name, value in list(scope.initializers.items()):
            is_dead = not graph.has_uses(value) and not value.is_graph_input()
            if is_dead and sites.permits(step.name, name):
                del scope.initializers[name]
                changes["unused initializers"] += 1
    changes["unused functions"] += _remove_functions(model)
    changes["unused imports"] += _remove_imports(model)
    return {kind: count for kind, count in changes.items() if count}


def _remove_nodes(model: ir.Model, step: Step, sites: Sites) -> int:
    dead = [
        node
        for node in graph.nodes(model)
        if node.outputs and not any(map(graph.has_uses, node.outputs)) and sites.permits(step.name, graph.site(node))
    ]
    return graph.remove_unused(dead)


def _remove_functions(model: ir.Model) -> int:
    called: set[tuple[str, str, str]] = set()
    waiting = [model.graph]
    while waiting:
        for scope in graph.with_subgraphs(waiting.pop()):
            for node in scope:
                key = node.op_identifier()
                if key in model.functions and key not in called:
                    called.add(key)
                    waiting.append(model.functions[key].graph)
    unused = [key for key in model.functions if key not in called]
    for key in unused:
        del model.functions[key]
    return len(unused)


def _remove_imports(model: ir.Model) -> int:
    used = {node.domain for node in graph.nodes(model)} | {key[0] for key in model.functions} | {"", "ai.onnx"}
    unused = [domain for domain in model.opset_imports if domain not in used]
    for domain in unused:
        del model.opset_imports[domain]
    return len(unused)
