"""The models that onnx ships for tests of backends, with the inputs of their tests.

Node tests are made by code and hold their data; models that the wheel has as files have it beside them, in
``test_data_set_*`` folders, or none. ``frozen`` makes constants of inputs, so that there is something to fold and fuse.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.backend.test import loader
from onnx.backend.test.case import model as whole_models

if TYPE_CHECKING:
    from collections.abc import Iterator

FREEZE = ("none", "others", "all")
_FIRST_IR_VERSION = 4  # with initializers that are no inputs


@dataclass(frozen=True)
class Case:
    """A model and its inputs.

    Attributes:
        name: Kind and name of the test, or the path in the wheel's data.
        model: The model.
        feeds: Inputs by name, one mapping an inference; empty if the test has none.
    """

    name: str
    model: onnx.ModelProto
    feeds: tuple[dict[str, Any], ...] = ()


def backend_cases() -> Iterator[Case]:
    """Every model that onnx ships for tests of backends: made from the node tests, or read from the wheel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests compute on infinities on purpose
        cases = [*loader.load_node_model_tests(), *whole_models.collect_testcases()]
    for case in cases:
        if case.model is not None:
            sets = [[_plain(value) for value in inputs] for inputs, _ in case.data_sets or ()]
            yield Case(f"{case.kind}/{case.name}", case.model, _by_name(case.model, sets))
    yield from cases_in_files()


def cases_in_files() -> Iterator[Case]:
    """The models that onnx's wheel has as files."""
    for path in sorted(Path(loader.DATA_DIR).rglob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        yield Case(str(path.relative_to(loader.DATA_DIR)), model, _by_name(model, _stored(path.parent)))


def frozen(case: Case, which: str) -> Case | None:
    """``case`` with inputs made constants: ``all``, or all ``others`` than the first.

    Each output comes through an Identity then, since what a node gives out to the caller is never folded.

    Returns:
        None where there is nothing to make a constant of.
    """
    model, feed = onnx.ModelProto(), dict(case.feeds[0]) if case.feeds else {}
    model.CopyFrom(case.model)
    kept = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in kept]
    constants = {value.name for value in inputs[which == "others" :] if isinstance(feed.get(value.name), np.ndarray)}
    has_identity = any(entry.domain in {"", "ai.onnx"} for entry in model.opset_import)
    if which == "none" or not constants or model.ir_version < _FIRST_IR_VERSION or not has_identity:
        return None
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)
        array = feed.pop(value.name)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    for number, value in enumerate(model.graph.output):
        inner = f"inner_{number}"
        for node in model.graph.node:
            node.output[:] = [inner if name == value.name else name for name in node.output]
            node.input[:] = [inner if name == value.name else name for name in node.input]
        model.graph.node.append(onnx.helper.make_node("Identity", [inner], [value.name]))
    return replace(case, model=model, feeds=(feed,))


def _by_name(model: onnx.ModelProto, sets: list[list[Any]]) -> tuple[dict[str, Any], ...]:
    names = [value.name for value in model.graph.input]
    return tuple(dict(zip(names, values, strict=False)) for values in sets)


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _stored(folder: Path) -> list[list[Any]]:
    """The inputs in ``test_data_set_*``, which are all tensors."""
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        paths = sorted(data.glob("input_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
        sets.append([onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths])
    return sets
