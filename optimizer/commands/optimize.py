"""One model end to end: load, measure, run the stages, save, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.analysis.model_facts import Facts, facts
from optimizer.contract.passes import Context, Gain, Pass
from optimizer.contract.progress import Progress
from optimizer.contract.targets import Target, is_this_machine, resolve
from optimizer.engine.manager import PassManager, Settings, Stopwatch
from optimizer.engine.replay import decisions_of, digest
from optimizer.engine.report import Report
from optimizer.errors import UsageError
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.task_metric import TaskMetric
from optimizer.io.model import compressed_size, give_back, ingest, save
from optimizer.recipes.presets import DEFAULT, preset
from optimizer.recipes.spec import Stage, parse_recipe, parse_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.contract.progress import Show
    from optimizer.engine.manager import Outcome
    from optimizer.engine.setup import EvaluationSetup
    from optimizer.evaluation.runtime.integer_coverage import Coverage
    from optimizer.evaluation.validation.task_metric import Function
    from optimizer.io.model import LoadedModel

_EXACT_SECONDS, _LOSSY_SECONDS = 150.0, 480.0
_SIZES = frozenset({Gain.SIZE.value, Gain.COMPRESSED_SIZE.value})
LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")


@dataclass(frozen=True)
class Result:
    """What ``optimize`` gives back.

    Attributes:
        model: ``ModelProto``, ``gs.Graph`` and ``ir.Model`` in: the same kind out; a path in: an ``ir.Model``.
        report: What was done, measured.
    """

    model: Any
    report: Report


def optimize(  # noqa: PLR0913 - the one public call: each option of a run is an argument, by keyword only
    model: Any,
    output: str | Path | None = None,
    *,
    preset: str | None = None,
    passes: Sequence[str | Pass] | None = None,
    recipe: str | Path | None = None,
    data: str | Path | Iterable[Mapping[str, Any]] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    run: bool = True,
    timing: bool = True,
    strict: bool = False,
    keep_all: bool = False,
    replay: str | Path | None = None,
    budget: str | Budget = "default",
    metric: str | Function | None = None,
    max_drop: float | None = None,
    target: str = "auto",
    allow_generated_data: bool = False,
    threads: int = 1,
    time_limit: float | None = None,
    seed: int = 0,
    verbose: bool = False,
    observe: Show = lambda _doing, _share: None,
) -> Result:
    """Optimize ``model``; every stage is checked, run against the reference, measured, and undone if it does not hold.

    Args:
        model: A path, bytes, ``ModelProto``, ``onnx_ir.Model``, ``gs.Graph`` or anything with ``.model`` /
            ``.model_proto``. It is never changed.
        output: Where to write the result; nothing is written without it.
        preset: The name of a preset; ``exact`` if neither passes nor a recipe are given.
        passes: Specs (``"name:key=value"``, ``"a+b"`` for one stage) or pass objects, a stage each.
        recipe: Path of a TOML recipe.
        data: Folder of feeds, or feeds themselves; generated from the model's inputs if missing.
        shapes: Shapes by input name, for generated feeds.
        run: Whether models may be run; without, only exact stages run and the verdict is ``unverified``.
        timing: Whether latency is measured and decides.
        strict: Raise on the first failed check.
        keep_all: Write the model after every stage beside ``output``.
        replay: Report of an earlier run, whose decisions are repeated without timing.
        budget: What lossy stages may lose: ``default``, ``none``, limits such as ``sqnr=30``, or a ``Budget``.
        metric: Your measure of the task instead, a function or ``pkg.mod:function``: it gets the outputs of all feeds
            and the feeds, whose arrays that are not inputs may be labels, and returns points, higher is better.
        max_drop: How many points lossy stages may lose.
        target: The machine that the model is for; ``auto`` is this one.
        allow_generated_data: Whether lossy passes may calibrate on generated feeds.
        threads: Threads of ONNX Runtime.
        time_limit: Seconds for searching and timing; 150 for exact stages, 480 with lossy ones.
        seed: Seed of generated feeds and of everything random.
        verbose: Whether the report lists what each rule refused to rewrite, and why.
        observe: Called with what is being done, and the share of it that is done, 0 to 1, ``None`` if it is not known.

    Raises:
        OnnxhoneError: With one line that says what was found and what to do.
    """
    # 1. The model, what is to be done to it, and how long that may take.
    start, watch = time.monotonic(), Stopwatch()
    progress = Progress(observe)
    progress.begin("loading")
    with watch.measure("load"):
        source = ingest(model)
    stages = _stages(preset, passes, recipe)
    decisions = decisions_of(replay, source, stages)
    lossy_budget = _budget(budget, metric, max_drop, has_data=run and data is not None)
    machine = resolve(target)
    is_lossy = not all(stage.exact for stage in stages)
    limit = time_limit if time_limit is not None else _LOSSY_SECONDS if is_lossy else _EXACT_SECONDS
    timed = timing and replay is None
    # 2. The reference, before anything is changed. Only lossy passes run models themselves.
    progress.begin("running the reference")
    with watch.measure("gates"):
        setup = _set_up(source, data, shapes, threads, seed, lossy_budget) if run else None
        before = facts(source.model)
    evaluator = None
    data_warnings: tuple[str, ...] = ()
    if setup is not None and is_lossy:
        progress.begin("looking at the data")
        with watch.measure("gates"):
            data_warnings = setup.data_warnings(source.model)
        evaluator = setup.evaluator(
            source.model, allow_generated=allow_generated_data, is_timed=timed, time_limit=limit, progress=progress
        )
    # 3. The stages.
    manager = PassManager(
        reference=source.model,
        context=Context(
            reference=source.model,
            seed=seed,
            target=machine.name,
            progress=progress,
            evaluator=evaluator,
            verbose=verbose,
        ),
        judge=setup.judge if setup is not None else None,
        settings=Settings(strict, timed, limit),
        stopwatch=watch,
        progress=progress,
        keep=_keeper(output, keep_all=keep_all),
    )
    outcome = manager.run(_allowed(stages, run=run), decisions)
    # 4. The result and its report.
    if output is not None:
        progress.at()
        progress.begin("saving")
        with watch.measure("save"):
            save(outcome.model, Path(output))
    with watch.measure("gates"):
        report = _report(source, outcome, setup, before, machine)
    seconds = {**watch.seconds, "wall": time.monotonic() - start}
    warnings = (*data_warnings, *report.warnings)
    return Result(give_back(outcome.model, source), replace(report, seconds=seconds, warnings=warnings))


def _budget(limits: str | Budget, metric: str | Function | None, max_drop: float | None, *, has_data: bool) -> Budget:
    budget = Budget.parse(limits) if isinstance(limits, str) else limits
    if metric is None:
        if max_drop is not None:
            raise UsageError("--max-drop is of a metric; give one with --metric")
        return budget
    if budget != Budget():
        raise UsageError("a budget and a metric exclude each other; give one of them")
    if not has_data:
        raise UsageError("a metric judges outputs for real inputs; give --data, and leave out --no-run")
    return Budget(metric=TaskMetric.of(metric, max_drop))


def _stages(name: str | None, passes: Sequence[str | Pass] | None, recipe: str | Path | None) -> tuple[Stage, ...]:
    sources = [choice for choice in (name, passes, recipe) if choice is not None]
    if len(sources) > 1:
        raise UsageError("preset, passes and recipe exclude each other; give one of them")
    if recipe is not None:
        return parse_recipe(Path(recipe))
    if passes is not None:
        return tuple(Stage((choice,)) if isinstance(choice, Pass) else parse_stage(choice) for choice in passes)
    return preset(name or DEFAULT)


def _allowed(stages: tuple[Stage, ...], *, run: bool) -> tuple[Stage, ...]:
    lossy = [str(stage) for stage in stages if not stage.exact]
    if lossy and not run:
        raise UsageError(f"{lossy[0]} is lossy: it cannot be judged without running the model; leave out --no-run")
    return stages


def _set_up(  # noqa: PLR0913, PLR0917 - handed on as they are
    source: LoadedModel,
    data: str | Path | Iterable[Mapping[str, Any]] | None,
    shapes: Mapping[str, Sequence[int]] | None,
    threads: int,
    seed: int,
    budget: Budget,
) -> EvaluationSetup:
    from optimizer.engine.setup import set_up  # noqa: PLC0415 - loads onnxruntime, which --no-run does not need

    return set_up(source.model, data, shapes=shapes, threads=threads, seed=seed, budget=budget)


def _keeper(output: str | Path | None, *, keep_all: bool) -> Callable[[int, ir.Model], None]:
    if not keep_all:
        return lambda _number, _model: None
    if output is None:
        raise UsageError("keep-all writes beside the output: name one")
    path = Path(output)

    def keep(number: int, model: ir.Model) -> None:
        save(model, path.with_name(f"{path.stem}.stage-{number}{path.suffix}"))

    return keep


def _report(
    source: LoadedModel, outcome: Outcome, setup: EvaluationSetup | None, before: Facts, target: Target
) -> Report:
    kept = [stage for stage in outcome.stages if stage.kept]
    exact = all(member.exact for stage in kept for member in stage.passes)
    judge = setup.judge if setup is not None else None
    outputs = judge.verdict(outcome.model, exact=exact).outputs if judge is not None and kept else ()
    return Report(
        model={"label": source.label, "kind": source.form, "sha256": digest(source)},
        target=f"{target.name} ({target.description})",
        versions={name: version(name) for name in LIBRARIES},
        before=before,
        after=facts(outcome.model) if kept else before,
        outputs=outputs,
        latency=outcome.latency,
        stages=outcome.stages,
        seconds={},
        score=judge.score(outcome.model) if judge is not None else None,
        compressed=_compressed(source, outcome),
        coverage=None if exact else _coverage(outcome.model),
        verdict="unverified" if judge is None else "improved" if kept else "unchanged",
        warnings=tuple(_warnings(setup, target)),
    )


def _compressed(source: LoadedModel, outcome: Outcome) -> tuple[int, int] | None:
    """Sizes under gzip, if a lossy pass that is for the size changed anything: others need no second opinion."""
    changed = (record for stage in outcome.stages if stage.kept for record in stage.passes if record.changes)
    if not any(not record.exact and record.gain in _SIZES for record in changed):
        return None
    return compressed_size(source.model), compressed_size(outcome.model)


def _coverage(model: ir.Model) -> Coverage:
    from optimizer.evaluation.runtime.integer_coverage import coverage  # noqa: PLC0415 - loads onnxruntime, which --no-run does not need

    return coverage(model)


def _warnings(setup: EvaluationSetup | None, target: Target) -> Iterator[str]:
    if setup is None:
        yield "not run"
        return
    yield from setup.notes
    if setup.judge.verdicts:
        yield f"lossy candidates were judged on the validation feeds {setup.judge.verdicts} times"
    if not is_this_machine(target):
        yield f"times were measured on this machine, which is not {target.name}"
