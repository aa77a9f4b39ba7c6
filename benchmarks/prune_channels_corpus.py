"""What pruning of channels reaches on real models: error with and without repair, speed-up against what MACs promise.

    python benchmarks/prune_channels_corpus.py goals MODELS [--feeds FEEDS] [--models ID ...]
    python benchmarks/prune_channels_corpus.py importances MODELS --feeds FEEDS [--models ID ...]
    python benchmarks/prune_channels_corpus.py preset MODELS --feeds FEEDS [--models ID ...]
    python benchmarks/prune_channels_corpus.py write

``MODELS`` holds a folder a model, ``FEEDS`` one with ``calib/`` and ``valid/`` for some of them; the others are
pruned and judged on generated inputs. Each result goes to ``results/prune_channels_corpus.json`` as it comes; ``write``
makes ``results/prune_channels_corpus.md`` of it.

goals          prunes to 0.8 and 0.6 of the MACs, whatever the error is, checks that the result is valid, and measures
               its error on validation inputs, and its time against the model's in pairs of sessions
importances    the error on validation inputs at 0.8 of the MACs, by each importance, repaired and not
preset         runs the preset `pruned` as users do, within the default budget
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

import optimizer
from optimizer.algorithms.channels.pruning.importance import IMPORTANCES
from optimizer.algorithms.channels.pruning.pruner import Pruning, sizes_of
from optimizer.analysis import shape_inference
from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import OnnxhoneError
from optimizer.evaluation.feeds.loading import generate, load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.runtime.timing import clock_for, compare
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import clone, to_proto
from passes.prune_channels import PruneChannels
from simplify_corpus import HERE, commit
from weight_only import answers, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.channels.pruning.run import ChannelChoices

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
RESULTS = HERE / "results" / "prune_channels_corpus.json"
MOST_FEEDS = 16
GOALS = (0.8, 0.6)
SECONDS = 30.0  # of timing


def chosen(options: argparse.Namespace) -> Iterator[tuple[str, Path, Path | None]]:
    """Name, file and feeds of the models."""
    for folder in sorted(options.folder.iterdir()):
        files = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
        if not files or (options.models and folder.name not in options.models):
            continue
        feeds = options.feeds / folder.name if options.feeds else None
        yield folder.name, files[0], feeds if feeds is not None and feeds.is_dir() else None


class Bench:
    """One model with its inputs and its answers."""

    def __init__(self, path: Path, feeds: Path | None) -> None:
        """Load both, do what is exact, and run the model on the validation inputs."""
        self.model = optimizer.optimize(path, preset="exact", run=False).model
        shape_inference.infer(self.model)
        inputs = session(self.model).inputs
        split = generate(self.model, shapes={}) if feeds is None else load_feeds(feeds, inputs)
        self.judged = list(split.validation.spread(MOST_FEEDS))
        self.plain = answers(self.model, self.judged, optimize=True)
        self.evaluator = RuntimeEvaluator(self.model, split, Budget(), allow_generated=True, time_limit=1800)
        unseen = replace(split, selection=split.validation)
        self.judge = RuntimeEvaluator(self.model, unseen, Budget(), allow_generated=True)
        sizes = sizes_of(self.model, split.calibration[0])
        self.pruning = Pruning(self.model, 4, sizes)
        self.context = Context(self.model, evaluator=self.evaluator, budget_limit=math.inf)

    def pruned(
        self, member: PruneChannels, choices: ChannelChoices | None = None
    ) -> tuple[ir.Model, ChannelChoices | None]:
        """The model without channels, and what was chosen."""
        context = Context(self.model, evaluator=self.evaluator, budget_limit=math.inf, choices=choices)
        result = member.run(clone(self.model), context)
        return result.model, result.choices

    def error(self, model: ir.Model) -> float:
        """The worst relative L2 of an output on the validation inputs."""
        return worst(self.plain, answers(model, self.judged, optimize=True))

    def macs_left(self, choices: ChannelChoices) -> float:
        """The share of the MACs that the choice leaves."""
        costs, full = self.pruning.macs(), self.pruning.full()
        left = full.copy()
        for number, group in enumerate(self.pruning.width_groups.members):
            left[number] -= len(choices.removed.get(group.site, ()))
        return costs.total(left) / costs.total(full)

    def latency(self, model: ir.Model) -> dict[str, Any]:
        """Its time against the model's."""
        feeds = self.judged[:2]

        def factory(made: ir.Model) -> Callable[[], Callable[[], None]]:
            return lambda: session(made).runner(feeds)

        return compare(factory(self.model), factory(model), clock=clock_for(1), time_limit=SECONDS).to_dict()


