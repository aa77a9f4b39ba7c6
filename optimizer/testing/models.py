"""The small models that promises are tried on, as ONNX text.

Each has something that has broken a pass before: weights in initializers, Constant nodes and subgraphs, behind
Identity, Cast and Transpose, shared or overridable; bodies of If and Loop, functions; dynamic shapes, half precision,
old operator sets; no nodes, no names, no floats. All carry doc strings and metadata wherever there is room.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

OPSETS = (7, 11, 13, 18, 21)
FOREIGN = "foreign operators"
_HALF = "half precision"
_UNNAMED = "missing names"  # its nodes stay without names


def _numbers(*shape: int, seed: int = 0, low: float = -1.0) -> str:
    """``shape`` and so many floats from ``low`` to 1 as a tensor in ONNX text."""
    values = np.random.default_rng([seed, *shape]).uniform(low, 1, int(np.prod(shape)))
    return f"float[{','.join(map(str, shape))}] {_listed(values)}"


def _initializer(name: str, *shape: int, seed: int = 0, low: float = -1.0) -> str:
    dims, _, values = _numbers(*shape, seed=seed, low=low).partition(" ")
    return f"{dims} {name} = {values}"


def _repeated(rows: int, columns: int) -> str:
    """Rows of which each is four times as large as the one before, and each is there twice."""
    values = np.random.default_rng(9).uniform(-1, 1, (rows, columns)) * 4.0 ** np.arange(rows)[:, np.newaxis]
    return _listed(values.repeat(2, axis=0).reshape(-1))


def _integers(count: int) -> str:
    return "{" + ", ".join(str(number * 37 % 255 - 127) for number in range(count)) + "}"


def _listed(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    return "{" + ", ".join(f"{value:.3f}" for value in values) + "}"


_W, _I = _numbers, _initializer

_CONV_NET = f"""
g (float[N,3,6,6] x) => (float[N,4] y)
<{_I("w1", 8, 3, 3, 3)}, {_I("b1", 8)}, {_I("scale", 8, seed=1, low=0.5)}, {_I("shift", 8, seed=2)},
 {_I("mean", 8, seed=3)}, {_I("var", 8, seed=4, low=0.5)}, {_I("w2", 8, 8, 1, 1)}, {_I("w3", 8, 4)}, {_I("b3", 4)}>
{{
  c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  n1 = BatchNormalization (c1, scale, shift, mean, var)
  r1 = Relu (n1)
  c2 = Conv (r1, w2)
  s = Add (c2, r1)
  p = GlobalAveragePool (s)
  f = Flatten (p)
  z = Gemm (f, w3, b3)
  y = Softmax <axis = 1> (z)
}}"""

# name: (opset, graph)
_GRAPHS: dict[str, tuple[int, str]] = {
    **{f"opset {opset}": (opset, _CONV_NET) for opset in OPSETS},
    _HALF: (13, _CONV_NET),
    "constant nodes": (
        17,
        f"""
g (float[N,8] x) => (float[N,4] y) {{
  w = Constant <value = {_W(8, 6)}> ()
  v = Constant <value = {_W(6, 4)}> ()
  b = Constant <value_floats = [1.0, -1.0, 0.5, 0.0]> ()
  two = Constant <value_float = 2.0> ()
  m = MatMul (x, w)
  h = Relu (m)
  t = Mul (h, two)
  y = Gemm (t, v, b)
}}""",
    ),
    "behind views": (
        17,
        f"""
g (float[N,8] x) => (float[N,8] y)
<{_I("stored", 6, 8)}, {_I("table", 8, 6)}, int64[2] dims = {{6, 8}}, {_I("bias", 8)}>
{{
  w = Transpose <perm = [1, 0]> (stored)
  same = Identity (w)
  a = MatMul (x, same)
  half = Cast <to = 10> (table)
  whole = Cast <to = 1> (half)
  v = Reshape (whole, dims)
  h = Relu (a)
  m = MatMul (h, v)
  y = Add (m, bias)
}}""",
    ),
    "shared weights": (
        17,
        f"""
g (float[N,8] x, float[N,8] z) => (float[N,8] y, float[N,8] w)
<{_I("first", 8, 8)}, {_I("equal", 8, 8)}, {_I("bias", 8)}>
{{
  a = MatMul (x, first)
  b = MatMul (z, first)
  c = Relu (a)
  d = Relu (b)
  e = MatMul (c, equal)
  y = Add (e, bias)
  w = Add (d, bias)
}}""",
    ),
    "siamese branches": (
        17,
        f"""
g (float[2,3,6,6] left, float[2,3,6,6] right) => (float[2,4,6,6] y)
<{_I("w1", 4, 3, 3, 3)}, {_I("w2", 4, 4, 3, 3)}>
{{
  a1 = Conv <pads = [1, 1, 1, 1]> (left, w1)
  a2 = Relu (a1)
  a3 = Conv <pads = [1, 1, 1, 1]> (a2, w2)
  b1 = Conv <pads = [1, 1, 1, 1]> (right, w1)
  b2 = Relu (b1)
  b3 = Conv <pads = [1, 1, 1, 1]> (b2, w2)
  y = Mul (a3, b3)
}}""",
    ),
    "redundant channels": (
        17,
        f"""
