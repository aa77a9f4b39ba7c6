"""Named recipes. A preset is a list of stages, each a spec; it is parsed only when it is asked for."""

from __future__ import annotations

from optimizer.errors import UsageError, no_such
from optimizer.recipes.spec import Stage, parse_stage

DEFAULT = "exact"

_INT8 = "upgrade-opset:version=13+unique-names+simplify+insert-qdq"
_EXACT = ("dedup-initializers", "simplify", "fold-shared-kernels", "batch-branches", "dedup-initializers")
PRESETS: dict[str, tuple[str, ...]] = {
    "exact": _EXACT,
    "int8": (*_EXACT, _INT8),
    "int8-dynamic": (*_EXACT, "upgrade-opset:version=11+quantize-dynamic"),
    "weights-int8": (*_EXACT, "quantize-weights"),
    "weights-int4": (*_EXACT, "upgrade-opset:version=21+quantize-weights:bits=4"),
    "pruned": (*_EXACT, "prune-channels"),
    "pruned-int8": (*_EXACT, "prune-channels", _INT8),
    "small": (*_EXACT, "upgrade-opset:version=11+cluster-weights"),
    "smallest": (*_EXACT, "upgrade-opset:version=11+cluster-weights:entries=16,group=auto"),
}


def preset(name: str) -> tuple[Stage, ...]:
    """The stages of the preset called ``name``.

    Raises:
        UsageError: If there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(no_such("preset", name, sorted(PRESETS)))
    return tuple(parse_stage(text, named=False) for text in PRESETS[name])
