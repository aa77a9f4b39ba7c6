"""What passes found out about models, kept for the next try of the same run under a key that says its type.

A kind of finding is a frozen dataclass over ``MemoKey``, whose fields are the options that the finding depends on::

    @dataclass(frozen=True)
    class Profile(MemoKey[Mapping[str, float]]):
        threads: int

    seconds = memo.get(model, Profile(threads=1), lambda: evaluator.profile(model))

Models are told apart by their content: each try works on a clone. Of a tensor, which is never written into, the bytes
are read once, however many clones share it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import onnx_ir as ir

from optimizer.graph import traversal

if TYPE_CHECKING:
    from collections.abc import Callable

_Finding = TypeVar("_Finding")


@dataclass(frozen=True)
class MemoKey(Generic[_Finding]):
    """A kind of finding, with the options that it depends on."""


class Memo:
    """Findings by the content of a model and by key."""

    def __init__(self) -> None:
        self._findings: dict[tuple[bytes, MemoKey[Any]], Any] = {}
        self._tensors: WeakKeyDictionary[ir.TensorProtocol, bytes] = WeakKeyDictionary()

    def get(self, model: ir.Model, key: MemoKey[_Finding], make: Callable[[], _Finding]) -> _Finding:
        """The finding about ``model`` under ``key``; ``make`` finds it out the first time."""
        place = self._digest(model), key
        if place not in self._findings:
            self._findings[place] = make()
        finding: _Finding = self._findings[place]
        return finding

    def clear(self) -> None:
        """Forget all findings."""
        self._findings.clear()

    def _digest(self, model: ir.Model) -> bytes:
        """A digest of all nodes with their attributes, and of all weights."""
        state = hashlib.blake2b()
        for graph in traversal.graphs(model):
            for name, value in graph.initializers.items():
                state.update(f"{name}\0".encode())
                if value.const_value is not None:
                    state.update(self._tensor_digest(value.const_value))
            for node in graph:
                names = [value.name if value is not None else None for value in (*node.inputs, *node.outputs)]
                state.update(f"{node.domain} {node.op_type} {names}\0".encode())
                for attribute in node.attributes.values():
                    state.update(self._attribute_digest(attribute))
        return state.digest()

    def _attribute_digest(self, attribute: ir.Attr) -> bytes:
        """A digest of ``attribute``, but for the nodes of subgraphs, which are visited on their own."""
        start = f"{attribute.name} {attribute.type} {attribute.ref_attr_name}\0".encode()
        if attribute.is_ref() or attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            return start
        if attribute.type == ir.AttributeType.TENSOR:
            return start + self._tensor_digest(attribute.as_tensor())
        return start + repr(attribute.value).encode()

    def _tensor_digest(self, tensor: ir.TensorProtocol) -> bytes:
        if tensor not in self._tensors:
            state = hashlib.blake2b(f"{tensor.dtype} {tensor.shape}\0".encode())
            state.update(tensor.tobytes())
            self._tensors[tensor] = state.digest()
        return self._tensors[tensor]
