"""What onnx-ir drops or adds on the way through it: preserved when a model is read, restored when it is written.

Preserved, on the ``meta`` of the graph that it belongs to (which clones keep):

- ``training_info``; a model whose training part needs a value that is gone cannot be written;
- types that onnx-ir does not know (maps, opaque), by the name of the input or output, which passes leave alone;
- ``value_info`` and ``quantization_annotation`` that onnx-ir hangs on no value: of a graph's own outputs, or of
  names that do not exist. They are restored as long as the name still stands for the same kind of thing.

Corrected:

- outputs without a name at the end of a node (``Split`` and control flow count them);
- ``value_info`` that onnx-ir makes up for initializers, whose tensors say the same;
- explicit empty domains of operator sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import onnx

from optimizer.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableSequence, Sequence

    import onnx_ir as ir

    from optimizer.io.protos.ir_places import IrPlaces, ScopeProto

PRESERVED, TRAINING = "onnxhone.preserved", "onnxhone.training_info"
_Message = TypeVar("_Message", onnx.ValueInfoProto, onnx.TensorAnnotation)
_FIRST_WITH_FUNCTION_INFOS = 10  # IR version; before it, onnx-ir writes them into the main graph under made-up names


@dataclass(frozen=True)
class Preserved:
    """What is preserved of one graph or function.

    Attributes:
        infos: Names of initializers, and made-up names of function values, that have a ``value_info`` in the file.
        extra_infos: ``value_info`` of no value, and what its name stands for: an input, output, initializer, value or
            nothing.
        extra_annotations: The same for ``quantization_annotation``.
        types: Types of inputs and outputs that onnx-ir does not know.
    """

    infos: frozenset[str] = frozenset()
    extra_infos: tuple[tuple[str, onnx.ValueInfoProto], ...] = ()
    extra_annotations: tuple[tuple[str, onnx.TensorAnnotation], ...] = ()
    types: Mapping[str, onnx.TypeProto] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """The training part of a model, and the names of the main graph that it refers to."""

    infos: tuple[onnx.TrainingInfoProto, ...]
    needs: frozenset[str]


def preserve(original: Sequence[ScopeProto], drafted: Sequence[ScopeProto], places: IrPlaces) -> None:
    """Preserve, on the graphs of ``places``, what ``original`` has and ``drafted``, which onnx-ir wrote, has not."""
    for graph, before, after in zip(places.scopes, original, drafted, strict=True):
        missing = _missing(before, after, graph)
        if missing != Preserved():
            graph.meta[PRESERVED] = missing


def preserve_training(model: ir.Model, original: onnx.ModelProto) -> None:
    """Preserve the training part of ``original``."""
    if original.training_info:
        needs = _names_in(original.training_info) & _Names(original.graph).all()
        model.graph.meta[TRAINING] = Training(tuple(original.training_info), frozenset(needs))


def rename(graph: ir.Graph, renamed: Mapping[str, str]) -> None:
    """Give the values of ``graph`` their new names in what is preserved of it; ``renamed`` is from old to new."""
    preserved = graph.meta.get(PRESERVED)
    if preserved is None or not renamed:
        return
    graph.meta[PRESERVED] = Preserved(
        frozenset(renamed.get(name, name) for name in preserved.infos),
        tuple((role, _called(info, "name", renamed)) for role, info in preserved.extra_infos),
        tuple((role, _annotation_called(annotation, renamed)) for role, annotation in preserved.extra_annotations),
        {renamed.get(name, name): type_proto for name, type_proto in preserved.types.items()},
    )


def _annotation_called(annotation: onnx.TensorAnnotation, renamed: Mapping[str, str]) -> onnx.TensorAnnotation:
    twin = _called(annotation, "tensor_name", renamed)
    for entry in twin.quant_parameter_tensor_names:
        entry.value = renamed.get(entry.value, entry.value)
    return twin


def _called(message: _Message, field: str, renamed: Mapping[str, str]) -> _Message:
    """A copy of ``message`` in which ``field`` has its new name."""
    twin = type(message)()
    twin.CopyFrom(message)
    setattr(twin, field, renamed.get(getattr(twin, field), getattr(twin, field)))
    return twin


def restore(model: ir.Model, proto: onnx.ModelProto, scopes: Sequence[ScopeProto], places: IrPlaces) -> None:
    """Make ``proto`` whole, as onnx-ir wrote it from ``model``.

    Raises:
        ModelError: If the training part needs a value that is not there any more.
    """
    # 1. Outputs without a name at the end of a node
    for number, position, count in places.open_ended:
        outputs = scopes[number].node[position].output
        outputs.extend([""] * (count - len(outputs)))
    # 2. ``value_info``, annotations and types, in each graph and function
    for graph, scope in zip(places.scopes, scopes, strict=True):
        preserved = graph.meta.get(PRESERVED) or Preserved()
        _remove_made_up(graph, scope, preserved)
        _restore_annotations(scope, preserved)
    if model.functions and model.ir_version < _FIRST_WITH_FUNCTION_INFOS:
        _remove_function_infos(proto.graph, model.graph.meta.get(PRESERVED) or Preserved())
    # 3. Operator sets of ONNX itself, whose domain onnx-ir writes as an explicit empty text
    for owner in (proto, *proto.functions):
        for opset in owner.opset_import:
            if not opset.domain:
                opset.ClearField("domain")
    _restore_training(model, proto)


def _missing(before: ScopeProto, after: ScopeProto, graph: ir.Graph) -> Preserved:
    """What ``before``, the file, says of one graph and ``after``, as onnx-ir wrote it, does not."""
    written = {info.name: info for info in after.value_info}
    initializers = graph.initializers.data
    names = _Names(before)
    infos = {info.name for info in before.value_info if info.name in initializers or _is_of_function(info.name)}
    extra = [(names.role(info.name), info) for info in before.value_info if info.name not in written]
    if isinstance(before, onnx.FunctionProto):
        return Preserved(frozenset(infos), tuple(extra))
    annotated = {annotation.tensor_name for annotation in after.quantization_annotation}
    lost_annotations = [
        annotation for annotation in before.quantization_annotation if annotation.tensor_name not in annotated
    ]
    # A type that onnx-ir does not know was cleared before it read the model
    interface = [*zip(before.input, after.input, strict=True), *zip(before.output, after.output, strict=True)]
    types = {old.name: old.type for old, new in interface if old.HasField("type") and not new.HasField("type")}
    annotations = tuple((names.role(annotation.tensor_name), annotation) for annotation in lost_annotations)
    return Preserved(frozenset(infos), tuple(extra), annotations, types)


def _restore_annotations(scope: ScopeProto, preserved: Preserved) -> None:
    names = _Names(scope)
    if preserved.extra_infos:
        present = {info.name for info in scope.value_info}
        scope.value_info.extend(
            info for role, info in preserved.extra_infos if names.role(info.name) == role and info.name not in present
        )
    if isinstance(scope, onnx.FunctionProto):
        return
    scope.quantization_annotation.extend(
        annotation for role, annotation in preserved.extra_annotations if names.role(annotation.tensor_name) == role
    )
    _remove_repeated(scope.quantization_annotation)
    if preserved.types:
        for info in (*scope.input, *scope.output):
            if info.name in preserved.types and not info.HasField("type"):
                info.type.CopyFrom(preserved.types[info.name])


def _remove_made_up(graph: ir.Graph, scope: ScopeProto, preserved: Preserved) -> None:
    """Remove the infos of initializers that were not in the file; onnx-ir writes all of them first."""
    initializers, infos = graph.initializers.data, scope.value_info
    end = next((index for index, info in enumerate(infos) if info.name not in initializers), len(infos))
    is_made_up = [
        info.name not in preserved.infos and (not _says_more(info) or initializers[info.name].is_graph_output())
        for info in infos[:end]
    ]  # what an info of a graph output says more, the output says
    _remove_where(is_made_up, infos)


def _remove_function_infos(graph: onnx.GraphProto, preserved: Preserved) -> None:
    _remove_where(
        [_is_of_function(info.name) and info.name not in preserved.infos for info in graph.value_info], graph.value_info
    )


def _remove_where(doomed: Sequence[bool], messages: MutableSequence[_Message]) -> None:
    """Remove the messages that ``doomed`` marks from a repeated field, in runs: each removal moves all that follow."""
    end = len(doomed)
    while end > 0:
        start = end
        while start > 0 and doomed[start - 1]:
            start -= 1
        del messages[start:end]
        end = start - 1


def _remove_repeated(annotations: MutableSequence[onnx.TensorAnnotation]) -> None:
    seen: set[str] = set()
    repeated = []
    for annotation in annotations:
        repeated.append(annotation.tensor_name in seen)
        seen.add(annotation.tensor_name)
    _remove_where(repeated, annotations)


def _says_more(info: onnx.ValueInfoProto) -> bool:
    return bool(info.doc_string or info.metadata_props)


def _is_of_function(name: str) -> bool:
    """Whether a value's name is one that exporters before IR version 10 gave to a value of a function."""
    return "::" in name and "/" in name


