"""The preset ``exact`` over every model of onnx's backend tests: outputs kept, the checker clean, nothing larger.

    python benchmarks/backend_exact.py [--freeze none others all] [--only TEXT] [--limit SECONDS] [--out FILE.md]

Each model is optimized without timing on the inputs of its own test, on generated ones where it has none, and with
``run=False`` where ONNX Runtime cannot run it. What came out is held against the model that went in, apart from
onnxhone's own gates:

- the outputs on all inputs of the test (on generated ones where it has none) in ONNX Runtime, with its optimizations
  off and on, and in onnx's reference evaluator where ONNX Runtime cannot run the model, but that can. Relative L2 up to
  1e-5 (2e-3 for 16-bit floats) is equal, other types are equal to the bit; what differs from one run of the original to
  the next is compared in type and shape only;
- ``onnx.checker`` with shape inference accepts it, if it accepted the original;
- the inputs and outputs are the same, the file is no larger, a second run over it changes nothing.

*Failed* are models of which one of these does not hold, those on which onnxhone raised something that is no error of
its own or undid a part of a pass, and those over the time limit. Most tests are of one node and hold nothing to do: so
three runs are made, on the models as they are, with all inputs but the first made constants, and with all.

Each model runs in a process that is ended at the time limit. What was found is kept in ``--work``, so an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from backend_cases import FREEZE, backend_cases, frozen
from optimizer import optimize
from optimizer.errors import DataError, ModelError, OnnxhoneError, ReferenceRunError
from optimizer.evaluation.feeds.loading import generate
from optimizer.evaluation.runtime.session import session
from optimizer.io.model import load, to_proto
from simplify_corpus import commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    import onnx_ir as ir

    from backend_cases import Case

    Feeds = Sequence[Mapping[str, Any]]
    Runs = list[dict[str, Any]]  # by feed, then by output name

HERE = Path(__file__).resolve().parent
_REPEATS = 4
USUAL, HALF = 1e-5, 2e-3
HALVES = frozenset({"float16", "bfloat16"})
FROZEN = {
    "none": "The models as they are",
    "others": "All inputs but the first are constants",
    "all": "All inputs are constants",
}
LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")


@dataclass(frozen=True)
class Finding:
    """What came of one model.

    Attributes:
        name: The model.
        outcome: ``improved``, ``unchanged``, ``refused`` or ``failed``.
        inputs: ``its own``, ``generated``, or why it was not run.
        reason: Why it was refused or failed.
        changes: What the passes did.
        compared: What compared the outputs: ``ONNX Runtime``, ``reference evaluator`` or ``nothing``.
    """

    name: str
    outcome: str
    inputs: str = ""
    reason: str = ""
    changes: dict[str, int] | None = None
    compared: str = "nothing"


def examine(name: str, data: bytes, feeds: Feeds) -> Finding:
    """Optimize the model ``data`` and compare."""
    try:
        reference = load(data)
    except ModelError as error:
        return Finding(name, "refused", reason=str(error))
    inputs = "its own" if feeds else "generated"
    try:
        try:
            result = optimize(data, data=list(feeds) or None, timing=False)
        except (ReferenceRunError, DataError) as error:
            inputs = f"not run: {error}"
            result = optimize(data, run=False)
    except OnnxhoneError as error:
        return Finding(name, "refused", inputs, str(error))
    candidate = load(result.model)
    changes = {kind: count for stage in result.report.stages for kind, count in stage.changes.items()}
    undone = [
        f"undone: {one.step or member.name} at {one.site}: {one.reason}"
        for stage in result.report.stages
        for member in stage.passes
        for one in member.undone
    ]
    if not feeds and inputs == "generated":
        feeds = list(generate(reference).validation)
    compared, differing = compare(reference, candidate, feeds)
    problems = [*undone, *structure_problems(data, result.model), *differing]
    if problems:
        return Finding(name, "failed", inputs, "; ".join(problems), changes, compared)
    return Finding(name, "improved" if changes else "unchanged", inputs, "", changes, compared)


def structure_problems(old: bytes, new: bytes) -> Iterator[str]:
    """What of the frame of the model does not hold."""
    before, after = onnx.ModelProto.FromString(old), onnx.ModelProto.FromString(new)
    if complaint(before) is None and (found := complaint(after)) is not None:
        yield f"onnx.checker: {found}"
    for kind in ("input", "output"):
        if list(getattr(before.graph, kind)) != list(getattr(after.graph, kind)):
            yield f"the {kind}s are others"
    if len(new) > len(old):
        yield f"grew from {len(old)} to {len(new)} bytes"
    if optimize(new, run=False).model != new:
        yield "a second run changes it again"


def complaint(model: onnx.ModelProto) -> str | None:
    """What the checker says."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # noqa: BLE001 - the checker raises several kinds, and all say that the model is not clean
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


