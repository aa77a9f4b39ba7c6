"""Rows of the tables of a rule: what it rewrites, and to what, and what it leaves as it is.

Both are models in ONNX text, small enough to be seen. A rewrite has to come to exactly the nodes, attributes and
constants of the text that is expected (names of what is neither input nor output are free), to answer as before in ONNX
Runtime, and not to happen where the pass manager denies it. A no-op has to leave the model as it is, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule, sweep
from optimizer.contract.passes import Sites
from optimizer.graph import editing, traversal
from rewriting import assert_close, built, feeds_for, outputs, swept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_SEEDS = (0, 1)


@dataclass(frozen=True)
class Row:
    """A small model that a rule is tried on.

    Attributes:
        name: What the row shows; the id of its test. After the name of a rule and a colon, it is for that rule alone.
        graph: Inputs, outputs and, in angle brackets, the initializers, as ONNX text.
        body: The nodes, as ONNX text; initializers in angle brackets before them join those of ``graph``.
        opset: The version of the standard operators.
        functions: Functions of the domain ``f``, as ONNX text.
        arrays: Initializers too large for the text; ``graph`` lists them as inputs.
        ir_version: That of the model.
    """

    name: str
    graph: str
    body: str
    opset: int = 17
    functions: str = ""
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    ir_version: int = 8

    def model(self, body: str | None = None) -> onnx.ModelProto:
        """The model with the nodes ``body`` (default: those of the row), its shapes inferred."""
        signature, declared = _initializers(self.graph, at_end=True)
        nodes, added = _initializers(self.body if body is None else body, at_end=False)
        initializers = {
            name: item for name, item in (declared | added).items() if re.search(rf"\b{name}\b", f"{signature} {nodes}")
        }
        imports = f'"" : {self.opset}' + (', "f" : 1' if self.functions else "")
        listed = f"<{', '.join(initializers.values())}>" if initializers else ""
        text = f"<ir_version: {self.ir_version}, opset_import: [{imports}]> g {signature} {listed} {{ {nodes} }}"
        model = built(f"{text} {self.functions}", self.arrays)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16 and tensor.int32_data:  # the parser takes numbers for bits
                array = np.array(tensor.int32_data, np.float16).reshape(tuple(tensor.dims))
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return model

    def rules(self, rules: Sequence[Rule]) -> list[Rule]:
        """Those of ``rules`` that the row is for."""
        return [rule for rule in rules if self.name.startswith(f"{rule.name}: ")] or list(rules)


@dataclass(frozen=True)
class NoOp(Row):
    """A model that stays as it is."""


@dataclass(frozen=True)
class Rewrite(Row):
    """A model that becomes another one.

    Attributes:
        after: The nodes afterwards, as ``body``; an initializer replaces the one of its name.
        sizes: Sizes of symbolic dimensions; others are 2.
        functions_after: The functions afterwards; default: as before.
    """

    after: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    functions_after: str = ""


def function(text: str, opset: int = 17) -> str:
    """The function ``text`` of the domain ``f``."""
    return f'<domain: "f", opset_import: ["" : {opset}]> {text}'


def branches(kind: str, then: str, other: str) -> str:
    """``y`` of the type ``kind``: ``s`` of the nodes ``then`` if ``c`` holds, else ``r`` of the nodes ``other``."""
    return f"y = If(c) <then_branch = t () => ({kind} s) {{ {then} }}, else_branch = e () => ({kind} r) {{ {other} }}>"


def check_rewrite(row: Rewrite, rules: Sequence[Rule], *, run: bool = True) -> None:
    """Hold that a rule of ``rules`` makes of the model what ``row`` says, that this is right, and can be denied.

    Args:
        row: The row.
        rules: The rules of its file.
        run: Whether both models are run in ONNX Runtime; where what comes of it is as the row says, once is enough.
    """
    before = row.model()
    model = ir.from_proto(before)
    assert swept(model, row.rules(rules)), "no rule applied"
    editing.remove_unused(list(traversal.nodes(model)))  # as the pass does after its rules
    swept(model, [])
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    wanted = type(row)(**{**vars(row), "functions": row.functions_after or row.functions}).model(row.after)
    assert described(after) == described(wanted)
    assert [v.SerializeToString() for v in after.graph.output] == [v.SerializeToString() for v in before.graph.output]
    if run:
        _assert_equal_outputs(before, after, row.sizes)
    _assert_deniable(before, row.rules(rules))
    del before.graph.value_info[:], after.graph.value_info[:]
    assert after.ByteSize() <= before.ByteSize()


def check_no_op(row: NoOp, rules: Sequence[Rule]) -> None:
    """Hold that no rule of ``rules`` changes the model of ``row``."""
    model = ir.from_proto(row.model())
    before = ir.to_proto(model)
    assert not sweep(model, row.rules(rules), Sites())
    after = ir.to_proto(model)
    assert described(after) == described(before)
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


def _assert_equal_outputs(before: onnx.ModelProto, after: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    for seed in _SEEDS:
        feeds = feeds_for(before, sizes, seed)
        for optimize in (False, True):
            wanted, answers = (outputs(model, feeds, optimize=optimize) for model in (before, after))
            for expected, answer in zip(wanted, answers, strict=True):
                assert_close(expected, answer)


def _assert_deniable(before: onnx.ModelProto, rules: Sequence[Rule]) -> None:
    """Hold that nothing is changed where nothing is permitted."""
    model = ir.from_proto(before)
    untouched = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not sweep(model, rules, Sites(only={rule.name: frozenset() for rule in rules}))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == untouched


def described(model: onnx.ModelProto) -> list[str]:
    """The nodes of ``model``, a line each: constants by their contents, inner values by number, attributes sorted."""
    names = {"": ""}
    lines = list(_graph_lines(model.graph, names, ""))
    for function in model.functions:
        inner = {"": "", **{name: name for name in (*function.input, *function.output)}}
        lines += [f"function {function.name}", *_node_lines(function.node, inner, "  ")]
    return lines


def _graph_lines(graph: onnx.GraphProto, names: dict[str, str], indent: str) -> Iterator[str]:
    inputs = [value.name for value in graph.input]
    names.update({value.name: value.name for value in (*graph.input, *graph.output)} if not indent else {})
    names.update({name: f"{indent}in{index}" for index, name in enumerate(inputs)} if indent else {})
    for tensor in graph.initializer:
        content = _content(tensor)
        names[tensor.name] = f"{tensor.name}={content}" if tensor.name in inputs else content
    yield from _node_lines(graph.node, names, indent)
    yield f"{indent}gives out {', '.join(names[value.name] for value in graph.output)}"


def _node_lines(nodes: Sequence[onnx.NodeProto], names: dict[str, str], indent: str) -> Iterator[str]:
    for node in nodes:
        read = [names[name] for name in node.input]
        for name in node.output:
            names.setdefault(name, f"%{sum(each.startswith('%') for each in names.values())}")
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        listed = ", ".join(f"{a.name}={_attribute(a)}" for a in attributes if not a.HasField("g"))
        results = ", ".join(names[name] for name in node.output)
        yield f"{indent}{results} = {node.domain}{node.op_type}<{listed}>({', '.join(read)})"
        for attribute in attributes:
            if attribute.HasField("g"):
                yield f"{indent}{attribute.name}:"
                yield from _graph_lines(attribute.g, names, indent + "  ")


def _attribute(attribute: onnx.AttributeProto) -> str:
    if attribute.ref_attr_name:
        return f"@{attribute.ref_attr_name}"
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _content(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _content(tensor: onnx.TensorProto) -> str:
    array = onnx.numpy_helper.to_array(tensor)
    numbers = ", ".join(f"{x:.5g}" if array.dtype.kind == "f" else str(x) for x in array.ravel()[:64].tolist())
    return f"{array.dtype}{list(array.shape)}{{{numbers}}}"


def _initializers(text: str, *, at_end: bool) -> tuple[str, dict[str, str]]:
    """``text`` without the list of initializers in angle brackets, and that list by name."""
    match = re.fullmatch(r"(.*\))\s*<([^<>]*)>\s*" if at_end else r"\s*<([^<>]*)>(.*)", text, re.DOTALL)
    if match is None:
        return text, {}
    rest, listed = match.groups() if at_end else reversed(match.groups())
    items = re.findall(r"[^,{}]+(?:\[[^\]]*\][^,{}]*)?=\s*\{[^}]*\}", listed.replace("\n", " "))
    return rest, {re.split(r"[\s=]+", item.strip().split("=")[0].strip())[-1]: item.strip() for item in items}
