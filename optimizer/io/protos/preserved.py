"""What onnx-ir drops or adds on the way through it, kept aside when a model is read and put back when it is written.

Kept aside, on the ``meta`` of the graph that it belongs to (which clones keep):

- ``training_info``; a model whose training part needs a value that is gone cannot be written;
- types that onnx-ir does not know (maps, opaque), by the name of the input or output, which passes leave alone;
- ``value_info`` and ``quantization_annotation`` that onnx-ir hangs on no value: of a graph's own outputs, or of
  names that do not exist. They are put back as long as the name still stands for the same kind of thing.

Put right:

- outputs without a name at the end of a node (``Split`` and control flow count them);
- ``value_info`` that onnx-ir makes up for initializers, whose tensors say the same;
- explicit empty domains of operator sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import onnx

from optimizer.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.io.protos.ir_places import IrPlaces, ScopeProto

KEPT, TRAINING = "onnxhone.kept", "onnxhone.training_info"
_Message = TypeVar("_Message", onnx.ValueInfoProto, onnx.TensorAnnotation)
_FIRST_WITH_FUNCTION_INFOS = 10  # IR version; before it, onnx-ir writes them into the main graph under made-up names


@dataclass(frozen=True)
class Preserved:
    """What is kept aside for one graph or function.

    Attributes:
        infos: Names of initializers, and made-up names of function values, that have a ``value_info`` in the file.
        extra_infos: ``value_info`` of no value, and the kind of thing that its name stands for.
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


def preserve(original: Sequence[ScopeProto], drafted: Sequence[ScopeProto], parts: IrPlaces) -> None:
    """Keep aside, on the graphs of ``parts``, what ``original`` has and ``drafted``, which onnx-ir wrote, has not."""
    for graph, before, after in zip(parts.scopes, original, drafted, strict=True):
        kept = _missing(before, after, graph)
        if kept != Preserved():
            graph.meta[KEPT] = kept


def preserve_training(model: ir.Model, original: onnx.ModelProto) -> None:
    """Keep aside the training part of ``original``."""
    if original.training_info:
        needs = _names_in(original.training_info) & _Names(original.graph).all()
        model.graph.meta[TRAINING] = Training(tuple(original.training_info), frozenset(needs))