def goals(path: Path, feeds: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each goal."""
    bench = Bench(path, feeds)
    for goal in GOALS:
        begun = time.process_time()
        model, choices = bench.pruned(PruneChannels(macs=goal))
        seconds = time.process_time() - begun
        if choices is None:
            yield str(goal), {"error": "no channels may go"}
            continue
        bare, _ = bench.pruned(PruneChannels(macs=goal, repair=False), choices)
        onnx.checker.check_model(to_proto(model), full_check=is_inferable(bench.model))
        yield (
            str(goal),
            {
                "macs": bench.macs_left(choices),
                "rel_l2": bench.error(model),
                "rel_l2_without_repair": bench.error(bare),
                "share": bench.judge.budget_used(model),
                "share_without_repair": bench.judge.budget_used(bare),
                "latency": bench.latency(model),
                "real_feeds": feeds is not None,
                "cpu": seconds,
            },
        )


def is_inferable(model: ir.Model) -> bool:
    """Whether the checker's shape inference has nothing to say about ``model`` itself."""
    try:
        onnx.checker.check_model(to_proto(model), full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        return False
    return True


def importances(path: Path, feeds: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each importance."""
    bench = Bench(path, feeds)
    for name in IMPORTANCES:
        model, choices = bench.pruned(PruneChannels(macs=GOALS[0], importance=name))
        if choices is None:
            return
        bare, _ = bench.pruned(PruneChannels(macs=GOALS[0], importance=name, repair=False), choices)
        yield name, {"rel_l2": bench.error(model), "rel_l2_without_repair": bench.error(bare)}


def preset(path: Path, feeds: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The preset."""
    begun = time.process_time()
    report = optimizer.optimize(path, preset="pruned", data=feeds).report
    stage = report.stages[-1]
    yield (
        "pruned",
        {
            "bytes": [report.before.bytes, report.after.bytes],
            "kept": stage.kept,
            "reason": stage.reason,
            "changes": dict(stage.changes),
            "rel_l2": max((output.rel_l2 or 0.0 for output in report.outputs), default=0.0),
            "latency": None if report.latency is None else report.latency.to_dict(),
            "cpu": time.process_time() - begun,
        },
    )


def remember(known: dict[str, Any], kind: str, model: str, name: str, result: Mapping[str, Any]) -> None:
    """Keep one result in the file."""
    known.setdefault(kind, {}).setdefault(model, {})[name] = dict(result)
    known["commit"], known["versions"] = commit(), {one: version(one) for one in LIBRARIES}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def goals_table(known: Mapping[str, Any]) -> Iterator[str]:
    """One line a model and goal."""
    yield (
        "| model | inputs | MACs left | relative L2 | without repair | of the budget | without repair | time"
        " | of the promise | CPU |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for model, results in known.items():
        for one in results.values():
            if "error" in one:
                yield f"| {model} | | {one['error']} | | | | | | | |"
                continue
            ratio = one["latency"]["ratio"]
            yield (
                f"| {model} | {'real' if one['real_feeds'] else 'generated'} | {one['macs']:.3f} | {one['rel_l2']:.4f}"
                f" | {one['rel_l2_without_repair']:.4f} | {one['share']:.2f} | {one['share_without_repair']:.2f}"
                f" | {ratio:.3f}"
                f" | {(1 / ratio) / (1 / one['macs']):.2f} | {one['cpu']:.0f} s |"
            )


def importances_table(known: Mapping[str, Any]) -> Iterator[str]:
    """One line a model."""
    yield f"| model | {' | '.join(IMPORTANCES)} |"
    yield f"| --- |{' ---: |' * len(IMPORTANCES)}"
    for model, results in known.items():
        cells = (
            f"{one['rel_l2']:.4f} ({one['rel_l2_without_repair']:.4f})" if (one := results.get(name)) else ""
            for name in IMPORTANCES
        )
        yield f"| {model} | {' | '.join(cells)} |"


def preset_table(known: Mapping[str, Any]) -> Iterator[str]:
    """One line a model."""
    yield "| model | kept | file | relative L2 | latency | CPU |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for model, results in known.items():
        one = results["pruned"]
        latency = one["latency"]
        told = "" if latency is None else f"{latency['ratio']:.3f} ({latency['low']:.3f} to {latency['high']:.3f})"
        size = one["bytes"][1] / one["bytes"][0]
        kept = "yes" if one["kept"] else one["reason"]
        yield f"| {model} | {kept} | {size:.3f} | {one['rel_l2']:.4f} | {told} | {one['cpu']:.0f} s |"


TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "goals": ("Pruned to a share of the MACs", goals_table),
    "importances": ("Relative L2 at 0.8 of the MACs by importance; without repair in brackets", importances_table),
    "preset": ("The preset `pruned` within the default budget", preset_table),
}
WORK = {"goals": goals, "importances": importances, "preset": preset}


def written(known: Mapping[str, Any]) -> Iterator[str]:
    """The page."""
    yield "# Pruning of channels on real models"
    yield ""
    yield f"Commit {known['commit']}; {', '.join(f'{name} {one}' for name, one in known['versions'].items())}."
    yield "One thread. Of the promise: the speed-up as a share of what the MACs left promise. Errors are of inputs that"
    yield "nothing was fitted to or chosen by; of the budget: the largest share of any limit of the default one."
    for kind, (title, table) in TABLES.items():
        if kind in known:
            yield from ("", f"## {title}", "", *table(known[kind]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*WORK, "write"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--models", nargs="*")
    options = parser.parse_args(arguments)
    known: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if options.what == "write":
        RESULTS.with_suffix(".md").write_text("\n".join(written(known)) + "\n", encoding="utf-8")
        return
    for name, path, feeds in chosen(options):
        try:
            for key, result in WORK[options.what](path, feeds):
                remember(known, options.what, name, key, result)
                print(name, key, result, flush=True)
        except OnnxhoneError as error:
            print(name, error, flush=True)


if __name__ == "__main__":
    main()
