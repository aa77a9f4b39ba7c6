"""The command line. Heavy modules are loaded inside the commands, so that ``--help`` costs nothing."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optimizer.errors import OnnxhoneError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.contract.progress import Show

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Optimize ONNX models. Every step is checked, run against the original, measured, and undone if it fails.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version  # noqa: PLC0415 - see the module's docstring

        typer.echo(f"onnxhone {version('onnxhone')}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX model file.", show_default=False)]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Folder of .npz feeds or test_data_set_* folders.")
]
ShapeOption = Annotated[
    list[str] | None, typer.Option("--shape", metavar="NAME:1,3,224,224", help="Shape of an input; repeat for several.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads of ONNX Runtime.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of generated inputs.")]

OPTIMIZE_EXAMPLES = """Examples:

onnxhone optimize model.onnx -o out.onnx

onnxhone optimize model.onnx -o out.onnx --data feeds/ --report report.json

onnxhone optimize model.onnx -o out.onnx -p simplify -p dedup-initializers:min-bytes=1024
"""


@app.command(epilog=OPTIMIZE_EXAMPLES)
def optimize(  # noqa: PLR0913, PLR0917 - typer makes each option of the command an argument
    model: ModelPath,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write the result.")],
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="A named recipe; 'exact' if nothing else is said.")
    ] = None,
    passes: Annotated[
        list[str] | None,
        typer.Option("--pass", "-p", metavar="SPEC", help="name:key=value,…; a+b is one stage; repeat for several."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", metavar="FILE.toml", help="Stages from a file.")] = None,
    data: DataOption = None,
    shape: ShapeOption = None,
    allow_generated_data: Annotated[
        bool, typer.Option("--allow-generated-data", help="Let lossy passes calibrate on generated inputs.")
    ] = False,
    budget: Annotated[
        str, typer.Option("--budget", metavar="LIMITS", help="What lossy passes may lose: default, none, sqnr=30, …")
    ] = "default",
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="PKG.MOD:FUNCTION", help="Your task metric as the budget, see the README."),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", metavar="POINTS", help="How much of the metric may be lost.")
    ] = None,
    target: Annotated[
        str, typer.Option("--target", metavar="NAME", help="The machine the model is for; auto is this one.")
    ] = "auto",
    threads: ThreadsOption = 1,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", metavar="S", help="Seconds to search and time.", show_default="150, 480 if lossy"),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.json", help="Write the report.")] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="REPORT.json", help="Repeat a run's decisions, without timing.")
    ] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Never run a model; the verdict is 'unverified'.")] = False,
    no_timing: Annotated[bool, typer.Option("--no-timing", help="Decide by size and structure alone.")] = False,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Write the model after every stage too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop with exit code 1 at the first failed check.")] = False,
    seed: SeedOption = 0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List what each rule refused to rewrite, and why.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Optimize MODEL and write it to OUT; print what every pass did."""
    if metric is not None:
        sys.path.append(str(Path.cwd()))  # last, so that a module there hides no other
    from optimizer.commands.optimize import optimize as run  # noqa: PLC0415 - heavy
    from optimizer.engine.report_tables import report_table  # noqa: PLC0415 - heavy
    from optimizer.evaluation.feeds.loading import parse_shapes  # noqa: PLC0415 - heavy

    with _progress(silent=quiet or as_json) as observe:
        result = run(
            model,
            output,
            preset=preset,
            passes=passes,
            recipe=recipe,
            data=data,
            shapes=parse_shapes(shape or []),
            run=not no_run,
            timing=not no_timing,
            strict=strict,
            keep_all=keep_all,
            replay=replay,
            budget=budget,
            metric=metric,
            max_drop=max_drop,
            target=target,
            allow_generated_data=allow_generated_data,
            threads=threads,
            time_limit=time_limit,
            seed=seed,
            verbose=verbose,
            observe=observe,
        )
    if report is not None:
        _write_json(report, result.report.to_dict())
    if as_json:
        _print_json(result.report.to_dict())
    elif not quiet:
        _print(report_table(result.report))