def follow(graph: ir.Graph, renamed: Mapping[str, str]) -> None:
    """Let what is kept aside for ``graph`` speak of its values by their new names."""
    kept = graph.meta.get(KEPT)
    if kept is None or not renamed:
        return
    graph.meta[KEPT] = Preserved(
        frozenset(renamed.get(name, name) for name in kept.infos),
        tuple((kind, _called(info, "name", renamed)) for kind, info in kept.extra_infos),
        tuple((kind, _annotation_called(one, renamed)) for kind, one in kept.extra_annotations),
        {renamed.get(name, name): kind for name, kind in kept.types.items()},
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


def restore(model: ir.Model, proto: onnx.ModelProto, scopes: Sequence[ScopeProto], parts: IrPlaces) -> None:
    """Make ``proto``, as onnx-ir wrote it from ``model``, whole.

    Raises:
        ModelError: If the training part needs a value that is not there any more.
    """
    for number, position, count in parts.open_ended:
        outputs = scopes[number].node[position].output
        outputs.extend([""] * (count - len(outputs)))
    for graph, scope in zip(parts.scopes, scopes, strict=True):
        kept = graph.meta.get(KEPT) or Preserved()
        _remove_made_up(graph, scope, kept)
        _put_back_into(scope, kept)
    if model.functions and model.ir_version < _FIRST_WITH_FUNCTION_INFOS:
        _remove_function_infos(proto.graph, model.graph.meta.get(KEPT) or Preserved())
    for owner in (proto, *proto.functions):
        for opset in owner.opset_import:
            if not opset.domain:
                opset.ClearField("domain")
    _put_back_training(model, proto)


def _missing(before: ScopeProto, after: ScopeProto, graph: ir.Graph) -> Preserved:
    written = {info.name: info for info in after.value_info}
    held = graph.initializers.data
    names = _Names(before)
    infos = {info.name for info in before.value_info if info.name in held or _is_of_function(info.name)}
    extra = [(names.kind(info.name), info) for info in before.value_info if info.name not in written]
    if isinstance(before, onnx.FunctionProto):
        return Preserved(frozenset(infos), tuple(extra))
    annotated = {annotation.tensor_name for annotation in after.quantization_annotation}
    lost = [one for one in before.quantization_annotation if one.tensor_name not in annotated]
    borders = [*zip(before.input, after.input, strict=True), *zip(before.output, after.output, strict=True)]
    types = {old.name: old.type for old, new in borders if old.HasField("type") and not new.HasField("type")}
    annotations = tuple((names.kind(one.tensor_name), one) for one in lost)
    return Preserved(frozenset(infos), tuple(extra), annotations, types)


def _put_back_into(scope: ScopeProto, kept: Preserved) -> None:
    names = _Names(scope)
    if kept.extra_infos:
        present = {info.name for info in scope.value_info}
        scope.value_info.extend(
            info for kind, info in kept.extra_infos if names.kind(info.name) == kind and info.name not in present
        )
    if isinstance(scope, onnx.FunctionProto):
        return
    scope.quantization_annotation.extend(
        one for kind, one in kept.extra_annotations if names.kind(one.tensor_name) == kind
    )
    _remove_repeated(scope.quantization_annotation)
    if kept.types:
        for info in (*scope.input, *scope.output):
            if info.name in kept.types and not info.HasField("type"):
                info.type.CopyFrom(kept.types[info.name])


def _remove_made_up(graph: ir.Graph, scope: ScopeProto, kept: Preserved) -> None:
    """Remove the infos of initializers that were not in the file; onnx-ir writes all of them first."""
    held, infos = graph.initializers.data, scope.value_info
    end = next((index for index, info in enumerate(infos) if info.name not in held), len(infos))
    _remove_where([not _says_more(info) and info.name not in kept.infos for info in infos[:end]], infos)


def _remove_function_infos(graph: onnx.GraphProto, kept: Preserved) -> None:
    _remove_where(
        [_is_of_function(info.name) and info.name not in kept.infos for info in graph.value_info], graph.value_info
    )


def _remove_where(doomed: Sequence[bool], items: Any) -> None:
    """Remove items in runs, since each removal moves all that follow."""
    end = len(doomed)
    while end > 0:
        start = end
        while start > 0 and doomed[start - 1]:
            start -= 1
        del items[start:end]
        end = start - 1


def _remove_repeated(annotations: Any) -> None:
    seen: set[str] = set()
    repeated = []
    for one in annotations:
        repeated.append(one.tensor_name in seen)
        seen.add(one.tensor_name)
    _remove_where(repeated, annotations)


def _says_more(info: onnx.ValueInfoProto) -> bool:
    return bool(info.doc_string or info.metadata_props)


def _is_of_function(name: str) -> bool:
    """Whether a value's name is one that exporters before IR version 10 gave to a value of a function."""
    return "::" in name and "/" in name


def _put_back_training(model: ir.Model, proto: onnx.ModelProto) -> None:
    training = model.graph.meta.get(TRAINING)
    if training is None:
        return
    gone = training.needs - _Names(proto.graph).all()
    if gone:
        raise ModelError(
            f"the training part needs {min(gone)!r}, which is gone; keep it, or remove training_info first"
        )
    proto.training_info.extend(training.infos)


def _names_in(infos: Iterable[onnx.TrainingInfoProto]) -> set[str]:
    found: set[str] = set()
    for info in infos:
        for binding in (*info.initialization_binding, *info.update_binding):
            found |= {binding.key, binding.value}
        for graph in (info.initialization, info.algorithm):
            for node in graph.node:
                found.update(node.input)
    return found


class _Names:
    """What the names of a scope stand for; looked up only when something asks."""

    def __init__(self, scope: ScopeProto) -> None:
        self._scope = scope
        self._kinds: dict[str, str] | None = None

    def kind(self, name: str) -> str:
        return self._all().get(name, "nothing")

    def all(self) -> set[str]:
        return set(self._all())

    def _all(self) -> dict[str, str]:
        if self._kinds is None:
            scope, kinds = self._scope, dict[str, str]()
            for node in scope.node:
                kinds.update(dict.fromkeys(node.output, "value"))
            if isinstance(scope, onnx.FunctionProto):
                kinds |= dict.fromkeys(scope.output, "output") | dict.fromkeys(scope.input, "input")
            else:
                kinds |= {info.name: "output" for info in scope.output}
                kinds |= {tensor.name: "initializer" for tensor in scope.initializer}
                kinds |= {tensor.values.name: "initializer" for tensor in scope.sparse_initializer}
                kinds |= {info.name: "input" for info in scope.input}
            self._kinds = kinds
        return self._kinds
