"""refit-weights: kernels that something changed answer more like the reference again, or stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from optimizer.contract.passes import Context
from optimizer.errors import PreconditionError
from optimizer.io.model import clone
from passes.refit_weights import RefitWeights
from pruning_nets import FILLED, NET, evaluator_for, model


def changed(before: ir.Model) -> ir.Model:
    after = clone(before)
    for name in ("w", "wt"):
        array = np.where(np.abs(FILLED[name]) < 0.5, 0, FILLED[name])
        after.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return after


def test_what_was_changed_answers_more_like_the_reference():
    before = model(NET)
    evaluator, given = evaluator_for(before, "rel_l2=0.1"), changed(before)
    result = RefitWeights().run(clone(given), Context(before, evaluator=evaluator))
    assert result.changes == {"weights fitted": 2, "biases corrected": 2}
    assert evaluator.budget_used(result.model) < evaluator.budget_used(given) / 2
    for name in ("w", "wt"):
        old, new = (one.graph.initializers[name].const_value.numpy() for one in (given, result.model))
        np.testing.assert_array_equal(old == 0, new == 0)


def test_what_is_the_references_stays():
    before = model(NET)
    result = RefitWeights().run(clone(before), Context(before, evaluator=evaluator_for(before, "rel_l2=0.1")))
    assert not result.changes
    assert {note.reason for note in result.notes} == {"is the reference's"}


def test_names_that_the_reference_does_not_have():
    before = model(NET)
    given = changed(before)
    given.graph.node(0).outputs[0].name = "other"
    result = RefitWeights(include=("w",)).run(
        clone(given), Context(before, evaluator=evaluator_for(before, "rel_l2=0.1"))
    )
    assert not result.changes
    assert "under no such name" in " ".join(note.reason for note in result.notes)


def test_it_needs_runs():
    before = model(NET)
    with pytest.raises(PreconditionError, match="needs runs"):
        RefitWeights().requires(before, Context(before))
