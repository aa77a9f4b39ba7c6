"""Operators that onnx calls deprecated in the version that a model imports, and still defines.

One with a function body, such as GroupNormalization before version 21, is expanded by runtimes that lack it, so ONNX
Runtime runs it. One without, such as Upsample since version 10 or Scatter since 11, was removed: nothing runs it. The
checker refuses both.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOMAIN = "onnxhone.deprecated"  # which the checker does not know, so that it lets its operators pass


def put_aside(model: onnx.ModelProto) -> str | None:
    """Hide the nodes of such operators from the checker, and check them here; what is wrong with one, if it is."""
    for owner, nodes in ((model, model.graph.node), *((function, function.node) for function in model.functions)):
        versions = {_plain(opset.domain): opset.version for opset in owner.opset_import}
        pending, hidden = [nodes], 0
        for graph in pending:  # grows while it is walked over
            for node in graph:
                for attribute in node.attribute:
                    pending.extend(graph.node for graph in (attribute.g, *attribute.graphs))
                schema = _schema(node, versions)
                if schema is None:
                    continue
                if (complaint := _misfit(node, schema)) is not None:
                    return complaint
                node.domain = _DOMAIN
                hidden += 1
        if hidden:
            owner.opset_import.add(domain=_DOMAIN, version=1)
    return None


def _schema(node: onnx.NodeProto, versions: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    domain = _plain(node.domain)
    return _deprecated(node.op_type, versions[domain], domain) if domain in versions else None


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


@cache
def _deprecated(op_type: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    """The schema of a deprecated operator that is defined by a function body; ``None`` for all others."""
    if not onnx.defs.has(op_type, domain):
        return None
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    has_body = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]  # onnx's stubs lack them
    return schema if schema.deprecated and has_body else None


def _misfit(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str | None:
    """What the checker would say about the inputs, outputs and attributes of ``node``."""
    context = f"==> Context: Bad node spec for node. Name: {node.name} OpType: {node.op_type}"
    bounds = (
        ("input", node.input, schema.min_input, schema.max_input),
        ("output", node.output, schema.min_output, schema.max_output),
    )
    for role, names, least, most in bounds:
        if not least <= len(names) <= most:
            return f"has {len(names)} {role}s, {least} to {most} are allowed {context}"
    present = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in present:
            return f"Required attribute '{name}' is missing {context}"
    unknown = present - set(schema.attributes)
    return f"Unrecognized attribute '{min(unknown)}' {context}" if unknown else None
