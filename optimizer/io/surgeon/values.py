"""The values of a GraphSurgeon graph, by name and scope, back in onnx-ir."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_graphsurgeon as gs
import onnx_ir as ir

from optimizer.errors import PreconditionError
from optimizer.io.surgeon.types import ir_dtype, record_of, shape_of, tensor_of, type_of


class ValueScope:
    """The values of one graph by name, and what encloses it."""

    def __init__(self, outer: ValueScope | None) -> None:
        self.outer = outer
        self.values: dict[str, ir.Value] = {}

    def define(self, tensor: gs.Tensor) -> ir.Value:
        """A new value of this graph; an output without a name is one that nothing reads."""
        if not tensor.name:
            return ir.Value(name="")
        if tensor.name in self.values:
            raise PreconditionError(f"two tensors are called '{tensor.name}'; rename one, or clear a Constant's inputs")
        self.values[tensor.name] = value = _value(tensor)
        return value

    def find(self, name: str) -> ir.Value | None:
        """The value that ``name`` stands for here."""
        scope: ValueScope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return None

    def read(self, tensor: gs.Tensor) -> ir.Value | None:
        """What an input of a node reads; ``None`` if it was left out."""
        if not tensor.name:
            return None
        return self.find(tensor.name) or self.define(tensor)

    def own(self, tensor: gs.Tensor) -> ir.Value:
        """The value of this very graph that is its output."""
        return self.values.get(tensor.name) or self.define(tensor)


def describe(target: Any, source: Any) -> None:
    """Give ``target`` what hangs on what it came from."""
    if source is not None:
        target.metadata_props.update(source.metadata_props)
        target.meta.update(source.meta)


def devices_of(source: ir.Node, scope: ValueScope) -> tuple[Any, ...]:
    """The device configurations of ``source`` over the new values."""
    return tuple(
        replace(configuration, sharding_specs=tuple(_spec(spec, scope) for spec in configuration.sharding_specs))
        for configuration in source.device_configurations
    )


def _spec(spec: Any, scope: ValueScope) -> Any:
    value = None if spec.value is None or not spec.value.name else scope.find(spec.value.name)
    return spec if value is None else replace(spec, value=value)


def _value(tensor: gs.Tensor) -> ir.Value:
    record = record_of(tensor)
    source: ir.Value | None = None if record is None else record.source
    value = ir.Value(name=tensor.name, doc_string=None if source is None else source.doc_string)
    if isinstance(tensor, gs.Constant):
        value.const_value = tensor_of(tensor)
        value.type, value.shape = _constant_type(value.const_value, source)
    elif record is None or source is None or not _is_as_shown(tensor, record.shown):
        type_name = getattr(tensor, "type", "tensor_type")
        value.type, value.shape = type_of(tensor.dtype, type_name), shape_of(tensor.shape)
    else:
        value.type, value.shape = source.type, None if source.shape is None else source.shape.copy()
    describe(value, source)
    return value


def _constant_type(tensor: ir.TensorProtocol, source: ir.Value | None) -> tuple[ir.TypeProtocol, ir.Shape]:
    if source is not None and source.const_value is tensor and source.type is not None and source.shape is not None:
        return source.type, source.shape.copy()
    return ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())


def _is_as_shown(tensor: gs.Variable, shown: dict[str, Any]) -> bool:
    if "dtype" not in shown or getattr(tensor, "type", "tensor_type") != shown["type"]:
        return False
    now, then = tensor.dtype, shown["dtype"]
    is_same_dtype = now is then or (now is not None and then is not None and ir_dtype(now) == ir_dtype(then))
    return is_same_dtype and (None if tensor.shape is None else list(tensor.shape)) == shown["shape"]