def compare(before: ir.Model, after: ir.Model, feeds: Feeds) -> tuple[str, list[str]]:
    """What compared the outputs, and the differences that it found."""
    problems: list[str] = []
    compared = "nothing"
    for level in ("off", "on"):
        wanted = attempted(lambda: runtime_runs(before, feeds, level))  # noqa: B023 - called at once
        if wanted is None:
            continue
        compared = "ONNX Runtime"
        again = repeated(lambda: runtime_runs(before, feeds, level), wanted)  # noqa: B023 - called at once
        try:
            found = runtime_runs(after, feeds, level)
        except ReferenceRunError as error:
            problems.append(f"ONNX Runtime, optimizations {level}: {error}")
            continue
        problems += [f"ONNX Runtime, optimizations {level}: {text}" for text in differences(wanted, again, found)]
    if compared == "nothing" and feeds:
        wanted = attempted(lambda: reference_runs(before, feeds))
        if wanted is not None:
            compared = "reference evaluator"
            try:
                found = reference_runs(after, feeds)
            except Exception as error:  # noqa: BLE001 - the evaluator raises whatever an operator raises
                return compared, [*problems, f"reference evaluator: {type(error).__name__}: {error}"]
            problems += differences(wanted, repeated(lambda: reference_runs(before, feeds), wanted), found)
    return compared, problems


def repeated(run: Callable[[], Runs], wanted: Runs) -> Runs:
    """The first of a few more runs of the original that differs; ten random bits are equal twice now and then."""
    again = run()
    for _ in range(_REPEATS - 1):
        if differences(wanted, wanted, again):
            break
        again = run()
    return again


def attempted(run: Callable[[], Runs]) -> Runs | None:
    """What the original gives, if it can be run."""
    try:
        return run()
    except Exception:  # noqa: BLE001 - an original that cannot be run there is compared elsewhere or not at all
        return None


def runtime_runs(model: ir.Model, feeds: Feeds, level: str) -> Runs:
    """All outputs on all feeds in ONNX Runtime."""
    opened = session(model, optimize=level == "on")
    return [opened.run(feed) for feed in feeds]


