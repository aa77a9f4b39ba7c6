"""The ways of pruning that ``prune_corpus.py`` compares, and the tables of its results."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PLAIN, REPAIRED, PEER = "{}, magnitude", "{}, repaired", "{}, onnxsim {}"
PEERS = ("sparsegpt", "wanda", "magnitude")
WANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "50 %": ("sparsity=0.5", {"sparsity": 0.5}),
    "70 %": ("sparsity=0.7", {"sparsity": 0.7}),
    "2:4": ("pattern='2:4'", {"n": 2, "m": 4}),
}
OURS = {
    **{PLAIN.format(name): f"prune-magnitude:repair=false,{options}" for name, (options, _) in WANTED.items()},
    **{REPAIRED.format(name): f"prune-magnitude:{options}" for name, (options, _) in WANTED.items()},
    "50 %, by size, repaired": "prune-magnitude:sparsity=0.5,importance='l1'",
    "50 %, global, magnitude": "prune-magnitude:repair=false,sparsity=0.5,scope='global'",
    "50 %, global, repaired": "prune-magnitude:sparsity=0.5,scope='global'",
    "70 %, global, magnitude": "prune-magnitude:repair=false,sparsity=0.7,scope='global'",
    "70 %, global, repaired": "prune-magnitude:sparsity=0.7,scope='global'",
    "50 %, block4x1 by l1, magnitude": "prune-magnitude:repair=false,sparsity=0.5,pattern='block4x1'",
    "50 %, block4x1 by l2, magnitude": "prune-magnitude:repair=false,sparsity=0.5,pattern='block4x1',importance='l2'",
    "50 %, block4x1, repaired": "prune-magnitude:sparsity=0.5,pattern='block4x1'",
}
THEIRS = {PEER.format(name, method): (method, options) for name, (_, options) in WANTED.items() for method in PEERS}
WAYS = (*OURS, *THEIRS)
OTHERS = {
    "50 %, global, magnitude": "50 %, magnitude",
    "50 %, global, repaired": "50 %, repaired",
    "70 %, global, magnitude": "70 %, magnitude",
    "70 %, global, repaired": "70 %, repaired",
    "50 %, by size, repaired": "50 %, repaired",
    "50 %, block4x1 by l2, magnitude": "50 %, block4x1 by l1, magnitude",
    "50 %, block4x1, repaired": "50 %, block4x1 by l1, magnitude",
}
POINTS = 0.1  # of the metric: less is no loss
_ABOUT = """\
Largest relative L2 of an output on validation inputs that nothing else looked at / points of the model's task metric
lost on all of them, against the model as published (negative: won). All kernels but the first and the last are pruned,
whatever it costs. `repaired`: weights chosen by what their loss costs, the others fitted anew. onnxsim starts from the
same model with all calibration inputs; it has no option to spare the first and the last kernels, so these are put back
afterwards. Where another share of the weights of these kernels is 0 than was asked for, it is given."""
Models: TypeAlias = "Mapping[str, Mapping[str, Any]]"


def page(results: Mapping[str, Any]) -> str:
    """All tables."""
    models = results["models"]
    libraries = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    parts = [
        "# Pruning by magnitude, and its repair",
        f"Made by `benchmarks/prune_corpus.py` at {results['commit']}, with {libraries}.",
        _ABOUT,
    ]
    sections = {name: _compared(models, name) for name in WANTED}
    sections |= {"Ratios": _ratios(models), "Other ways": _others(models), "Bytes and cost": _costs(models)}
    sections["Where onnxsim gave nothing"] = _failures(models)
    for title, lines in sections.items():
        text = "\n".join(lines)
        parts += [f"## {title}", text] if text else []
    return "\n\n".join(parts) + "\n"


def ratio(models: Models, one: str, other: str, found: Callable[[Mapping[str, Any], str], float | None]) -> str:
    """The geometric mean of what is ``found`` for ``one`` in parts of that for ``other``, and over how many models."""
    pairs = [(found(known, one), found(known, other)) for known in models.values()]
    logs = [math.log(first / second) for first, second in pairs if first is not None and second is not None]
    return f"{math.exp(statistics.fmean(logs)):.2f} ({len(logs)})" if logs else ""


def error(known: Mapping[str, Any], way: str) -> float | None:
    """The error of one way, where it gave something."""
    found = None if "failed" in known.get(way, {}) else known.get(way, {}).get("error")
    return None if found is None else max(found, 1e-9)


def lost(known: Mapping[str, Any], way: str) -> float | None:
    """Points of the metric that one way loses, where it gave something; all of them where it has no score."""
    found = known.get(way, {})
    if "metric" not in known or "metric" not in found or "failed" in found:
        return None
    return float(known["metric"] - (found["metric"] or 0.0))


def _both(models: Models, one: str, other: str) -> list[tuple[float, float]]:
    """Points that two ways lose, where both were measured."""
    pairs = [(lost(known, one), lost(known, other)) for known in models.values()]
    return [(first, second) for first, second in pairs if first is not None and second is not None]


def _points(models: Models, one: str, other: str) -> str:
    """Ratio of points lost, where one of the ways loses any, and the mean points."""
    pairs = _both(models, one, other)
    logs = [math.log(max(a, POINTS) / max(b, POINTS)) for a, b in pairs if max(a, b) > POINTS]
    if not logs:
        return " | "
    means = (statistics.fmean(column) for column in zip(*pairs, strict=True))
    return f"{math.exp(statistics.fmean(logs)):.2f} ({len(logs)}) | " + " : ".join(f"{mean:.1f}" for mean in means)


def _ratios(models: Models) -> Iterator[str]:
    yield (
        "Geometric means, over how many models in brackets. A loss of less than "
        f"{POINTS} points counts as {POINTS}; models on which neither loses more are left out of that mean."
    )
    yield ""
    yield "| first : second | error | metric lost | points lost, mean |"
    yield "| --- | ---: | ---: | ---: |"
    pairs = [(REPAIRED.format(name), PLAIN.format(name)) for name in WANTED]
    pairs += [(REPAIRED.format(name), PEER.format(name, peer)) for peer in PEERS for name in WANTED]
    pairs += [(PLAIN.format(name), PEER.format(name, "magnitude")) for name in WANTED]
    pairs += [(REPAIRED.format(name), PLAIN.format(name)) for name in ("50 %, global", "70 %, global")]
    for one, other in (*pairs, *OTHERS.items()):
        found = ratio(models, one, other, error)
        if found:
            yield f"| {one} : {other} | {found} | {_points(models, one, other)} |"


def _compared(models: Models, name: str) -> Iterator[str]:
    ways = [PLAIN.format(name), REPAIRED.format(name), *(PEER.format(name, peer) for peer in PEERS)]
    full = sum(all(way in known for way in ways[:2]) for known in models.values())
    yield f"{full} models have both of the first two columns, of {len(models)} that were begun."
    yield ""
    yield "| model | " + " | ".join(way.removeprefix(f"{name}, ") for way in ways) + " |"
    yield "| --- |" + " ---: |" * len(ways)
    for model, known in models.items():
        if any(way in known for way in ways):
            yield f"| {model} | " + " | ".join(_cell(known, way) for way in ways) + " |"


def _cell(known: Mapping[str, Any], way: str) -> str:
    if way not in known:
        return ""
    if "failed" in known[way]:
        return str(known[way]["failed"]).split(":")[0]
    size, points, (zeros, of) = error(known, way), lost(known, way), known[way]["zeros"]
    wanted = 0.7 if way.startswith("70 %") else 0.5
    cell = ("not finite" if size is None else (f"{size:.3f}" if size >= 0.01 else f"{size:.1g}")) + (
        "" if points is None else f" / {points:.1f}"
    )
    return cell if abs(zeros / of - wanted) < 0.015 else f"{cell} ({zeros / of:.0%} are 0)"


def _others(models: Models) -> Iterator[str]:
    ways = [way for way in OURS if way.count(",") > 1 and any(way in known for known in models.values())]
    if not ways:
        return
    yield "| model | " + " | ".join(ways) + " |"
    yield "| --- |" + " ---: |" * len(ways)
    for model, known in models.items():
        if any(way in known for way in ways):
            yield f"| {model} | " + " | ".join(_cell(known, way) for way in ways) + " |"


def _costs(models: Models) -> Iterator[str]:
    yield "Bytes under gzip after the repair, in parts of those before. The file itself gets no smaller."
    yield ""
    yield "| model | bytes, gzip | " + " | ".join(WANTED) + " | CPU seconds of repair at 50 % | peak memory |"
    yield "| --- |" + " ---: |" * (len(WANTED) + 3)
    for model, known in models.items():
        ways = [known.get(REPAIRED.format(name)) for name in WANTED]
        small = [f"{way['gzip'] / known['size'][1]:.2f}" if way else "" for way in ways]
        spent = f"{ways[0]['seconds']:.0f} | {ways[0]['peak'] / 1e6:.0f} MB" if ways[0] else " | "
        yield f"| {model} | {known['size'][1]:,} | {' | '.join(small)} | {spent} |"


def _failures(models: Models) -> Iterator[str]:
    for model, known in models.items():
        for way in THEIRS:
            if "failed" in known.get(way, {}):
                yield f"- {model}, {way}: {known[way]['failed']}"
