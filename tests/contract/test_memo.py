"""Findings are made once for a model's content and a key, and bytes of weights are read once."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from optimizer.contract.memo import Memo, MemoKey
from optimizer.io.model import clone

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[2, 3] x) => (float[2, 3] y) <float[3] w = {1, 2, 3}> { a = Add(x, w) y = Softmax<axis=1>(a) }"""


@dataclass(frozen=True)
class Number(MemoKey[int]):
    option: int = 0


@dataclass(frozen=True)
class Other(MemoKey[int]):
    option: int = 0


class Counted(ir.Tensor):
    """A tensor that counts how often its bytes are read."""

    read = 0

    def tobytes(self):
        Counted.read += 1
        return super().tobytes()


@pytest.fixture
def model():
    return ir.from_onnx_text(TEXT)


def counting(calls):
    return lambda: calls.append(None) or len(calls)


def test_a_finding_is_made_once_for_equal_content(model):
    memo, calls = Memo(), []
    assert [memo.get(one, Number(), counting(calls)) for one in (model, model, clone(model))] == [1, 1, 1]
    memo.clear()
    assert memo.get(model, Number(), counting(calls)) == 2


def test_keys_of_other_kinds_and_options_have_findings_of_their_own(model):
    memo, calls = Memo(), []
    keys = [Number(), Number(1), Other(), Other(1), Number()]
    assert [memo.get(model, key, counting(calls)) for key in keys] == [1, 2, 3, 4, 1]


def change_weight(model):
    model.graph.initializers["w"].const_value = ir.tensor(np.array([1, 2, 4], np.float32))


def change_attribute(model):
    model.graph[1].attributes["axis"] = ir.AttrInt64("axis", 0)


def change_operator(model):
    model.graph[0].op_type = "Sub"


def rename_value(model):
    model.graph[0].outputs[0].name = "b"


@pytest.mark.parametrize("change", [change_weight, change_attribute, change_operator, rename_value])
def test_a_model_that_is_changed_in_place_is_another_model(model, change):
    memo, calls = Memo(), []
    assert memo.get(model, Number(), counting(calls)) == 1
    change(model)
    assert memo.get(model, Number(), counting(calls)) == 2


def test_subgraphs_and_constants_in_attributes_count():
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (bool c, float[1] x) => (float[1] y) { y = If(c)
      <then_branch = t () => (float[1] a) { v = Constant<value = float[1] {FIRST}>() a = Add(x, v) },
       else_branch = e () => (float[1] b) { b = Neg(x) }> }"""
    memo, calls = Memo(), []
    models = [ir.from_onnx_text(text.replace("FIRST", number)) for number in ("1", "2", "1")]
    assert [memo.get(one, Number(), counting(calls)) for one in models] == [1, 2, 1]


def test_the_bytes_of_a_weight_are_read_once(model):
    Counted.read = 0
    model.graph.initializers["w"].const_value = Counted(np.ones(3, np.float32), name="w")
    memo = Memo()
    for one in (model, clone(model), model):
        for key in (Number(), Other(), Number(3)):
            memo.get(one, key, int)
    assert Counted.read == 1
