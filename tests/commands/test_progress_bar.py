"""What a run says of its progress, and how a terminal shows it."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

import optimizer
from optimizer.algorithms.search.budgeted import Search, grouped
from optimizer.commands.progress_bar import progress_bar
from optimizer.contract.progress import Progress
from small_nets import Net, feeds

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def test_it_says_where_it_is_and_what_it_does_there():
    seen = []
    progress = Progress(lambda *said: seen.append(said))
    progress.begin("loading")
    progress.at("stage 1 of 2", "simplify")
    progress(0.5)
    progress.begin("search")
    progress(1.2)
    place = "stage 1 of 2: simplify"
    assert seen == [
        ("loading", None), (place, None), (place, 0.5), (f"{place}: search", None), (f"{place}: search", 1.0)
    ]  # fmt: skip


def test_a_run_names_stages_passes_and_the_work_in_them():
    net = Net(1, 3, 8, 8)
    model = net.model(net.conv(net.node("Relu", net.conv("x", 3, 16)), 16, 16))
    seen = []
    optimizer.optimize(
        model, passes=["simplify", "unique-names+insert-qdq"], data=feeds(1, 3, 8, 8), timing=False, budget="none",
        observe=lambda doing, share: seen.append((doing, share)),
    )  # fmt: skip
    doings = list(dict.fromkeys(doing for doing, _ in seen))
    assert doings[:3] == ["loading", "running the reference", "looking at the data"]
    assert "stage 1 of 2: simplify" in doings
    assert "stage 2 of 2: unique-names" in doings
    ranges = next(doing for doing in doings if "insert-qdq: ranges of" in doing)
    assert ranges.endswith("over 8 feeds")
    assert [share for doing, share in seen if doing == ranges][-1] == 1
    assert all(share is None or 0 <= share <= 1 for _, share in seen)


class CountingLab:
    is_timed = False

    def __init__(self):
        self.asked = 0

    def budget_used(self, names):
        self.asked += 1
        return math.sqrt(len(names)) / 2

    def time_left(self):
        return math.inf


def test_a_search_says_beforehand_what_it_costs_and_its_share_grows():
    seen, evaluator = [], CountingLab()
    names = [f"u{number}" for number in range(10)]
    progress = Progress(lambda *said: seen.append((*said, evaluator.asked)))
    Search(lambda chosen: chosen, evaluator, 1.0, progress).run(grouped(names, dict.fromkeys(names, 1.0)))
    said = [one for one in seen if one[0].startswith("search")]
    assert said[0][0] == "search, at least 14 measurements"
    begun = said[0][2]
    shares = [share for _, share, _ in said if share is not None]
    assert shares == sorted(shares)
    assert all(asked - begun <= 14 for *_, asked in said)


def test_a_terminal_shows_the_bar_and_the_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress_bar(console) as show:
        show("stage 1 of 1: [op:Conv]: search", None)
        show("stage 1 of 1: [op:Conv]: search", 0.25)
        console.file.truncate(0)
        show("stage 1 of 1: [op:Conv]: search", 0.5)
    text = console.file.getvalue()
    assert "stage 1 of 1: [op:Conv]: search" in text
    assert "50%" in text
    console.file.truncate(0)
    with progress_bar(console) as show:
        show("first", 0.5)
        console.file.truncate(0)
        show("second", None)
    assert "second" in console.file.getvalue()
    assert "%" not in console.file.getvalue().rpartition("second")[2]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo terminals")
def test_the_command_shows_it_on_a_terminal_only(tmp_path):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "optimizer.cli", "optimize", DIGITS, "-o", tmp_path / "out.onnx", "--no-timing"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as screen, running, suppress(OSError):  # how Linux ends a pseudo terminal
        while part := screen.read(65536):
            shown += part
    assert running.returncode == 0
    assert b"stage" in shown or b"loading" in shown
