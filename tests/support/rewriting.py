"""Apply rules to a small model in ONNX text and hold their promise: valid, equal, no larger."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from optimizer.algorithms.rewriting.rules import Rule, sweep
from optimizer.contract.passes import Sites
from optimizer.graph import traversal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

TOLERANCE = {"float16": 4e-3, "float32": 2e-6, "float64": 1e-12}
MAX_SWEEPS = 20


def model(body: str, opset: int = 17) -> str:
    """The ONNX text of a model with one graph, at an opset."""
    return f'<ir_version: 8, opset_import: ["" : {opset}]> {body}'


def built(text: str, constants: Mapping[str, NDArray[np.generic]]) -> onnx.ModelProto:
    """The model of ``text``; inputs that ``constants`` names become initializers, shapes are inferred."""
    proto = onnx.parser.parse_model(text)
    for value in list(proto.graph.input):
        if value.name in constants:
            proto.graph.input.remove(value)
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            array = np.asarray(constants[value.name])
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), value.name))
    onnx.checker.check_model(proto, full_check=True)
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def feeds_for(model: onnx.ModelProto, dims: Mapping[str, int], seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Normal numbers for each float input, small positive ones for integers; symbolic dims as in ``dims``, else 2."""
    random = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [d.dim_value or dims.get(d.dim_param, 2) for d in value.type.tensor_type.shape.dim]
        numbers = random.integers(0, 2, shape) if kind.kind in "biu" else random.standard_normal(shape) * 2
        feeds[value.name] = numbers.astype(kind)
    return feeds


def outputs(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool
) -> list[NDArray[np.generic]]:
    """What ONNX Runtime answers."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: list[NDArray[np.generic]] = session.run(None, dict(feeds))
    return answers


def swept(model: ir.Model, rules: Sequence[Rule], sites: Sites | None = None) -> Counter[str]:
    """Sweep until nothing changes; unused initializers are removed, as the pass does."""
    total: Counter[str] = Counter()
    for _ in range(MAX_SWEEPS):
        changes = sweep(model, rules, sites or Sites())
        if not changes:
            break
        total.update(changes)
    else:
        raise AssertionError(f"the rules never come to rest: {total}")
    for graph in traversal.graphs(model):
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del graph.initializers[name]
    return total


def ops(model: ir.Model) -> list[str]:
    """The operators of the main graph in order, without Constant."""
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


def rewritten(
    text: str,
    rules: Sequence[Rule],
    *,
    dims: Mapping[str, int] | None = None,
    feeds: Mapping[str, NDArray[np.generic]] | None = None,
    constants: Mapping[str, NDArray[np.generic]] | None = None,
) -> ir.Model:
    """Apply ``rules`` to the model of ``text``, hold that it stays valid, equal and no larger, and return it."""
    before = built(text, constants or {})
    model = ir.from_proto(before)
    swept(model, rules)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert [v.SerializeToString() for v in after.graph.output] == [v.SerializeToString() for v in before.graph.output]
    del before.graph.value_info[:], after.graph.value_info[:]
    assert after.ByteSize() <= before.ByteSize()
    given = feeds_for(before, dims or {}) if feeds is None else feeds
    for optimize in (False, True):
        expected = outputs(before, given, optimize=optimize)
        for want, got in zip(expected, outputs(after, given, optimize=optimize), strict=True):
            assert_close(want, got)
    return model


def assert_close(want: NDArray[np.generic], got: NDArray[np.generic]) -> None:
    """Equal up to rounding: relative L2 for floats, else exactly."""
    assert want.shape == got.shape
    assert want.dtype == got.dtype
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(want, got)
        return
    exact, other = want.astype(np.float64), got.astype(np.float64)
    np.testing.assert_array_equal(np.isfinite(exact), np.isfinite(other))
    exact, other = exact[np.isfinite(exact)], other[np.isfinite(other)]
    norm = np.linalg.norm(exact) or 1.0
    assert np.linalg.norm(exact - other) <= TOLERANCE[want.dtype.name] * norm


def assert_untouched(
    text: str, rules: Sequence[Rule], constants: Mapping[str, NDArray[np.generic]] | None = None
) -> None:
    """Hold that ``rules`` leave the model of ``text`` as it is, to the byte."""
    model = ir.from_proto(built(text, constants or {}))
    swept(model, ())  # constants that the text has and no node reads go
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert dict(swept(model, rules)) == {}
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
