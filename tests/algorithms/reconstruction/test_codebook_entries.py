"""Codebooks of kernels are found whatever form they have, and their entries fitted to what is wanted."""

from __future__ import annotations

import numpy as np
import pytest

from optimizer.algorithms.reconstruction.codebook_entries import Codebook, codebook, fitted
from optimizer.algorithms.reconstruction.least_squares import Fit
from optimizer.contract.passes import Context
from optimizer.evaluation.calibration.sweep import with_outputs
from optimizer.evaluation.runtime.session import session
from optimizer.graph import constants, queries
from optimizer.io.model import clone
from optimizer.recipes.spec import parse_pass
from optimizer.statistics import im2col
from weight_nets import KINDS, filled_model

RANDOM = np.random.default_rng(0)
FILLED = {
    "w": RANDOM.standard_normal((96, 80)).astype(np.float32),
    "wt": RANDOM.standard_normal((80, 96)).astype(np.float32),
    "k": RANDOM.standard_normal((24, 16, 3, 3)).astype(np.float32),
    "d": RANDOM.standard_normal((64, 1, 5, 5)).astype(np.float32),
    "c": RANDOM.standard_normal((16, 24, 3, 3)).astype(np.float32),
}
CHOSEN = ["MatMul", "Gemm", "Gemm transB", "Conv", "depthwise", "ConvTranspose", "Constant", "Transpose"]


def stored(kind: str, spec: str):
    model = filled_model(KINDS[kind], FILLED)
    result = parse_pass(f"{spec},min-elements=64").run(clone(model), Context(model)).model
    node = next(node for node in result.graph if node.op_type in {"MatMul", "Gemm", "Conv", "ConvTranspose"})
    return result, node


@pytest.mark.parametrize("coding", ["entries=16", "entries=5", "entries=256", "entries=16,group=8", "dims=2"])
@pytest.mark.parametrize("kind", CHOSEN)
def test_every_form_is_found(kind, coding):
    model, node = stored(kind, f"cluster-weights:{coding}")
    found = codebook(node, queries.opset_version(model))
    assert found is not None
    name = node.inputs[1].name
    feed = {value.name: np.zeros([dim if isinstance(dim, int) else 2 for dim in value.shape], np.float32)
            for value in model.graph.inputs}  # fmt: skip
    read = session(with_outputs(model, [name])).run(feed)[name]
    np.testing.assert_array_equal(found.matrix(), im2col.as_matrix(node, read))
    found.write(found.entries() * 2)
    read = session(with_outputs(model, [name])).run(feed)[name]
    np.testing.assert_array_equal(found.matrix(), im2col.as_matrix(node, read))


@pytest.mark.parametrize("spec", ["quantize-weights:compute=float", "quantize-weights:bits=4,compute=float"])
def test_what_is_computed_otherwise_is_no_codebook(spec):
    model, node = stored("Conv", spec)
    assert constants.constant_tensor(node.inputs[1]) is None
    assert codebook(node, queries.opset_version(model)) is None


def problem(seed: int) -> tuple[Codebook, np.ndarray, Fit]:
    """A codebook, other entries for it, and what a kernel answers with those."""
    model, node = stored("Conv", "cluster-weights:entries=16,group=8")
    found, random = codebook(node, queries.opset_version(model)), np.random.default_rng(seed)
    wanted = found.entries() + random.standard_normal(found.entries().size) / 10
    rows = random.standard_normal((1, 500, 20)) @ random.standard_normal((1, 20, found.places.shape[-1]))
    return found, wanted, Fit.same(wanted[found.places], rows.swapaxes(1, 2) @ rows / 500, 1e-9)


def test_entries_that_answer_as_wanted_are_found():
    found, wanted, fit = problem(0)
    made = fitted(found, fit)
    assert fit.errors(found.matrix()).sum() > 1
    assert fit.errors(made[found.places]).sum() < 1e-6
    np.testing.assert_allclose(made, wanted, atol=1e-3)


def test_zeros_stay_and_damping_holds_back():
    found, _, fit = problem(1)
    entries = found.entries()
    entries[::7] = 0
    found.write(entries)
    made = fitted(found, fit)
    np.testing.assert_array_equal(made == 0, entries == 0)
    held = fitted(found, Fit(fit.square, fit.target, fit.power, 1e3))
    assert 0 < np.linalg.norm(held - entries) < np.linalg.norm(made - entries) / 10


def test_what_is_fitted_already_stays():
    found, wanted, fit = problem(2)
    found.write(wanted)
    same = Fit.same(found.matrix(), fit.square, 1e-9)
    made = fitted(found, same)
    assert made is None or np.abs(made - found.entries()).max() < 1e-4