g (float[N,3,6,6] x) => (float[N,4,6,6] y)
<float[8,3,1,1] w1 = {_repeated(4, 3)}, {_I("w2", 4, 8, 3, 3)}, {_I("b2", 4)}>
{{
  a = Conv (x, w1)
  b = Relu (a)
  y = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
}}""",
    ),
    "large weight": (
        17,
        f"""
g (float[N,48] x) => (float[N,48] y) <{_I("w", 48, 48)}>
{{
  m = MatMul (x, w)
  y = Relu (m)
}}""",
    ),
    "If bodies": (
        17,
        f"""
g (float[N,6] x, bool c) => (float[N,6] y) <{_I("outer", 6, 6)}>
{{
  h = MatMul (x, outer)
  y = If (c) <
    then_branch = yes () => (float[N,6] p) <{_I("w", 6, 6)}, {_I("b", 6)}> {{ q = MatMul (h, w)  p = Add (q, b) }},
    else_branch = no () => (float[N,6] r) {{
      k = Constant <value = {_W(6, 6)}> ()
      m = MatMul (h, k)
      o = MatMul (m, outer)
      i = Identity (o)
      r = Relu (i)
    }}>
}}""",
    ),
    "Loop body": (
        17,
        f"""
g (float[2,6] x) => (float[2,6] y, float[T,2,6] steps)
<int64 trips = {{3}}, bool go = {{1}}, {_I("w", 6, 6)}>
{{
  y, steps = Loop (trips, go, x) <
    body = step (int64 i, bool before, float[2,6] old) => (bool after, float[2,6] new, float[2,6] out) <{_I("b", 6)}> {{
      after = Identity (before)
      m = MatMul (old, w)
      s = Add (m, b)
      new = Tanh (s)
      out = Identity (new)
    }}>
}}""",
    ),
    "dynamic shapes": (
        17,
        f"""
g (float[N,T,8] x) => (float[N,T,8] y, float[N,2,M,K] scores)
<{_I("wq", 8, 8)}, {_I("wk", 8, 8, seed=1)}, {_I("wo", 8, 8, seed=2)}, int64[1] zero = {{0}}, int64[1] one = {{1}},
 int64[1] heads = {{2}}, int64[1] rest = {{-1}}, float root = {{2.0}}>
{{
  shape = Shape (x)
  n = Gather <axis = 0> (shape, zero)
  t = Gather <axis = 0> (shape, one)
  split = Concat <axis = 0> (n, t, heads, rest)
  q = MatMul (x, wq)
  qs = Reshape (q, split)
  qt = Transpose <perm = [0, 2, 1, 3]> (qs)
  k = MatMul (x, wk)
  ks = Reshape (k, split)
  kt = Transpose <perm = [0, 2, 3, 1]> (ks)
  product = MatMul (qt, kt)
  scaled = Div (product, root)
  scores = Softmax <axis = -1> (scaled)
  mixed = MatMul (scores, qt)
  back = Transpose <perm = [0, 2, 1, 3]> (mixed)
  whole = Concat <axis = 0> (n, t, rest)
  flat = Reshape (back, whole)
  y = MatMul (flat, wo)
}}""",
    ),
    "recurrent": (
        17,
        f"""
g (int64[T,N] ids) => (float[T,1,N,4] y, float[1,N,4] last)
<{_I("table", 16, 6)}, {_I("w", 1, 16, 6)}, {_I("r", 1, 16, 4)}, {_I("b", 1, 32)},
 {_I("gw", 1, 12, 4)}, {_I("gr", 1, 12, 4)}, int64[1] axes = {{1}}>
{{
  x = Gather <axis = 0> (table, ids)
  h, , cell = LSTM <hidden_size = 4> (x, w, r, b)
  s = Squeeze (h, axes)
  y, last = GRU <hidden_size = 4> (s, gw, gr)
}}""",
    ),
    "empty graph": (17, "g (float[N,4] x) => (float[N,4] x) {}"),
    "stored output": (17, f"g (float[2] x) => (float[2] y, float[3] c) <{_I('c', 3)}> {{ y = Neg (x) }}"),
    "dead code": (
        17,
        f"""
g (float[N,4] x, float[4] unused) => (float[N,4] y, float[N,4] again)
<{_I("w", 4, 4)}, {_I("idle", 4, 4)}, float one = {{1.0}}>
{{
  lost = MatMul (x, w)
  i = Identity (x)
  m = Mul (i, one)
  d, mask = Dropout (m)
  r = Relu (d)
  y = Abs (r)
  again = Relu (m)
}}""",
    ),
    _UNNAMED: (
        17,
        f"""
g (float[N,6] x) => (float[N,3] y, float[N,3] z) <{_I("w", 6, 6)}, float low = {{0.0}}>
{{
  a = MatMul (x, w)
  b = Clip (a, low)
  y, z = Split <axis = 1> (b)
}}""",
    ),
    "overridable weights": (
        17,
        f"""
