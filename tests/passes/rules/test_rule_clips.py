"""Limits that nothing comes up to, and limits in a row, by attributes and by inputs."""

from __future__ import annotations

import re

import pytest

from passes.rules import fuse_clip
from rewriting import ops, rewritten

X = "g (float[N,4] x) => (float[N,4] y)"


def head(opset):
    return f'<ir_version: 8, opset_import: ["" : {opset}]> '


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Relu(x) y = Relu(a)", ["Relu"]),
        ("a = Sigmoid(x) y = Relu(a)", ["Sigmoid"]),
        ("a = Softmax<axis=1>(x) y = Relu(a)", ["Softmax"]),
        ("a = HardSigmoid(x) b = Relu(a) y = Neg(b)", ["HardSigmoid", "Neg"]),
        ("a = Abs(x) b = Relu(a) y = Add(a, b)", ["Abs", "Add"]),  # however many read it
        ("a = Clip<min=-1., max=1.>(x) y = Clip<min=-2., max=1.>(a)", ["Clip"]),
        ("a = Relu(x) y = Clip<min=0., max=6.>(a)", ["Clip"]),
        ("a = Clip<min=-1., max=2.>(x) y = Relu(a)", ["Clip"]),
        ("a = Clip<max=-1.>(x) y = Clip<min=1.>(a)", ["Clip"]),  # always 1
        ("a = Relu(x) y = Relu(x)", ["Relu", "Relu"]),
        ("a = Relu(x) b = Clip<max=6.>(a) y = Add(a, b)", ["Relu", "Clip", "Add"]),  # both are read
        ("a = Neg(x) y = Relu(a)", ["Neg", "Relu"]),
        ("a = Sigmoid(x) y = Clip<min=0.25, max=1.>(a)", ["Sigmoid", "Clip"]),
        ("a = Exp(x) y = Clip<max=2.>(a)", ["Exp", "Clip"]),
        ("y = Clip(x)", ["Clip"]),
    ],
)
@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_limits_that_are_attributes(opset, body, left):
    text = f"{head(opset)} {X} {{ {body} }}"
    if body.endswith("y = Relu(x)"):
        text = text.replace("(float[N,4] y)", "(float[N,4] y, float[N,4] a)")
    assert ops(rewritten(text, fuse_clip.RULES, dims={"N": 3})) == left


CONSTANTS = (
    "<float l = {-1}, float z = {0}, float h = {0.5}, float[1] one = {1}, float s = {6}, float[4] v = {0,1,0,1}>"
)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Clip(x, z, s) y = Relu(a)", ["Clip"]),
        ("a = Clip(x, l) y = Relu(a)", ["Relu"]),
        ("a = Clip(x, l, s) y = Clip(a, z, one)", None),
        ("a = Max(x, z) y = Min(a, s)", ["Clip"]),
        ("a = Max(z, x) y = Min(s, a)", ["Clip"]),
        ("a = Relu(x) y = Max(a, l)", ["Relu"]),
        ("a = Relu(x) y = Max(a, h)", ["Clip"]),
        ("y = Max(x, v)", ["Max"]),  # a limit for each column
        ("a = Max(x, v) y = Relu(a)", ["Max", "Relu"]),
        ("a = Clip(x, h) y = Sigmoid(a)", ["Clip", "Sigmoid"]),
        ("a = Clip(x) y = Neg(a)", ["Neg"]),
        ("a = Clip(x, , s) y = Clip(a, z)", ["Clip"]),
    ],
)
@pytest.mark.parametrize("opset", [12, 13, 20])
def test_limits_that_are_inputs(opset, body, left):
    found = ops(rewritten(f"{head(opset)} {X} {CONSTANTS} {{ {body} }}", fuse_clip.RULES, dims={"N": 3}))
    assert found == (["Clip"] if left is None else left) or (left is None and found == re.findall(r"= (\w+)\(", body))


def test_limits_that_an_input_decides_stay():
    text = f"{head(13)} g (float[N,4] x, float[1] l) => (float[N,4] y) {{ a = Max(x, l) y = Relu(a) }}"
    assert ops(rewritten(text, fuse_clip.RULES)) == ["Max", "Relu"]


def test_integers_keep_their_limits():
    text = f"{head(13)} g (int32[4] x) => (int32[4] y) <int32 z = {{0}}> {{ a = Clip(x, z) y = Clip(a, z) }}"
    assert ops(rewritten(text, fuse_clip.RULES)) == ["Clip", "Clip"]
