"""Free names: never one that is taken, never the same twice, and told before they are taken."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from optimizer.graph.graph_tree import GraphTree
from optimizer.graph.names import NameGenerator, first_few, names_in_use

NAMES = st.sampled_from(["a", "a_1", "a_2", "a_1_1", "b", "b.2", "a.2", "a.3", "", "_1"])


@given(st.lists(NAMES), st.lists(NAMES, max_size=12), st.sampled_from([{}, {"separator": ".", "first": 2}]))
def test_names_never_repeat_and_never_collide(taken, hints, form):
    names = NameGenerator(taken, **form)
    separator, first = form.get("separator", "_"), form.get("first", 1)
    used = set(taken)
    for hint in hints:
        previewed = names.preview(hint)
        assert names.preview(hint) == previewed, "a preview takes nothing"
        name = names.fresh(hint)
        assert name == previewed
        assert name not in used
        numbered = [f"{hint}{separator}{number}" for number in range(first, first + len(used) + 1)]
        assert name == next(each for each in [hint, *numbered] if each not in used), "the first that is free"
        used.add(name)
        assert names.count(name) == 1


@given(st.lists(NAMES), st.lists(NAMES, max_size=6))
def test_previews_of_several_names_are_those_that_are_taken_then(taken, hints):
    names = NameGenerator(taken)
    previewed: list[str] = []
    for hint in hints:
        previewed.append(names.preview(hint, previewed))
    assert [names.fresh(hint) for hint in hints] == previewed


@given(st.lists(st.tuples(st.booleans(), NAMES)))
def test_names_are_free_when_they_are_released_as_often_as_they_were_taken(steps):
    names, counts = NameGenerator(), dict.fromkeys((name for _, name in steps), 0)
    for is_taken, name in steps:
        if is_taken:
            assert names.take(name) == (counts[name] == 0)
            counts[name] += 1
        elif counts[name]:
            names.release(name)
            counts[name] -= 1
        assert names.count(name) == counts[name]
    assert all((names.preview(name) == name) == (count == 0) for name, count in counts.items())


MODEL = """<ir_version: 10, opset_import: ["" : 21]>
g (bool c, float[N] x) => (float[N] y) <float w = {1}> {
    [first] a = Add (x, w)
    y = If (c) <then_branch = t () => (float[N] r) { [inner] r = Neg(a) },
                else_branch = e () => (float[N] r) <float w = {2}> { r = Add(a, w) }>
}"""


def test_names_of_a_model_are_those_of_nodes_and_values_in_subgraphs_too():
    names = names_in_use(ir.from_onnx_text(MODEL))
    assert names >= {"c", "x", "y", "w", "a", "r", "first", "inner"}


def test_names_of_a_tree_are_those_of_values_and_counted_by_graph():
    names = GraphTree.of(ir.from_onnx_text(MODEL)).names
    assert {name: names.count(name) for name in ("x", "w", "r", "first")} == {"x": 1, "w": 2, "r": 2, "first": 0}


def test_of_many_names_the_first_are_told():
    assert first_few([]) == ""
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert first_few(["a", "b"], 1) == "a and 1 more"
