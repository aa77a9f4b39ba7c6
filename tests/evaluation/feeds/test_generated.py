"""Inputs made up for a model run, are the same each time, and come in two sizes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from optimizer.errors import ReferenceRunError, UsageError
from optimizer.evaluation.feeds.loading import generate
from optimizer.evaluation.runtime.session import session

HEAD = '<ir_version: 10, opset_import: ["": 17]>'


def built(body, signature):
    return ir.from_onnx_text(f"{HEAD} g {signature} {{ {body} }}")


def runs(model, **options):
    split = generate(model, **options)
    ready = session(model)
    feeds = [*split.calibration, *split.validation]
    for feed in feeds:
        ready.run(feed)
    return split, feeds


IMAGE = built("y = Relu(x)", "(float[N,3,H,W] x) => (float[N,3,H,W] y)")


def test_an_image_in_two_sizes():
    split, feeds = runs(IMAGE)
    assert len(split.validation) == 8
    assert len({feed["x"].shape for feed in split.validation}) == 2
    assert {feed["x"].shape[1] for feed in feeds} == {3}
    assert split.origin == "generated"
    assert split.notes[0].startswith("inputs were generated: x:1,3,224,224, and x:")


def test_the_same_seed_gives_the_same_feeds():
    first, again, other = (generate(IMAGE, seed=seed, count=3).validation[0]["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_shapes_of_the_user_hold():
    _, feeds = runs(IMAGE, shapes={"x": (2, 3, 32, 48)})
    assert {feed["x"].shape for feed in feeds} == {(2, 3, 32, 48)}
    with pytest.raises(UsageError, match="does not fit"):
        generate(IMAGE, shapes={"x": (1, 4, 8, 8)})
    with pytest.raises(UsageError, match="not an input"):
        generate(IMAGE, shapes={"z": (1,)})


def test_dimensions_of_one_name_have_one_size():
    model = built("y = Add(a, b)", "(float[N,L] a, float[N,L] b) => (float[N,L] y)")
    _, feeds = runs(model)
    assert all(feed["a"].shape == feed["b"].shape for feed in feeds)


def test_indices_stay_inside_their_table():
    model = built(
        "k = Constant<value_floats=[1.0, 2.0, 3.0]>() y = Gather(k, input_ids)",
        "(int64[N,L] input_ids) => (float[N,L] y)",
    )
    _, feeds = runs(model)
    assert max(int(feed["input_ids"].max()) for feed in feeds) <= 2
    assert min(int(feed["input_ids"].min()) for feed in feeds) >= 0


def test_a_shape_input():
    _, feeds = runs(built("y = Reshape(x, s)", "(float[4] x, int64[2] s) => (float[A,B] y)"))
    assert {int(abs(np.prod(feed["s"]))) for feed in feeds} <= {1, 2, 4}


def test_sizes_that_the_graph_demands_are_found():
    model = built("s = Constant<value_ints=[-1, 64]>() y = Reshape(x, s)", "(float[N,L] x) => (float[A,B] y)")
    _, feeds = runs(model)
    assert {feed["x"].size % 64 for feed in feeds} == {0}


def test_masks_and_booleans():
    model = built(
        "a = Cast<to=1>(attention_mask) b = Cast<to=1>(flag) c = Mul(a, b) y = Mul(c, x)",
        "(int64[N,L] attention_mask, bool[N,L] flag, float[N,L] x) => (float[N,L] y)",
    )
    _, feeds = runs(model)
    assert set(np.unique(np.concatenate([feed["attention_mask"].ravel() for feed in feeds]))) == {0, 1}


@pytest.mark.parametrize("kind", ["float16", "double", "bfloat16", "int32", "uint8", "int8", "bool", "string"])
def test_element_types(kind):
    _, feeds = runs(built("y = Identity(x)", f"({kind}[N,4] x) => ({kind}[N,4] y)"))
    assert feeds[0]["x"].shape[1] == 4


def test_sequences():
    runs(built("y = SequenceAt(x, i)", "(seq(float[2]) x, int64[] i) => (float[2] y)"), count=3)


def test_a_model_without_inputs():
    split, _ = runs(built("y = Constant<value_floats=[1.0]>()", "() => (float[1] y)"))
    assert len(split.validation) == 8


def test_what_cannot_run_names_the_way_out():
    model = built(
        "k = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]>() a = Add(x, k) y = Add(a, z)",
        "(float[9] x, float[7] z) => (float[M] y)",
    )
    with pytest.raises(ReferenceRunError):
        generate(model)


def test_the_model_is_not_changed():
    before = ir.to_proto(IMAGE).SerializeToString()
    generate(IMAGE, count=3)
    assert ir.to_proto(IMAGE).SerializeToString() == before
