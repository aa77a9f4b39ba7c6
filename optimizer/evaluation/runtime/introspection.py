"""What ONNX Runtime makes of a model: the graph that it really runs, and the time of each node."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.evaluation.runtime.session import _DEFAULT_THREADS, Loadable, _open, _options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    import onnx_ir as ir

_PROFILED_RUNS = 10


def optimized_graphs(model: ir.Model | Loadable) -> list[onnx.GraphProto]:
    """The graph that really runs after ONNX Runtime's own optimizations, and its subgraphs.

    They come without the bytes of their larger initializers.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot load the model.
    """
    import onnx  # noqa: PLC0415 - only this function reads a protobuf

    with tempfile.TemporaryDirectory() as folder:
        target, weights = Path(folder, "optimized.onnx"), Path(folder, "weights")
        if os.name == "posix":
            weights.symlink_to(os.devnull)  # only the graph is wanted: the weights' bytes go nowhere
        options = _options(optimize=True, threads=1)
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights.name)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        # Loading it writes the optimized graph.
        _open(model, options)
        return list(_with_subgraphs(onnx.load_model(target, load_external_data=False).graph))


def _with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _with_subgraphs(inner)


def profile(
    model: ir.Model | Loadable, feeds: Sequence[Mapping[str, Any]], *, threads: int = _DEFAULT_THREADS
) -> dict[str, float]:
    """Seconds of one inference by the name of the node that runs, after ONNX Runtime's optimizations.

    Each is by the median over ten runs.

    Args:
        model: The model, or what ``prepare`` made of it.
        feeds: Run by turns.
        threads: Threads inside an operator.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot load or run the model.
    """
    import json  # noqa: PLC0415 - only this function reads a profile

    with tempfile.TemporaryDirectory() as folder:
        options = _options(optimize=True, threads=threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        loaded = _open(model, options)
        run = loaded.runner(feeds)
        for _ in range(_PROFILED_RUNS):
            run()
        events = json.loads(Path(loaded.end_profiling()).read_text(encoding="utf-8"))
    # A node inside a loop runs several times a run: the median of one, times how often it ran. Durations are in us.
    samples: dict[str, list[float]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            samples.setdefault(name.removesuffix("_kernel_time"), []).append(event["dur"] * 1e-6)
    return {name: statistics.median(values) * len(values) / _PROFILED_RUNS for name, values in samples.items()}
