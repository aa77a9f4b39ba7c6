"""The gates of structure: the signature and the model's frame stay, and no file grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.engine.attempt import Failure

if TYPE_CHECKING:
    import onnx_ir as ir


def signature_failure(reference: ir.Model, candidate: ir.Model) -> Failure | None:
    """Inputs and outputs must keep names, order, types and shapes; metadata and opsets must stay."""
    for direction in ("inputs", "outputs"):
        before, after = _slots(getattr(reference.graph, direction)), _slots(getattr(candidate.graph, direction))
        if before != after:
            return Failure("signature", f"{direction} changed from {_listed(before)} to {_listed(after)}")
    for field in ("domain", "model_version", "doc_string", "producer_name", "producer_version", "metadata_props"):
        old, new = getattr(reference, field), getattr(candidate, field)
        if (old or None) != (new or None):
            return Failure("signature", f"the model's {field} changed from {old!r} to {new!r}")
    # Upgrades and new domains are allowed; a lower version may not know an attribute that is used.
    for domain, version in candidate.graph.opset_imports.items():
        if version < reference.graph.opset_imports.get(domain, version):
            return Failure("signature", f"opset of {domain or 'ai.onnx'!r} was lowered to {version}")
    return None


def size_failure(bytes_before: int, bytes_after: int) -> Failure | None:
    """An exact stage may not grow the file."""
    if bytes_after > bytes_before:
        return Failure("size", f"the file would grow from {bytes_before:,} to {bytes_after:,} bytes")
    return None


def _slots(values: list[ir.Value]) -> list[tuple[str | None, str, str]]:
    return [(value.name, str(value.type), str(value.shape)) for value in values]


def _listed(slots: list[tuple[str | None, str, str]]) -> str:
    return ", ".join(f"{name} {type_text}{shape}" for name, type_text, shape in slots) or "none"
