"""Models from the text of a graph's body, and what holds for exact passes that are run on them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from optimizer.graph import traversal
from optimizer.io.model import load, to_proto
from optimizer.testing import check_pass
from rewriting import assert_close, feeds_for, outputs


def net(text, opset=17, *, ir_version=8, as_nodes=False, **constants):
    """The model of ``text``; ``constants`` are initializers or Constant nodes."""
    parsed = onnx.parser.parse_graph(f"g {text}")
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    if as_nodes:
        nodes = [helper.make_node("Constant", [], [one.name], value=one) for one in arrays]
        whole = [*nodes, *parsed.node]
        del parsed.node[:]
        parsed.node.extend(whole)
    else:
        parsed.initializer.extend(arrays)
    made = helper.make_model(parsed, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(made, full_check=True)
    return made


def held(member, proto, expected, *, sites=None, dims=None):
    """The model after the pass, whose changes are ``expected``; answers stay and the file does not grow."""
    result = check_pass(member, load(proto), sites=sites, may_run=False)
    assert result.changes == expected, result.notes
    after = to_proto(result.model)
    assert after.ByteSize() <= proto.ByteSize()
    given = feeds_for(proto, dims or {})
    for optimize in (False, True):
        wanted, got = (outputs(one, given, optimize=optimize) for one in (proto, after))
        for one, other in zip(wanted, got, strict=True):
            assert_close(one, other)
    return result.model


def ops(model):
    return [node.op_type for node in traversal.nodes(model) if node.op_type != "Constant"]
