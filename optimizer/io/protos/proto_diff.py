"""Whether two protos say the same, field by field, up to what carries no meaning.

- a field that is set to its default value equals one that is not set;
- ``value_info``, ``quantization_annotation``, ``metadata_props`` and operator sets are compared by name, not by order;
- where the data of a tensor lies: a placeholder for data that was left out equals it (type, shape and texts still
  count).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]  # ships no types

if TYPE_CHECKING:
    from google.protobuf.message import Message  # type: ignore[import-untyped]  # ships no types

_KEYS = {
    "metadata_props": "key",
    "quant_parameter_tensor_names": "key",
    "value_info": "name",
    "quantization_annotation": "tensor_name",
    "opset_import": "domain",
}
_ABOUT_DATA = ("dims", "data_type", "name", "doc_string", "segment", "metadata_props")  # what a placeholder has, too


def difference(before: Message, after: Message, path: str = "") -> str | None:
    """The path of the first field in which ``after`` says something else than ``before``; ``None`` if there is none."""
    if before == after:
        return None
    if isinstance(after, onnx.TensorProto) and after.data_location == onnx.TensorProto.EXTERNAL:
        return _placeholder_difference(before, after, path)
    old_fields, new_fields = _fields(before), _fields(after)
    for name in (*old_fields, *(name for name in new_fields if name not in old_fields)):
        path_of_difference = _field_difference(
            old_fields.get(name), new_fields.get(name), name, f"{path}.{name}" if path else name
        )
        if path_of_difference is not None:
            return path_of_difference
    # The messages differ, and no field that this version of onnx knows does
    return f"{path or 'model'}: a field that onnx {onnx.__version__} does not know" if UnknownFieldSet(before) else None


def _placeholder_difference(before: Message, after: Message, path: str) -> str | None:
    for name in _ABOUT_DATA:
        path_of_difference = _field_difference(getattr(before, name), getattr(after, name), name, f"{path}.{name}")
        if path_of_difference is not None:
            return path_of_difference
    return None


def _field_difference(before: Any, after: Any, name: str, path: str) -> str | None:
    if _is_list(before) or _is_list(after):
        return _list_difference(list(before or ()), list(after or ()), name, path)
    if hasattr(before, "ListFields") and hasattr(after, "ListFields"):
        return difference(before, after, path)
    is_nan = before != before and after != after  # noqa: PLR0124 - only NaN differs from itself
    return None if before == after or is_nan else path


def _list_difference(before: list[Any], after: list[Any], name: str, path: str) -> str | None:
    if name in _KEYS:
        return _keyed_difference(before, after, _KEYS[name], path)
    if len(before) != len(after):
        return path
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new and (path_of_difference := _field_difference(old, new, name, f"{path}[{index}]")) is not None:
            return path_of_difference
    return None


def _keyed_difference(before: list[Any], after: list[Any], key: str, path: str) -> str | None:
    old = {getattr(message, key): message for message in before}
    new = {getattr(message, key): message for message in after}
    if len(old) != len(before):
        repeated = next(getattr(message, key) for message in before if old[getattr(message, key)] is not message)
        return f"{path}[{repeated!r}], which is there twice,"
    for name in (*old, *(name for name in new if name not in old)):
        if name not in old or name not in new:
            return f"{path}[{name!r}]"
        if old[name] != new[name]:
            path_of_difference = difference(old[name], new[name], f"{path}[{name!r}]")
            if path_of_difference is not None:
                return path_of_difference
    return None


def _fields(message: Message) -> dict[str, Any]:
    """The fields of ``message`` that say something; one that is set to its default value does not."""
    return {
        field.name: value
        for field, value in message.ListFields()
        if _is_list(value) or hasattr(value, "ListFields") or field.containing_oneof or value != field.default_value
    }


def _is_list(value: Any) -> bool:
    return hasattr(value, "append")
