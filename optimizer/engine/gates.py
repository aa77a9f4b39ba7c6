"""The gates of structure and worth: the signature and the model's frame stay, no file grows, what must pay does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.engine.attempt import Failure

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.engine.attempt import Attempt
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.recipes.spec import Stage


def signature_failure(reference: ir.Model, candidate: ir.Model) -> Failure | None:
    """Inputs and outputs must keep names, order, types and shapes; metadata and opsets must stay."""
    for kind in ("inputs", "outputs"):
        before, after = _slots(getattr(reference.graph, kind)), _slots(getattr(candidate.graph, kind))
        if before != after:
            return Failure("signature", f"{kind} changed from {_listed(before)} to {_listed(after)}")
    for field in ("domain", "model_version", "doc_string", "producer_name", "producer_version", "metadata_props"):
        old, new = getattr(reference, field), getattr(candidate, field)
        if (old or None) != (new or None):
            return Failure("signature", f"the model's {field} changed from {old!r} to {new!r}")
    for domain, version in candidate.graph.opset_imports.items():
        if version < reference.graph.opset_imports.get(domain, version):
            return Failure("signature", f"opset of {domain or 'ai.onnx'!r} was lowered to {version}")
    return None


def size_failure(bytes_before: int, bytes_after: int) -> Failure | None:
    """An exact stage may not grow the file."""
    if bytes_after > bytes_before:
        return Failure("size", f"the file would grow from {bytes_before:,} to {bytes_after:,} bytes")
    return None


def must_pay(stage: Stage, result: Attempt) -> bool:
    """Whether a pass changed something that is kept only where it measures faster."""
    return any(ran.changes and member.must_pay for member, ran in zip(stage.passes, result.runs, strict=True))


def unpaid(bytes_before: int, bytes_after: int, latency: Latency | None, *, named: bool) -> str:
    """Why an exact stage that must pay does not; empty if it does.

    Args:
        bytes_before: File size before it.
        bytes_after: And after it.
        latency: Its model against the one before it; ``None`` where time is not measured.
        named: Whether the user asked for the stage, so that without a time a smaller file is enough.
    """
    if latency is None:
        return "" if named and bytes_after < bytes_before else f"is not timed{', and the file is no smaller' * named}"
    if latency.verdict == "faster":
        return ""
    return f"no faster: {latency.ratio:.3f} times as long ({latency.low:.3f} to {latency.high:.3f})"


def _slots(values: list[ir.Value]) -> list[tuple[str | None, str, str]]:
    return [(value.name, str(value.type), str(value.shape)) for value in values]


def _listed(slots: list[tuple[str | None, str, str]]) -> str:
    return ", ".join(f"{name} {kind}{shape}" for name, kind, shape in slots) or "none"