def reference_runs(model: ir.Model, feeds: Feeds) -> Runs:
    """All outputs on all feeds in onnx's reference evaluator."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - few models need it

    evaluator = ReferenceEvaluator(to_proto(model))
    return [dict(zip(evaluator.output_names, evaluator.run(None, dict(feed)), strict=True)) for feed in feeds]


def differences(wanted: Runs, again: Runs, found: Runs) -> list[str]:
    """Where ``found`` differs from ``wanted``; values only where the second run of the original gives the same."""
    texts = []
    for first, second, other in zip(wanted, again, found, strict=True):
        for name, value in first.items():
            fixed = difference(value, second[name]) is None
            text = difference(value, other[name], values=fixed)
            if text is not None:
                texts.append(f"output {name!r} {text}")
    return texts


def difference(one: Any, other: Any, *, values: bool = True) -> str | None:
    """How two outputs differ; ``None`` if they are equal."""
    if isinstance(one, list | dict) or one is None:
        if type(one) is not type(other) or (one is not None and len(one) != len(other)):
            return f"is {type(other).__name__} instead of {type(one).__name__}, or of another length"
        keys = [] if one is None else one if isinstance(one, dict) else range(len(one))
        return next((text for key in keys if (text := difference(one[key], other[key], values=values))), None)
    left, right = np.asarray(one), np.asarray(other)
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return f"is {right.dtype}{list(right.shape)} instead of {left.dtype}{list(left.shape)}"
    if not values:
        return None
    if left.dtype.kind not in "fcV":
        return None if np.array_equal(left, right) else "differs"
    exact, approximate = (array.astype(np.complex128).ravel() for array in (left, right))
    finite = np.isfinite(exact)
    if (
        not np.array_equal(exact[~finite], approximate[~finite], equal_nan=True)
        or not np.isfinite(approximate[finite]).all()
    ):
        return "differs in NaN or infinity"
    error = float(np.linalg.norm(exact[finite] - approximate[finite])) / (float(np.linalg.norm(exact[finite])) or 1.0)
    return None if error <= (HALF if left.dtype.name in HALVES else USUAL) else f"has a relative error of {error:.1e}"


def serve(connection: Connection) -> None:
    """Examine what comes, until nothing comes any more."""
    warnings.simplefilter("ignore")  # the tests compute on infinities on purpose
    while (case := connection.recv()) is not None:
        name, data, feeds = case
        try:
            found = examine(name, data, feeds)
        except Exception as error:  # noqa: BLE001 - a bug of ours is a finding
            found = Finding(
                name, "failed", reason=f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )
        connection.send(found)


class Worker:
    """One process that examines models; a model over the time limit, or that crashes it, costs the process."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._process: multiprocessing.process.BaseProcess | None = None

    def examine(self, case: Case) -> Finding:
        """The finding of ``case``."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        self._connection.send((case.name, case.model.SerializeToString(), case.feeds))
        try:
            if self._connection.poll(self._limit):
                return self._connection.recv()
            reason = f"time limit of {self._limit:g} s"
        except EOFError:
            reason = "the process crashed"
        self.end()
        return Finding(case.name, "failed", reason=reason)

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def findings(options: argparse.Namespace, freeze: str) -> Iterator[Finding]:
    """What was found of each model, earlier or now."""
    kept = options.work / f"backend_exact.{freeze}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text().splitlines() if kept.exists() else []
    known = {item["name"]: Finding(**item) for item in map(json.loads, lines)}
    worker = Worker(options.limit)
    with kept.open("a") as log:
        for case in backend_cases():
            chosen = case if freeze == "none" else frozen(case, freeze)
            if chosen is None or options.only not in case.name:
                continue
            found = known.get(case.name)
            if found is None:
                found = worker.examine(chosen)
                log.write(json.dumps(asdict(found)) + "\n")
                log.flush()
                if found.outcome == "failed":
                    print(f"{freeze}: {found.name}: {found.reason}", flush=True)
            yield found
    worker.end()


def text(found: Mapping[str, Sequence[Finding]]) -> str:
    """The result as Markdown."""
    lines = [
        "# The preset `exact` on onnx's backend tests",
        "",
        f"`python benchmarks/backend_exact.py --freeze {' '.join(found)}` at commit {commit()};",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}.",
    ]
    for freeze, items in found.items():
        lines += ["", f"## {FROZEN[freeze]}", "", *section(items)]
    return "\n".join(lines) + "\n"


def section(found: Sequence[Finding]) -> list[str]:
    """The lines about one of the runs."""
    outcomes = ("improved", "unchanged", "refused", "failed")
    ways = {"its own": "its own inputs", "generated": "generated inputs", "not run": "not run", "": "not loaded"}
    counts = Counter((item.outcome, item.inputs.partition(":")[0]) for item in found)
    compared = Counter(item.compared for item in found)
    lines = [
        f"| {len(found)} models | {' | '.join(outcomes)} | sum |",
        f"| --- |{' ---: |' * (len(outcomes) + 1)}",
    ]
    for way, label in ways.items():
        row = [counts[outcome, way] for outcome in outcomes]
        if sum(row):
            lines.append(f"| {label} | {' | '.join(map(str, row))} | {sum(row)} |")
    sums = [sum(counts[outcome, way] for way in ways) for outcome in outcomes]
    lines += [
        f"| sum | {' | '.join(map(str, sums))} | {sum(sums)} |",
        "",
        f"Outputs were compared by ONNX Runtime on {compared['ONNX Runtime']} models,",
        f"by the reference evaluator on {compared['reference evaluator']}, by nothing on {compared['nothing']}.",
    ]
    changes = Counter[str]()
    for item in found:
        changes.update(item.changes or {})
    lines += ["", "Changes: " + ", ".join(f"{kind} {count}" for kind, count in changes.most_common()) + "."]
    for outcome in ("failed", "refused"):
        lines += ["", f"### {outcome.capitalize()}", ""]
        reasons = [f"- {item.name}: {item.reason}" for item in found if item.outcome == outcome]
        lines += reasons or ["None."]
    apart = [item.name for item in found if item.compared == "nothing"]
    lines += ["", "### Compared by nothing", "", f"{', '.join(apart) or 'None'}."]
    lines += ["", "### Not run, by what ONNX Runtime says", ""]
    return lines + [f"- {count} models: {reason}" for reason, count in _not_run(found).most_common()]


def _not_run(found: Sequence[Finding]) -> Counter[str]:
    reasons = (item.inputs.removeprefix("not run: ") for item in found if item.inputs.startswith("not run"))
    return Counter(reason[:100] for reason in reasons)


def main() -> int:
    """Run over all models and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freeze", nargs="+", choices=FREEZE, default=FREEZE, help="which inputs become constants")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose names hold TEXT")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for a model")
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--out", type=Path, help="write the result as Markdown")
    options = parser.parse_args()
    found = {freeze: list(findings(options, freeze)) for freeze in options.freeze}
    written = text(found)
    print(written)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(written, encoding="utf-8")
    return int(any(item.outcome == "failed" for items in found.values() for item in items))


if __name__ == "__main__":
    sys.exit(main())