@app.command(epilog="Example:\n\nonnxhone inspect before.onnx after.onnx")
def inspect(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL…", help="One or more models.", show_default=False)],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show facts of models side by side: op counts, parameters, MACs, bytes, zeros, duplicates, inputs, outputs."""
    from optimizer.commands.inspect import inspect_models, inspection_table  # noqa: PLC0415 - heavy

    inspected = inspect_models(models)
    if as_json:
        _print_json([model.to_dict() for model in inspected])
    elif not quiet:
        _print(inspection_table(inspected))


@app.command(epilog="Example:\n\nonnxhone compare model.onnx model.int8.onnx --data feeds/")
def compare(  # noqa: PLR0913, PLR0917 - typer makes each option of the command an argument
    first: Annotated[Path, typer.Argument(metavar="A", help="The reference.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="The candidate.", show_default=False)],
    data: DataOption = None,
    shape: ShapeOption = None,
    threads: ThreadsOption = 1,
    no_timing: Annotated[bool, typer.Option("--no-timing", help="Do not measure latency.")] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare the outputs, size and paired latency of model B with those of model A."""
    from optimizer.commands.compare import compare_models  # noqa: PLC0415 - heavy
    from optimizer.evaluation.feeds.loading import parse_shapes  # noqa: PLC0415 - heavy

    with _progress(silent=quiet or as_json) as observe:
        comparison = compare_models(
            first,
            second,
            data=data,
            shapes=parse_shapes(shape or []),
            threads=threads,
            timing=not no_timing,
            seed=seed,
            observe=observe,
        )
    if as_json:
        _print_json(comparison.to_dict())
    elif not quiet:
        _print(comparison.table())


@app.command(epilog="Example:\n\nonnxhone passes --json")
def passes(as_json: JsonOption = False) -> None:
    """List the installed passes: names, exact or lossy, options with their defaults."""
    from optimizer.commands.list_passes import list_passes, listing_table  # noqa: PLC0415 - heavy

    listed = list_passes()
    if as_json:
        _print_json(listed)
    else:
        _print(listing_table(listed))


def main() -> None:
    """Entry point of the console command; every expected error is one line on stderr and its exit code."""
    try:
        app(standalone_mode=True)
    except OnnxhoneError as error:
        sys.stderr.write(f"onnxhone: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@contextmanager
def _progress(*, silent: bool) -> Iterator[Show]:
    """Shows what is being done while it runs, on a terminal only."""
    from optimizer.contract.progress import nowhere  # noqa: PLC0415 - with the package, which --help needs nothing of

    if silent or not sys.stderr.isatty():
        yield nowhere
        return
    from rich.console import Console  # noqa: PLC0415 - heavy

    from optimizer.commands.progress_bar import progress_bar  # noqa: PLC0415 - heavy

    with progress_bar(Console(stderr=True)) as show:
        yield show


def _print(content: Any) -> None:
    from rich.console import Console  # noqa: PLC0415 - heavy

    from optimizer.engine.report_tables import plain  # noqa: PLC0415 - heavy

    if sys.stdout.isatty():
        Console(highlight=False).print(content)
    else:
        sys.stdout.write(plain(content) + "\n")


def _print_json(value: Any) -> None:
    sys.stdout.write(_json(value) + "\n")


def _write_json(path: Path, value: Any) -> None:
    from optimizer.io.atomic_files import write_bytes  # noqa: PLC0415 - heavy

    try:
        write_bytes(path, (_json(value) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{path}: the report cannot be written: {error.strerror}; name a writable file") from error


def _json(value: Any) -> str:
    """Strict JSON: numbers that JSON has no word for become null."""
    import json  # noqa: PLC0415 - only where it is printed
    import math  # noqa: PLC0415 - only where it is printed

    def finite(element: Any) -> Any:
        if isinstance(element, float) and not math.isfinite(element):
            return None
        if isinstance(element, dict):
            return {key: finite(inner) for key, inner in element.items()}
        return [finite(inner) for inner in element] if isinstance(element, (list, tuple)) else element

    return json.dumps(finite(value), indent=2, ensure_ascii=False)


if __name__ == "__main__":
    main()
