"""Operators without effect, and chains that one operator can do."""

from __future__ import annotations

import re

import pytest

from passes.rules import (
    drop_identities,
    fuse_clip,
    inline_if,
    merge_casts,
    merge_concats,
    merge_reshapes,
    merge_slices,
    merge_transposes,
)
from rewriting import ops, rewritten

RULES = (
    *drop_identities.RULES,
    *merge_reshapes.RULES,
    *merge_transposes.RULES,
    *merge_casts.RULES,
    *merge_slices.RULES,
    *merge_concats.RULES,
    *fuse_clip.RULES,
)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
X = "g (float[N,4] x) => (float[N,4] y) "


@pytest.mark.parametrize(
    "body",
    [
        "a = Identity(x) y = Relu(a)",
        "a = Dropout(x) y = Relu(a)",
        "a = Cast<to=1>(x) y = Relu(a)",
        "a = Transpose<perm=[0,1]>(x) y = Relu(a)",
        "a = Concat<axis=1>(x) y = Relu(a)",
        "a = Sum(x) y = Relu(a)",
        "a = Relu(x) y = Identity(a)",
        "a = Flatten(x) y = Relu(a)",
        "a = Transpose<perm=[1,0]>(x) b = Transpose<perm=[1,0]>(a) y = Relu(b)",
        "a = Cast<to=11>(x) b = Cast<to=1>(a) y = Relu(b)",
        "a = Relu(x) y = Relu(a)",
    ],
)
def test_without_effect(body):
    assert ops(rewritten(f"{HEAD}{X} {{ {body} }}", RULES, dims={"N": 3})) == ["Relu"]


@pytest.mark.parametrize(
    ("constants", "body"),
    [
        ("float c = {0}", "a = Add(x, c) y = Relu(a)"),
        ("float c = {0}", "a = Add(c, x) y = Relu(a)"),
        ("float c = {0}", "a = Sub(x, c) y = Relu(a)"),
        ("float[1] c = {1}", "a = Mul(x, c) y = Relu(a)"),
        ("float[4] c = {1, 1, 1, 1}", "a = Div(x, c) y = Relu(a)"),
        ("float c = {1}", "a = Pow(x, c) y = Relu(a)"),
        ("int64[2] c = {1, 1}", "a = Tile(x, c) y = Relu(a)"),
        ("int64[4] c = {0, 0, 0, 0}", "a = Pad(x, c) y = Relu(a)"),
        ("int64[1] s = {0}, int64[1] e = {9223372036854775807}", "a = Slice(x, s, e) y = Relu(a)"),
        ("int64[2] c = {-1, 4}, int64[2] d = {2, -1}", "a = Reshape(x, d) b = Reshape(a, c) y = Relu(b)"),
    ],
)
def test_without_effect_by_a_constant(constants, body):
    found = ops(rewritten(f"{HEAD}{X} <{constants}> {{ {body} }}", RULES, dims={"N": 4}))
    assert found in (["Relu"], ["Reshape", "Relu"])


@pytest.mark.parametrize(
    ("constants", "body"),
    [
        ("", "y = Identity(x)"),  # input and output would be one
        ("float c = {0}", "y = Sub(c, x)"),
        ("float c = {1}", "y = Div(c, x)"),
        ("float[1,1,1] c = {0}, int64[1] z = {0}", "a = Add(x, c) b = Neg(a) y = ReduceSum<keepdims=0>(b, z)"),
        ("", "a = Cast<to=6>(x) y = Cast<to=1>(a)"),  # truncates
        ("", "a = Transpose<perm=[1,0]>(x) y = Softmax<axis=0>(a)"),
    ],
)
def test_with_effect_stays(constants, body):
    shape = "float[M,4]" if "perm" not in body else "float[4,M]"
    text = f"{HEAD} g (float[N,4] x) => ({shape} y) {f'<{constants}>' if constants else ''} {{ {body} }}"
    assert ops(rewritten(text, RULES, dims={"N": 3})) == re.findall(r"= (\w+)[<(]", body)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            X + "{ a = Concat<axis=1>(x, x) b = Concat<axis=1>(a, x) c = Constant<value=int64[1] {0}>() "
            "d = Constant<value=int64[1] {4}>() e = Constant<value=int64[1] {1}>() y = Slice(b, c, d, e) }",
            ["Concat", "Slice"],
        ),
        (
            "g (float[2,3,4] x) => (float[4,2,3] y) { a = Transpose<perm=[2,1,0]>(x) y = Transpose<perm=[0,2,1]>(a) }",
            ["Transpose"],
        ),
        (
            (
                "g (float[6,8] x) => (float[2,8] y) <int64[1] s={1}, int64[1] e={3}, int64[1] z={0}, int64[1] o={1}, "
                "int64[1] f={9}> { a = Slice(x, s, e, z) y = Slice(a, z, f, o) }"
            ),
            ["Slice"],
        ),
    ],
)
def test_chains_become_one(text, left):
    assert ops(rewritten(HEAD + text, RULES, dims={"N": 3})) == left


IF = """g (float[2] x) => (float[2] y) <bool c = {%d}> {
  z = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }>
  y = Exp (z)
}"""


@pytest.mark.parametrize(("condition", "left"), [(1, ["Neg", "Exp"]), (0, ["Abs", "Exp"])])
def test_an_if_on_a_constant_is_its_branch(condition, left):
    assert ops(rewritten(HEAD + IF % condition, inline_if.RULES)) == left


def test_an_if_on_an_input_stays():
    text = HEAD + (IF % 1).replace("<bool c = {1}> ", "").replace("(float[2] x)", "(float[2] x, bool c)")
    assert ops(rewritten(text, inline_if.RULES)) == ["If", "Exp"]
