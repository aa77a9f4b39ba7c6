"""Take every model of onnx's backend tests, and of the corpus, through GraphSurgeon and back, and compare the protos.

    python benchmarks/surgeon_roundtrip.py [--corpus FOLDER] [--every N]

Four ways are counted:

- *ours*: ``from_graph(to_graph(model))``, equal in every byte of the proto or refused with a message;
- *ours, touched*: the same after ``.values`` of every Constant was looked at, which loads the weights into arrays;
- *plain graph*: from GraphSurgeon's own importer through our ``from_graph``: how many are clean for the checker;
- *theirs*: GraphSurgeon's importer and exporter: how many are clean for the checker.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from backend_roundtrip import backend_models
from optimizer.errors import OnnxhoneError
from optimizer.io.model import load, to_proto
from optimizer.io.surgeon import from_graph, to_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir


def untouched(model: ir.Model) -> str:
    """The outcome of the way there and back."""
    return _same(model, from_graph(to_graph(model)))


def touched(model: ir.Model) -> str:
    """The outcome when the user has looked at all weights."""
    graph = to_graph(model)
    _touch(graph)
    return _same(model, from_graph(graph))


def plain(model: ir.Model) -> str:
    """The outcome for a graph that was not made by us."""
    proto = to_proto(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return _clean(to_proto(from_graph(gs.import_onnx(copy))))


def theirs(model: ir.Model) -> str:
    """The outcome of GraphSurgeon's own importer and exporter."""
    proto = to_proto(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return _clean(gs.export_onnx(gs.import_onnx(copy)))


def _same(before: ir.Model, after: ir.Model) -> str:
    return "unchanged" if to_proto(before) == to_proto(after) else "CHANGED"


def _clean(proto: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        return "newly invalid"
    return "clean"


def _touch(graph: gs.Graph) -> None:
    for scope in (graph, *graph.functions):
        for node in scope.nodes:
            for thing in (*node.inputs, *node.attrs.values()):
                if isinstance(thing, gs.Constant):
                    _ = thing.values
                elif isinstance(thing, gs.Graph):
                    _touch(thing)


def outcome(way: Callable[[ir.Model], str], model: ir.Model) -> str:
    """What becomes of ``model``; a message of ours is a refusal, anything else that is raised is a crash."""
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            return way(model)
    except OnnxhoneError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - GraphSurgeon raises whatever comes
        return f"raised {type(error).__name__}"


def models(corpus: Path | None) -> Iterator[tuple[str, object]]:
    """All models by name, those of the corpus last."""
    yield from backend_models()
    if corpus is not None:
        yield from ((path.parent.name, path) for path in sorted(corpus.glob("*/*.onnx")))


def main() -> None:
    """Count the outcomes and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="folder with one folder a model")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth model")
    options = parser.parse_args()
    G_LOGGER.severity = G_LOGGER.CRITICAL
    logging.disable(logging.CRITICAL)
    ways: dict[str, Callable[[ir.Model], str]] = {
        "ours": untouched,
        "ours, touched": touched,
        "plain graph": plain,
        "theirs": theirs,
    }
    counts: dict[str, Counter[str]] = {name: Counter() for name in ways}
    for index, (name, source) in enumerate(models(options.corpus)):
        if index % options.every:
            continue
        try:
            model = load(source)
        except OnnxhoneError:
            counts["ours"]["not loaded"] += 1
            continue
        is_clean = _clean(to_proto(model)) == "clean"
        for way, run in ways.items():
            if not way.startswith("ours") and not is_clean:
                continue
            found = outcome(run, model)
            counts[way][found.split(":")[0]] += 1
            if way.startswith("ours") and found != "unchanged":
                print(f"{name}: {way}: {found}")
    for way, found_by in counts.items():
        print(f"{way:15} {dict(found_by.most_common())}")


if __name__ == "__main__":
    main()