def _restore_training(model: ir.Model, proto: onnx.ModelProto) -> None:
    training = model.graph.meta.get(TRAINING)
    if training is None:
        return
    missing = training.needs - _Names(proto.graph).all()
    if missing:
        raise ModelError(
            f"the training part needs {min(missing)!r}, which is gone; keep it, or remove training_info first"
        )
    proto.training_info.extend(training.infos)


def _names_in(infos: Iterable[onnx.TrainingInfoProto]) -> set[str]:
    names: set[str] = set()
    for info in infos:
        for binding in (*info.initialization_binding, *info.update_binding):
            names |= {binding.key, binding.value}
        for graph in (info.initialization, info.algorithm):
            for node in graph.node:
                names.update(node.input)
    return names


class _Names:
    """What the names of a scope stand for; looked up only when something asks."""

    def __init__(self, scope: ScopeProto) -> None:
        self._scope = scope
        self._roles: dict[str, str] | None = None

    def role(self, name: str) -> str:
        return self._all().get(name, "nothing")

    def all(self) -> set[str]:
        return set(self._all())

    def _all(self) -> dict[str, str]:
        if self._roles is None:
            scope, roles = self._scope, dict[str, str]()
            for node in scope.node:
                roles.update(dict.fromkeys(node.output, "value"))
            if isinstance(scope, onnx.FunctionProto):
                roles |= dict.fromkeys(scope.output, "output") | dict.fromkeys(scope.input, "input")
            else:
                roles |= {info.name: "output" for info in scope.output}
                roles |= {tensor.name: "initializer" for tensor in scope.initializer}
                roles |= {tensor.values.name: "initializer" for tensor in scope.sparse_initializer}
                roles |= {info.name: "input" for info in scope.input}
            self._roles = roles
        return self._roles
