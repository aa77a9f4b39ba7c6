"""From a reference and its data to a judge: feeds found or made up, the reference run, tolerances set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optimizer.feeds import generate, load_feeds
from optimizer.judge import RuntimeJudge
from optimizer.runtime import session
from optimizer.validation import Validator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir


def judge_for(
    reference: ir.Model,
    data: str | Path | Iterable[Mapping[str, Any]] | None,
    *,
    shapes: Mapping[str, Sequence[int]] | None,
    threads: int,
    seed: int,
) -> tuple[RuntimeJudge, tuple[str, ...]]:
    """A judge that knows the reference's outputs, and what to say about the evidence.

    Raises:
        DataError: If the data cannot be read or does not fit the model.
        ReferenceRunError: If ONNX Runtime cannot run the reference.
    """
    if data is None:
        split = generate(reference, shapes=shapes or {}, seed=seed, threads=threads)
    else:
        loaded = session(reference, threads=threads)
        split = load_feeds(data, loaded.inputs, loaded.overridable)
    validator = Validator(reference, split.validation, threads=threads)
    return RuntimeJudge(validator, split.validation, threads=threads), (*split.notes, *validator.notes)
