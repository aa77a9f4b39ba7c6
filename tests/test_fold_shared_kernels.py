"""fold-shared-kernels: planted nets come back to their compact widths, and answer the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import checked_run
from planted_nets import Planter
from rewriting import feeds_for, outputs

from optimizer.algorithms import kernels
from optimizer.model import load, to_proto
from passes.fold_shared_kernels import FoldSharedKernels


def folded(planted, *, multiple=1, rounding=1):
    """The folded net, whose answers are held to be the same."""
    result = checked_run(FoldSharedKernels(multiple=multiple), load(planted))
    after = to_proto(result.model)
    feeds = feeds_for(planted, {})
    for optimize in (False, True):
        pairs = zip(outputs(planted, feeds, optimize=optimize), outputs(after, feeds, optimize=optimize), strict=True)
        for want, got in pairs:
            scale = np.abs(want.astype(np.float64)).max()
            assert np.abs(want - got).max() <= 4e-6 * rounding * max(scale, 1)
    return result


def widths(model):
    found = {node.name: kernels.kernel(node) for node in model.graph}
    return {name: kernel.outputs for name, kernel in found.items() if kernel is not None}


def compact(planter, model):
    """Hold that every dense kernel has the width that it was planted from."""
    assert {name: width for name, width in widths(model).items() if name in planter.widths} == planter.widths


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_chain(seed, dims):
    planter = Planter(seed, dims=dims)
    value, source = planter.source(3)
    value = planter.unary(planter.conv(value, 4), "Relu")
    value = planter.unary(planter.conv(value, 5), "LeakyRelu", alpha=0.2)
    value = planter.pool(planter.conv(value, 3), "MaxPool")
    planted = planter.model(source, planter.head(value))
    compact(planter, folded(planted).model)


HOMOGENEOUS = ("Relu", "LeakyRelu", "Abs", "Neg")
OTHERS = ("Sigmoid", "Tanh", "Elu", "HardSigmoid", "Softplus")


@st.composite
def planted_nets(draw):
    """A net of several branches and operators, with what was planted in it."""
    scaled = draw(st.booleans())
    planter = Planter(
        draw(st.integers(0, 10**6)),
        opset=draw(st.sampled_from([9, 11, 13, 17, 21])),
        dims=draw(st.integers(1, 2)),
        scaled=scaled,
        padded=scaled and draw(st.booleans()),
    )
    value, source = planter.source(draw(st.integers(1, 4)))
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 4))
        kinds = ["conv", "residual", "branches", *(["transposed"] if planter.padded else [])]  # its borders differ
        kind = draw(st.sampled_from(kinds))
        if kind == "residual":
            channels = planter.plant(width)
            value = planter.sum(*(planter.conv(value, width, channels, taps=1) for _ in range(2)))
        elif kind == "branches":
            one, other = planter.conv(value, width, taps=1), planter.conv(value, draw(st.integers(1, 3)), taps=1)
            width = 1000 + width
            value = planter.parts(planter.concat(one, other))
        else:
            value = planter.conv(value, width, transposed=kind == "transposed")
        for _ in range(draw(st.integers(0, 2))):
            operators = HOMOGENEOUS if scaled else HOMOGENEOUS + OTHERS
            pools = ["AveragePool", "MaxPool"] if not planter.padded else ["MaxPool"]
            step = draw(st.sampled_from(["unary", "depthwise", "norm", "pool"]))
            if step == "unary":
                value = planter.unary(value, draw(st.sampled_from(operators)))
            elif step == "pool":
                value = planter.pool(value, draw(st.sampled_from(pools)))
            elif width < 1000 and step == "depthwise":
                value = planter.depthwise(value, width)
            elif width < 1000:
                value = planter.batch_norm(value, width)
    return planter, planter.model(source, planter.head(value))


@settings(max_examples=120, deadline=None)
@given(planted_nets())
def test_any_planted_net_comes_back(made):
    planter, planted = made
    compact(planter, folded(planted).model)
