"""ONNX Runtime: sessions and runs.

Only this package imports onnxruntime. Models go to it as bytes, without a file. What would not fit into one protobuf
message (2 GB), or lies in external files, goes as a skeleton's bytes plus the big initializers as values over their
own, often memory-mapped, arrays: nothing is written to disk and no weight is copied but by the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from optimizer.errors import ReferenceRunError
from optimizer.evaluation.runtime import ort_values
from optimizer.io.external_data import MappedTensor
from optimizer.io.model import skeleton, to_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnxruntime as ort

INLINE_LIMIT = 1_500_000_000  # bytes of weights up to which a model goes to ONNX Runtime as one message
_SKELETON_LIMIT = 1024  # bytes; smaller tensors stay inline, or shapes that depend on them are lost
_DEFAULT_THREADS = 1


@dataclass(frozen=True)
class Slot:
    """An input or output of a session.

    Attributes:
        name: Its name.
        type: As ONNX Runtime spells it: ``tensor(float)``, ``seq(tensor(int64))``, ``optional(...)``, ``map(...)``.
        shape: Sizes, names of dynamic dimensions, ``None`` for dimensions without a name; empty where there is no rank.
        ranked: Whether ``shape`` is known at all, so that a scalar can be told from an unknown rank.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]
    ranked: bool = True


@dataclass(frozen=True)
class Loadable:
    """A model as ONNX Runtime takes it, made once for any number of sessions.

    Attributes:
        proto: The serialized model, or its skeleton.
        weights: What the skeleton leaves out, by initializer name.
        unranked: Names of inputs and outputs whose rank is unknown.
    """

    proto: bytes
    weights: Mapping[str, ir.TensorProtocol]
    unranked: frozenset[str] = frozenset()


class Session:
    """A loaded model. Its options are set once; it is safe to keep and run any number of times."""

    def __init__(self, raw: ort.InferenceSession, unranked: frozenset[str], keep: Sequence[Any] = ()) -> None:
        self._raw = raw
        self._keep = keep  # the session reads its external initializers from these
        self.inputs = tuple(_slot(arg, unranked) for arg in raw.get_inputs())
        self.outputs = tuple(_slot(arg, unranked) for arg in raw.get_outputs())
        self.overridable = tuple(_slot(arg, unranked) for arg in raw.get_overridable_initializers())
        self._types = {slot.name: slot.type for slot in (*self.inputs, *self.overridable)}
        self._ort_value_outputs = [slot.name for slot in self.outputs if ort_values.needs_ort_value(slot.type)]
        self._numpy_outputs = [slot.name for slot in self.outputs if not ort_values.needs_ort_value(slot.type)]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run one inference.

        Args:
            feeds: Arrays by input name; lists for sequences, ``None`` for an optional that holds nothing. Types that
                numpy lacks (bfloat16, float8, int4 …) are arrays of ``ml_dtypes``, one element a number.

        Returns:
            By output name: an array, a list (sequence), a dict (map), or ``None`` (empty optional).

        Raises:
            ReferenceRunError: With ONNX Runtime's reason on one line.
        """
        # Two runs where some outputs have no numpy type: run() refuses those, and gives sequences and maps as Python
        # values.
        try:
            ready = self._ready(feeds)
            outputs = (
                dict(zip(self._numpy_outputs, self._raw.run(self._numpy_outputs, ready), strict=True))
                if self._numpy_outputs
                else {}
            )
            if self._ort_value_outputs:
                wrapped = {key: ort_values.wrap(value) for key, value in ready.items()}
                values = self._raw.run_with_ort_values(self._ort_value_outputs, wrapped)
                outputs.update(
                    (name, ort_values.to_numpy(value))
                    for name, value in zip(self._ort_value_outputs, values, strict=True)
                )
            return {slot.name: outputs[slot.name] for slot in self.outputs}
        except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
            raise ReferenceRunError(f"ONNX Runtime cannot run the model: {reason(error)}") from error

    def runner(self, feeds: Sequence[Mapping[str, Any]]) -> Callable[[], object]:
        """A function that runs one inference with as little around it as possible, on each of ``feeds`` in turn."""
        ready = [self._ready(feed) for feed in feeds]
        call, names, count, turn = self._raw.run, self._numpy_outputs, len(ready), -1
        if self._ort_value_outputs:  # run() would refuse them, and empty names would mean all outputs
            names = [slot.name for slot in self.outputs]
            ready = [{key: ort_values.wrap(value) for key, value in feed.items()} for feed in ready]
            call = self._raw.run_with_ort_values

        def run() -> object:
            nonlocal turn
            turn += 1
            return call(names, ready[turn % count])

        return run

    def end_profiling(self) -> str:
        """The path of the profile, complete now."""
        return str(self._raw.end_profiling())

    def _ready(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {name: ort_values.from_feed(value, self._types.get(name, "")) for name, value in feeds.items()}


def prepare(model: ir.Model) -> Loadable:
    """Serialize ``model`` for any number of sessions.

    Raises:
        ReferenceRunError: If it does not fit into a protobuf message even without its big initializers.
    """
    ports = [*model.graph.inputs, *model.graph.outputs]
    unranked = frozenset(value.name for value in ports if value.name and value.shape is None)
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    weights: Mapping[str, ir.TensorProtocol] = {}
    if external or sum(tensor.nbytes for tensor in tensors) > INLINE_LIMIT:
        proto, weights = skeleton(model, _SKELETON_LIMIT)
    else:
        proto = to_proto(model)
    try:
        return Loadable(proto.SerializeToString(), weights, unranked)
    except ValueError as error:  # protobuf's EncodeError is one
        raise ReferenceRunError(
            f"the model does not fit into 2 GB without its initializers: {reason(error)}"
        ) from error


def session(model: ir.Model | Loadable, *, optimize: bool = True, threads: int = _DEFAULT_THREADS) -> Session:
    """Load ``model`` on the CPU.

    Args:
        model: The model; or what ``prepare`` made of it, where several sessions are wanted.
        optimize: Whether ONNX Runtime rewrites the graph (all its optimizations) or takes it as it is (none).
        threads: Threads inside an operator.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot load the model, with its reason on one line.
    """
    return _open(model, _options(optimize, threads))


def reason(error: BaseException) -> str:
    """The text of ``error`` on one line, without ONNX Runtime's code in front, at most 400 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= 400 else f"{text[:397]}..."


def _open(model: ir.Model | Loadable, options: ort.SessionOptions) -> Session:
    import onnxruntime  # noqa: PLC0415 - heavy: loaded when something is run

    ready = model if isinstance(model, Loadable) else prepare(model)
    try:
        values = [ort_values.from_tensor(tensor) for tensor in ready.weights.values()]
        if values:
            options.add_external_initializers(list(ready.weights), values)
        raw = onnxruntime.InferenceSession(ready.proto, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        raise ReferenceRunError(f"ONNX Runtime cannot load the model: {reason(error)}") from error
    for tensor in ready.weights.values():
        if isinstance(tensor, MappedTensor):
            tensor.release()  # the session has its own copy; what it still reads comes from the file again
    return Session(raw, ready.unranked, values)


def _options(optimize: bool, threads: int) -> ort.SessionOptions:
    import onnxruntime  # noqa: PLC0415 - heavy: loaded when something is run

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return options


def _slot(arg: ort.NodeArg, unranked: frozenset[str]) -> Slot:
    return Slot(arg.name, arg.type, tuple(arg.shape), ranked=arg.name not in unranked)
