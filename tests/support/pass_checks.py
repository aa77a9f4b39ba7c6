"""What holds for every run of a pass that is called directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from optimizer.contract.passes import Context, Pass, PassResult, Sites
from optimizer.io.model import clone, to_proto

if TYPE_CHECKING:
    import onnx_ir as ir


def checked_run(member: Pass, given: ir.Model, sites: Sites | None = None) -> PassResult:
    """The result on a clone, after checking that it is valid and that a second run changes nothing."""
    before = to_proto(given)
    result = member.run(clone(given), Context(given, sites or Sites()))
    assert to_proto(given) == before, "the reference was changed"
    after = to_proto(result.model)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.output) == list(before.graph.output)
    if not result.changes:
        assert after == before
    if sites is None:
        again = member.run(clone(result.model), Context(given))
        assert not again.changes
        assert to_proto(again.model) == after
    return result
