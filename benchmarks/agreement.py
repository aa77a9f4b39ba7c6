"""How far a model's answers agree with the original's, in points of 100, for each kind of task of the bench.

Used as ``--metric agreement:points``. The original's outputs are arrays of the feeds (``LABEL``), since calibration
inputs have no other labels; the variable ``ONNXHONE_BENCH_TASK`` names the task.
"""

from __future__ import annotations

import os
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Named: TypeAlias = "Sequence[Mapping[str, Any]]"
    Outputs: TypeAlias = "Sequence[list[Any]]"

BENCH, TASK = "ONNXHONE_BENCH", "ONNXHONE_BENCH_TASK"
LABEL = "original_output_{}"


def points(outputs: Named, feeds: Named) -> float:
    """The agreement of the outputs of all feeds with the original's."""
    ours = [list(output.values()) for output in outputs]
    originals = [
        [feed[LABEL.format(at)] for at in range(len(output))] for output, feed in zip(ours, feeds, strict=True)
    ]
    tasks = bench_tasks()
    metric = tasks.SPECS[os.environ[TASK]][2]
    if metric in (tasks.logit_corr, tasks.box_agree, tasks.mos_error):  # these compare with the original already
        return metric(ours, originals, None)
    kinds = {
        tasks.top1: same_class,
        tasks.digit_acc: same_class,
        tasks.text_hmean: same_mask,
        tasks.note_f1: lambda a, b: same_mask(a, b, tasks.NOTE_OUT),
        tasks.lee_pearson: same_similarities,
    }
    if metric in kinds:
        return kinds[metric](ours, originals)
    return same_text(ours, originals, tasks.edit)  # char_acc makes its function anew for each task


def bench_tasks() -> Any:
    """The bench's module of tasks."""
    folder = str(Path(os.environ[BENCH]))
    if folder not in sys.path:
        sys.path.append(folder)
    import tasks  # noqa: PLC0415 - its place is known only now

    return tasks


def same_class(ours: Outputs, originals: Outputs) -> float:
    """The share of rows whose largest score is at the same place."""
    return 100 * float(
        np.mean([(a[0].argmax(-1) == b[0].argmax(-1)).mean() for a, b in zip(ours, originals, strict=True)])
    )


def same_mask(ours: Outputs, originals: Outputs, output: int = 0) -> float:
    """F1 of the places above the bench's threshold of 0.3, for text lines as for notes."""
    pairs = [(a[output] > 0.3, b[output] > 0.3) for a, b in zip(ours, originals, strict=True)]
    return 100 * 2 * sum((a & b).sum() for a, b in pairs) / max(1, sum(a.sum() + b.sum() for a, b in pairs))


def same_similarities(ours: Outputs, originals: Outputs) -> float:
    """Pearson correlation of the cosine similarities of mean-pooled embeddings."""

    def similarities(outputs: Outputs) -> np.ndarray:
        pooled = np.stack([output[0][0].mean(0) for output in outputs])
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return (pooled @ pooled.T)[np.triu_indices(len(pooled), 1)]

    return 100 * float(np.corrcoef(similarities(ours), similarities(originals))[0, 1])


def same_text(ours: Outputs, originals: Outputs, edit: Callable[[Any, Any], int]) -> float:
    """100 less the edit distance of the most probable symbols, repeats taken out, in per cent of their number."""

    def read(output: list[Any]) -> list[int]:
        return [symbol for symbol, _ in groupby(output[0].reshape(-1, output[0].shape[-1]).argmax(-1).tolist())]

    pairs = [(read(a), read(b)) for a, b in zip(ours, originals, strict=True)]
    return 100 * (1 - sum(edit(a, b) for a, b in pairs) / max(1, sum(len(b) for _, b in pairs)))
