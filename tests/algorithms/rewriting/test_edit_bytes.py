"""The bytes that an edit is said to save are those that it saves."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from optimizer.algorithms.rewriting import edit
from optimizer.algorithms.rewriting.edit import Edit, changed_form, form
from optimizer.algorithms.rewriting.edit_bytes import bytes_saved, grows, nodes_removed
from optimizer.algorithms.rewriting.replacement import ReplacementConstant
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Context, Sites
from optimizer.graph import file_size, queries, traversal
from optimizer.io.model import load
from passes.rules import transposes
from passes.simplify import Simplify
from random_graphs import GROUPS, graphs

EXAMPLES = int(os.environ.get("ONNXHONE_EXAMPLES") or 4)
LONG = "a_name_that_is_rather_long_for_what_it_stands_for"
ONE = np.array([1, 2], np.int64)


def size(model):
    """Bytes of all nodes, and of the initializers that have uses, as onnx-ir writes them."""
    total = 0
    for graph in traversal.graphs(model):
        for node in graph:
            written = file_size.field_bytes(ir.serde.serialize_node(node).ByteSize())
            total += file_size.node_bytes(node) if list(traversal.subgraphs_of(node)) else written
        for value in graph.initializers.values():
            if queries.has_uses(value) or value.is_graph_input():
                total += file_size.tensor_bytes(value.const_value, value.name)
    return total


def model_of(body, weights="", inputs="float[2,3] x", outputs="float[A,B] y", functions="", imports=""):
    head = f'<ir_version: 10, opset_import: ["": 20{imports}]>'
    return ir.from_onnx_text(f"{head} g ({inputs}) => ({outputs}) {weights} {{ {body} }} {functions}")


def node_of(model, output):
    return next(node for node in traversal.nodes(model) if node.outputs[0].name == output)


def value_of(model, name):
    initializers = model.graph.initializers
    return initializers[name] if name in initializers else node_of(model, name).outputs[0]


def said_and_saved(model, wanted):
    """What is said of an edit, and what it saves."""
    rewriter = Rewriter(model, Sites())
    before, said = size(model), bytes_saved(wanted, rewriter)
    edit.apply(wanted, rewriter)
    return said, before - size(model)


def reshaped(model, output, *constants):
    node = node_of(model, output)
    return Edit(forms={node: form("Reshape", [node.inputs[0], *constants])})


def test_a_new_constant_takes_a_name_that_is_free():
    model = model_of("s = Relu(x)  y = Flatten(s)")
    said, saved = said_and_saved(model, reshaped(model, "y", ReplacementConstant(ONE, "s")))
    assert said == saved < 0
    assert "s_1" in model.graph.initializers


def test_names_that_are_told_are_not_taken():
    model = model_of("s = Relu(x)  y = Flatten(s)")
    rewriter = Rewriter(model, Sites())
    wanted = reshaped(model, "y", ReplacementConstant(ONE, "s"))
    assert bytes_saved(wanted, rewriter) == bytes_saved(wanted, rewriter)
    assert rewriter.names.fresh("s") == "s_1"


def test_equal_new_constants_are_one_and_others_have_names_of_their_own():
    model = model_of(
        "y = Slice(x, a, b, c, d)", "<int64[1] a = {1}, int64[1] b = {2}, int64[1] c = {3}, int64[1] d = {4}>"
    )
    node = node_of(model, "y")
    arrays = [np.array([number], np.int64) for number in (7, 8, 7, 7)]
    new = changed_form(node, inputs=[node.inputs[0], *(ReplacementConstant(array, LONG) for array in arrays)])
    said, saved = said_and_saved(model, Edit(forms={node: new}))
    assert said == saved
    assert [value.name for value in node.inputs[1:]] == [LONG, f"{LONG}_1", LONG, LONG]


def test_a_constant_that_is_there_costs_its_name():
    model = model_of("a = Flatten(x)  y = Reshape(a, t)", f"<int64[2] t = {{6, 1}}, int64[2] {LONG} = {{1, 2}}>")
    model.graph.initializers[LONG].metadata_props["used"] = "by nothing"
    said, saved = said_and_saved(model, reshaped(model, "y", ReplacementConstant(ONE, "s")))
    assert said == saved, "one that had no uses, and would have gone, counts as new"
    assert node_of(model, "y").inputs[1].name == LONG


def test_a_constant_whose_data_changes_is_not_found_again():
    model = model_of("a = Mul(x, c)  y = Add(a, d)", "<float c = {2}, float d = {3}>")
    first, last = node_of(model, "a"), node_of(model, "y")
    new = {
        first: changed_form(
            first, inputs=[first.inputs[0], ReplacementConstant(np.float32([9])[0], "n", first.inputs[1])]
        ),
        last: changed_form(last, inputs=[last.inputs[0], ReplacementConstant(np.array(2, np.float32), "n")]),
    }
    said, saved = said_and_saved(model, Edit(forms=new))
    assert said == saved
    assert first.inputs[1].const_value.numpy() == 9
    assert last.inputs[1].const_value.numpy() == 2


def test_what_only_the_removed_nodes_read_goes_with_them():
    body = "a = Shape(x)  b = Cast <to = 7> (a)  c = Mul(b, k)  y = Reshape(x, c)"
    model = model_of(body, f"<int64 {LONG} = {{1}}>".replace(LONG, "k"))
    wanted = reshaped(model, "y", ReplacementConstant(ONE, "s"))
    assert {node.op_type for node in nodes_removed(wanted)} == {"Shape", "Cast", "Mul"}
    said, saved = said_and_saved(model, wanted)
    assert said == saved > 0
    assert [node.op_type for node in model.graph] == ["Reshape"]


def test_what_others_read_stays():
    model = model_of("a = Relu(x)  b = Neg(a)  y = Identity(b)  z = Abs(a)", outputs="float[2,3] y, float[2,3] z")
    said, saved = said_and_saved(model, edit.bypass(node_of(model, "y"), value_of(model, "b")))
    assert said == saved > 0


@pytest.mark.parametrize("name", ["s", LONG])
def test_users_read_the_other_name(name):
    body = f"{name} = Relu(x)  a = Identity({name})  b = Abs(a)  c = Neg(a)  d = Add(a, b)  y = Add(c, d)"
    model = model_of(body)
    wanted = edit.bypass(node_of(model, "a"), value_of(model, name))
    assert grows(wanted, Rewriter(model, Sites())) == (name == LONG)
    said, saved = said_and_saved(model, wanted)
    assert said == saved


def test_the_name_of_a_graph_output_is_taken_over():
    body = f"a = Relu(x)  b = Abs(a)  {LONG} = Identity(a)  c = Neg(a)  y = Add(b, c)"
    model = model_of(body, outputs=f"float[2,3] {LONG}, float[2,3] y")
    said, saved = said_and_saved(model, edit.bypass(node_of(model, LONG), value_of(model, "a")))
    assert said == saved
    assert node_of(model, LONG).op_type == "Relu"


def test_computed_values_become_constants_under_their_names():
    body = "a = Shape(x)  p, q = Split <axis = 0, num_outputs = 2> (a)  b = Reshape(x, p)  y = Reshape(b, q)"
    model = model_of(body)
    split = node_of(model, "p")
    arrays = {output: np.array([number], np.int64) for output, number in zip(split.outputs, (2, 3), strict=True)}
    said, saved = said_and_saved(model, Edit(computed=arrays))
    assert said == saved > 0


def test_other_data_of_a_constant_stays_sparse_where_it_was():
    dense = np.zeros((100, 100), np.float32)
    dense[3, 4] = dense[5, 6] = 1
    model = model_of("y = MatMul(x, w)", inputs="float[2,100] x")
    from optimizer.graph.tensors import listed  # noqa: PLC0415 - here alone

    weight = ir.Value(name="w", const_value=listed(ir.tensor(dense), "w"))
    node = node_of(model, "y")
    model.graph.register_initializer(weight)
    node.replace_input_with(1, weight)
    assert said_and_saved(model, Edit(data={weight: 2 * dense})) == (0, 0)
    said, saved = said_and_saved(model, Edit(data={weight: dense + 1}))
    assert said == saved < -30000


def test_a_function_gets_constant_nodes():
    function = '<domain: "f", opset_import: ["": 20]> F (a) => (b) { c = Relu(a)  b = Flatten(c) }'
    model = model_of("y = f.F(x)", functions=function, imports=', "f": 1')
    said, saved = said_and_saved(model, reshaped(model, "b", ReplacementConstant(ONE, "s")))
    assert said == saved < 0
    assert [node.op_type for node in next(iter(model.functions.values()))] == ["Relu", "Constant", "Reshape"]


def test_a_subgraph_that_grows_may_need_longer_lengths_around_it():
    then, other = "{ a = Relu(x)  b = Identity(a)  t = Neg(b) }", "{ u = Mul(x, k) }"
    body = f"y = If(c) <then_branch = g1 () => (float[2,3] t) {then}, else_branch = g2 () => (float[2,3] u) {other}>"
    model = model_of(body, "<float[1] k = {7}>", inputs="float[2,3] x, bool c")
    node = node_of(model, "t")
    new = form("Add", [node.inputs[0], model.graph.initializers["k"]])
    said, saved = said_and_saved(model, Edit(forms={node: new}))
    assert said == saved - 3, "at most one byte for each of the graph, the attribute and the node"


class Ledger(Counter):
    """Rewrites by rule and by whether they saved what was said."""

    def __init__(self, monkeypatch):
        super().__init__()
        apply, move, count = edit.apply, transposes._apply, transposes.bytes_saved
        said = {}

        def applied(wanted, rewriter):
            said_of_it, before = bytes_saved(wanted, rewriter), size(rewriter.model)
            outputs = [*(node.outputs for node in wanted.forms), *([value] for value in wanted.bypassed)]
            is_live = all(any(map(queries.has_uses, values)) for values in outputs)
            apply(wanted, rewriter)
            self["edit" if is_live else "edit of an unused node", before - size(rewriter.model) - said_of_it] += 1

        def counted(plan, rewriter):
            said[id(plan)] = count(plan, rewriter)
            return said[id(plan)]

        def moved(plan, rewriter):
            before = size(rewriter.model)
            move(plan, rewriter)
            self["move", before - size(rewriter.model) - said[id(plan)]] += 1

        monkeypatch.setattr(edit, "apply", applied)
        monkeypatch.setattr(transposes, "bytes_saved", counted)
        monkeypatch.setattr(transposes, "_apply", moved)


@pytest.mark.parametrize("group", GROUPS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_no_rule_saves_less_than_it_says(group, data):
    proto, _ = data.draw(graphs(group))
    with pytest.MonkeyPatch.context() as monkeypatch:
        ledger = Ledger(monkeypatch)
        model = load(proto)
        Simplify().run(model, Context(reference=model))
    note(str(ledger))
    assert all(more == 0 for kind, more in ledger if kind == "edit")
    assert all(more >= 0 for _, more in ledger)
