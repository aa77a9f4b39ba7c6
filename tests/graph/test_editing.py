"""Edits of a graph: what takes the place of a value goes by its name, with all that a file says of it."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from optimizer.graph import editing

CHAIN = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N] x) => (float[N] y, float[N] z) { a = Relu(x) b = Abs(x) c = Neg(a) y = Exp(a) z = Add(a, c) }"""
SAID = {"key": "said", "other": "too"}


def chain() -> dict[str, ir.Value]:
    """The values of a small model by name; something is said of ``a`` and of ``y``."""
    model = ir.from_onnx_text(CHAIN)
    values = {value.name: value for value in model.graph.inputs}
    values |= {node.outputs[0].name: node.outputs[0] for node in model.graph}
    for name in "ay":
        values[name].doc_string = f"about {name}"
        values[name].metadata_props.update(SAID)
        values[name].meta["annotation"] = name
        values[name].type, values[name].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N"])
    return values


def inputs(node: ir.Node) -> list[str | None]:
    return [value.name for value in node.inputs]


def said_of(value: ir.Value) -> tuple:
    return value.name, value.type, value.shape, value.doc_string, dict(value.metadata_props), dict(value.meta)


@pytest.mark.parametrize("name", ["a", "y"])
def test_all_that_is_said_of_a_value_is_said_of_what_takes_its_place(name):
    values = chain()
    old, new = values[name], values["b"]
    new.metadata_props["own"] = "stays"
    before = said_of(old)
    editing.replace_under_its_name(new, old)
    assert said_of(new) == (*before[:4], {"own": "stays", **before[4]}, before[5])
    assert said_of(old) == ("b", before[1], before[2], None, {}, {})
    assert not old.uses()
    assert not old.is_graph_output()


def test_users_and_graph_outputs_move():
    values = chain()
    graph = values["y"].graph
    editing.replace_under_its_name(values["b"], values["a"])
    assert [inputs(values[name].producer()) for name in "cyz"] == [["a"], ["a"], ["a", "c"]]
    assert values["b"].name == "a"
    editing.replace_under_its_name(values["c"], values["y"])
    assert [value.name for value in graph.outputs] == ["y", "z"]
    assert graph.outputs[0] is values["c"]


def test_what_computes_the_new_value_may_still_read_the_old_one():
    values = chain()
    old, new = values["a"], values["c"]
    editing.replace_under_its_name(new, old, [use for use in old.uses() if use.node is not new.producer()])
    assert new.name == "a"
    assert inputs(new.producer()) == ["c"]
    assert new.producer().inputs[0] is old
    assert inputs(values["z"].producer()) == ["a", "a"]


def test_a_bypassed_graph_output_hands_over_all_of_it_and_another_value_nothing():
    values = chain()
    before = said_of(values["y"])
    assert editing.bypass(values["y"].producer(), values["b"])
    assert said_of(values["b"]) == before
    values = chain()
    assert editing.bypass(values["a"].producer(), values["b"])
    assert said_of(values["b"]) == ("b", values["a"].type, values["a"].shape, None, {}, {})


def test_a_copy_of_a_node_has_what_the_node_has():
    node = ir.node("Split", [ir.Value(name="x")], {"num_outputs": 2}, num_outputs=2, name="split")
    node.doc_string = "in halves"
    node.metadata_props["key"] = "said"
    twin = editing.copy_of_node(node, node.inputs, ["left", None])
    assert (twin.op_type, twin.name, twin.doc_string) == ("Split", "split", "in halves")
    assert (twin.metadata_props, twin.attributes) == (node.metadata_props, node.attributes)
    assert [value.name for value in twin.outputs] == ["left", None]
    assert twin.graph is None
