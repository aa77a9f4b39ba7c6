"""Constant targets of Reshape: they work wherever the computed ones do, at dimensions of 0 too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from optimizer.contract.passes import Context
from optimizer.io.model import load, to_proto
from passes.simplify import Simplify
from rewriting import assert_close, feeds_for, ops, outputs

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
SIZES = (0, 1, 3)


def simplified(text):
    proto = onnx.parser.parse_model(HEAD + text)
    onnx.checker.check_model(proto, full_check=True)
    model = load(proto)
    return proto, Simplify().run(model, Context(reference=model)).model


def answers(proto, dims, *, optimize):
    """What the model answers, or ``None`` where it fails."""
    try:
        return outputs(proto, feeds_for(proto, dims), optimize=optimize)
    except Exception as error:
        if "reshape" not in str(error).lower():
            raise
        return None


def as_declared(proto, answer, dims):
    """Whether the outputs have the shapes that the model says: a target that comes to 0 by chance keeps another one."""
    for value, array in zip(proto.graph.output, answer, strict=True):
        said = [dim.dim_value or dims.get(dim.dim_param) for dim in value.type.tensor_type.shape.dim]
        if any(one is not None and one != other for one, other in zip(said, array.shape, strict=True)):
            return False
    return True


def holds(before, after, names="NS"):
    """Wherever ``before`` has an answer, ``after`` has the same; returns at how many sizes that is."""
    count, proto = 0, to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    for sizes in np.ndindex(*[len(SIZES)] * len(names)):
        dims = {name: SIZES[index] for name, index in zip(names, sizes, strict=True)}
        for optimize in (False, True):
            wanted = answers(before, dims, optimize=optimize)
            if wanted is None or not as_declared(before, wanted, dims):
                continue
            count += 1
            for one, other in zip(wanted, answers(proto, dims, optimize=optimize), strict=True):
                assert_close(one, other)
    return count


def target(model, output="y"):
    """The constant target of the Reshape that gives ``output``, if it is one."""
    node = next(value for value in model.graph.outputs if value.name == output).producer()
    found = node.inputs[1].const_value
    return None if found is None else found.numpy().tolist()


KEPT = "n = Shape<start=0, end=1>(x) s = Shape<start=1, end=2>(x) "
CONSTANTS = "<int64[1] m = {-1}, int64[1] four = {4}, int64[1] two = {2}>"


def test_a_dimension_is_not_found_where_another_one_may_be_0():
    text = f"g (float[N,S,4] x) => (float[N,2,S,2] y) {CONSTANTS} {{{KEPT} t = Concat<axis=0>(n, two, s, two) "
    before, after = simplified(text + "y = Reshape(x, t) }")
    assert "Concat" in ops(after)
    assert holds(before, after) == 12


LIVE = "u = Concat<axis=0>(n, m) z = Reshape(x, u) "


@pytest.mark.parametrize(
    ("evidence", "gives", "expected", "count"),
    [
        (LIVE, True, [0, 2, -1, 2], 8),
        (LIVE, False, None, 8),  # nobody needs it, so it need not run
        (LIVE.replace("Reshape(", "Reshape<allowzero=1>("), True, None, 12),  # does not fail at 0
    ],
)
def test_a_dimension_is_found_where_another_reshape_fails_at_0(evidence, gives, expected, count):
    outputs_ = "float[N,2,S,2] y, float[N,M] z" if gives else "float[N,2,S,2] y"
    body = f"{evidence} {KEPT} t = Concat<axis=0>(n, two, s, two) y = Reshape(x, t)"
    body = f"n0 = Shape<start=0, end=1>(x) {body}".replace("Concat<axis=0>(n, m)", "Concat<axis=0>(n0, m)")
    before, after = simplified(f"g (float[N,S,4] x) => ({outputs_}) {CONSTANTS} {{ {body} }}")
    assert target(after) == expected
    assert holds(before, after) == count


def test_what_runs_in_a_branch_says_nothing_about_the_graph_around_it():
    branch = "{name} () => (float[A,B] {out}) {{ {out} = Reshape(x, {target}) }}"
    text = (
        "g (float[N,S,4] x, bool c) => (float[N,2,S,2] y, float[A,B] z)"
        f" <int64[1] two = {{2}}, int64[2] a = {{0, -1}}, int64[2] b = {{-1, 4}}> {{{KEPT}"
        "t = Concat<axis=0>(n, two, s, two) y = Reshape(x, t) z = If(c) <then_branch = "
        + branch.format(name="p", out="q", target="a")
        + ", else_branch = "
        + branch.format(name="r", out="w", target="b")
        + "> }"
    )
    before, after = simplified(text)
    assert "Concat" in ops(after)
    assert holds(before, after) > 0


def test_a_minus_one_that_is_0_tolerant_becomes_no_other():
    text = f"g (float[N,S,4] x) => (float[N,M,2] y) {CONSTANTS} {{{KEPT} t = Concat<axis=0>(n, m, two) "
    before, after = simplified(text + "y = Reshape<allowzero=1>(x, t) }")
    assert holds(before, after) == 18


def test_a_minus_one_whose_dimension_is_known_is_not_needed():
    text = f"g (float[N,6,4] x) => (float[N,6,2,2] y) {CONSTANTS} {{ n = Shape<start=0, end=1>(x) "
    before, after = simplified(text + "t = Concat<axis=0>(n, m, two, two) y = Reshape<allowzero=1>(x, t) }")
    assert target(after) == [0, 6, 2, 2]
    assert holds(before, after, "N") == 6


def test_readers_who_would_keep_different_dimensions_share_one_that_is_found():
    text = (
        "g (float[N,8] x, float[8,N] r) => (float[N,2,4] y, float[N,2,4] z) <int64[1] two = {2}, int64[1] four = {4}> {"
        "n = Shape<start=0, end=1>(x) t = Concat<axis=0>(n, two, four) y = Reshape(x, t) z = Reshape(r, t) }"
    )
    before, after = simplified(text)
    assert ops(after) == ["Reshape", "Reshape"]
    assert target(after) == target(after, "z") == [-1, 2, 4]
    assert holds(before, after, "N") == 4


VIEWS = [
    ("float[N,S] x", "float[N,1,S] y", "t = Concat<axis=0>(n, one, s)", "Unsqueeze", [1]),
    ("float[N,S] x", "float[1,N,S,1] y", "t = Concat<axis=0>(one, n, s, one)", "Unsqueeze", [0, 3]),
    ("float[N,1,S] x", "float[N,S] y", "s2 = Shape<start=2, end=3>(x) t = Concat<axis=0>(n, s2)", "Squeeze", [1]),
]


@pytest.mark.parametrize(("x", "y", "body", "op_type", "axes"), VIEWS)
@pytest.mark.parametrize("opset", [11, 17])
def test_ones_are_added_and_dropped_without_a_target(x, y, body, op_type, axes, opset):
    shapes = "n = Slice(h, z, one) s = Slice(h, one, two) s2 = Slice(h, two, three)"
    constants = "<int64[1] z = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}>"
    body = body.replace("s2 = Shape<start=2, end=3>(x) ", "")
    text = f"g ({x}) => ({y}) {constants} {{ h = Shape(x) {shapes} {body} y = Reshape(x, t) }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>' + text)
    model = load(proto)
    after = Simplify().run(model, Context(reference=model)).model
    assert ops(after) == [op_type]
    found = after.graph[0]
    given = found.attributes.get_ints("axes") if opset < 13 else found.inputs[1].const_value.numpy().tolist()
    assert list(given) == axes
    assert holds(proto, after) >= 8  # at 0 the computed target fails for some


def test_ones_that_are_added_twice_are_added_at_once():
    text = (
        "g (float[N,S] x) => (float[N,1,1,S] y) <int64[1] a = {1}, int64[1] b = {2}> "
        "{ p = Unsqueeze(x, a) y = Unsqueeze(p, b) }"
    )
    before, after = simplified(text)
    assert ops(after) == ["Unsqueeze"]
    assert holds(before, after) == 18


def test_old_constant_nodes_hold_floats_only():
    text = "g (float[2,3] x) => (float[3] y) { a = Slice<axes=[0], starts=[0], ends=[1]>(x) y = Squeeze<axes=[0]>(a) }"
    for ir_version, opset, left in ((3, 6, ["Slice", "Squeeze"]), (3, 9, ["Gather"]), (4, 6, ["Gather"])):
        proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>' + text)
        model = load(proto)
        after = Simplify().run(model, Context(reference=model)).model
        onnx.checker.check_model(to_proto(after), full_check=True)
        assert ops(after) == left