g (float[N,6] x, float[6,6] w, float[6] b) => (float[N,6] y) <{_I("w", 6, 6)}, {_I("b", 6)}>
{{
  m = MatMul (x, w)
  s = Add (m, b)
  y = Sigmoid (s)
}}""",
    ),
    "QDQ": (
        17,
        f"""
g (float[N,8] x) => (float[N,6] y)
<int8[8,6] w = {_integers(48)}, float[6] ws = {{0.1, 0.1, 0.2, 0.2, 0.1, 0.1}},
 int8[6] wz = {{0, 0, 0, 0, 0, 0}}, float xs = {{0.05}}, uint8 xz = {{128}}, {_I("v", 6, 6)}>
{{
  xq = QuantizeLinear (x, xs, xz)
  xd = DequantizeLinear (xq, xs, xz)
  wd = DequantizeLinear <axis = 1> (w, ws, wz)
  h = MatMul (xd, wd)
  y = MatMul (h, v)
}}""",
    ),
    "integer kernels": (
        17,
        """
g (float[N,4] x) => (float[N,2] y)
<int8[4,2] w = {1, -2, 3, -4, 5, -6, 7, -8}, int8 wz = {0}, float ws = {0.02}>
{
  q, s, z = DynamicQuantizeLinear (x)
  i = MatMulInteger (q, w, z, wz)
  f = Cast <to = 1> (i)
  scale = Mul (s, ws)
  y = Mul (f, scale)
}""",
    ),
    "no floats": (
        17,
        """
g (int64[N] x, int64[N] z) => (int64[N] y, bool[N] b) <int64[1] two = {2}, int64[1] same = {2}>
{
  a = Mul (x, two)
  c = Add (a, same)
  y = Add (c, z)
  b = Greater (y, two)
}""",
    ),
    "double precision": (
        17,
        """
g (double[N,2] x) => (double[N,2] y) <double[2,2] w = {1, -2, 3, 4}, double[2] b = {1, 2}>
{
  m = MatMul (x, w)
  y = Add (m, b)
}""",
    ),
    "random numbers": (
        17,
        f"""
g (float[2,4] x) => (float[2,4] y) <{_I("w", 4, 4)}>
{{
  noise = RandomNormalLike <dtype = 1> (x)
  s = Add (x, noise)
  y = MatMul (s, w)
}}""",
    ),
    "sequences": (
        17,
        f"""
g (float[N,4] x) => (float[N,4] y) <{_I("w", 4, 4)}, int64 one = {{1}}>
{{
  m = MatMul (x, w)
  s = SequenceConstruct (x, m)
  y = SequenceAt (s, one)
}}""",
    ),
}

_FUNCTIONS = f"""<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>
g (float[N,6] x) => (float[N,6] y) <{_I("w", 6, 6)}>
{{
  a = custom.dense (x, w)
  y = custom.dense (a, w)
}}
<domain: "custom", opset_import: ["" : 17]>
dense (x, w) => (y)
{{
  k = Constant <value = {_W(6, 6)}> ()
  m = MatMul (x, w)
  n = MatMul (m, k)
  i = Identity (n)
  y = Relu (i)
}}"""

_FOREIGN = """<ir_version: 10, opset_import: ["" : 21, "org.example" : 1]>
g (float[N,6] x) => (float[N,6] y)
{
  a = org.example.Twist <turns = 2> (x)
  y = org.example.Twist <turns = 3> (a)
}"""


@functools.cache
def models() -> dict[str, onnx.ModelProto]:
    """The models by name; not to be changed."""
    made = {name: onnx.parser.parse_model(f"{_header(opset)}{text}") for name, (opset, text) in _GRAPHS.items()}
    made["functions"] = onnx.parser.parse_model(_FUNCTIONS)
    made[FOREIGN] = onnx.parser.parse_model(_FOREIGN)
    _halve(made[_HALF])
    for name, model in made.items():
        _describe(model, with_names=name != _UNNAMED)
    return made


def _header(opset: int) -> str:
    return f'<ir_version: {10 if opset > 18 else 8}, opset_import: ["" : {opset}]>'


def _halve(model: onnx.ModelProto) -> None:
    """Let ``model``, which computes in float32, compute in float16."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def _describe(model: onnx.ModelProto, *, with_names: bool) -> None:
    """Put a doc string and metadata wherever a model has room for them, and names on nodes."""
    model.producer_name, model.producer_version, model.domain, model.model_version = "maker", "1.2", "org.example", 7
    nodes = [node for graph in _graphs(model) for node in graph.node]
    for part in (model, *_graphs(model), *model.graph.input, *model.graph.output, *nodes):
        name = getattr(part, "name", "") or type(part).__name__  # one value may be input and output: same text
        part.doc_string = f"about {name}"
        part.metadata_props.add(key="of", value=name)
    for number, node in enumerate(nodes if with_names else ()):
        node.name = f"/{node.op_type}_{number}"


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    stack: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while stack:
        graph = stack.pop()
        yield graph
        stack += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
