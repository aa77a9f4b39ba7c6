"""The progress of a run on a terminal: what is being done, a bar where its length is known, and the time left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from optimizer.contract.progress import Show


@contextmanager
def progress_bar(console: Console) -> Iterator[Show]:
    """A line on ``console`` that shows what it is called with, and vanishes at the end."""
    columns = BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn(compact=True)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), *columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        shown = ""

        def show(doing: str, share: float | None = None) -> None:
            nonlocal shown, task
            if doing != shown:
                shown = doing
                bar.remove_task(task)  # resetting it would keep its length
                task = bar.add_task(escape(doing), total=None)
            if share is not None:
                bar.update(task, total=1.0, completed=share)

        yield show
