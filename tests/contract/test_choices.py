"""Choices as they stand in reports: what is read back, and what is refused with the key that is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from optimizer.algorithms.channels.pruning.run import ChannelChoices
from optimizer.algorithms.clustering.search import ClusterChoices
from optimizer.algorithms.deduplication.nearly_equal import NearChoices
from optimizer.algorithms.sparsity.search import PruneChoices
from optimizer.contract.choices import Choices
from optimizer.contract.passes import Context
from optimizer.errors import UsageError
from passes.fold_shared_kernels import FoldChoices
from passes.insert_qdq import Int8Choices
from passes.quantize_dynamic import DynamicChoices
from passes.quantize_weights import WeightChoices
from passes.refit_weights import RefitChoices

WRITTEN = [
    (Int8Choices, {"units": ["Conv -> a", "Gemm -> b"], "ranges": "mse", "adaptive": ["a"]}),
    (DynamicChoices, {"float": ["MatMul -> b"]}),
    (WeightChoices, {"block": "auto", "wide": []}),
    (WeightChoices, {"block": "16", "wide": ["w"], "compute": "float"}),
    (ClusterChoices, {"level": 1, "wide": ["w"]}),
    (PruneChoices, {"level": 2, "less": [], "pruned": ["w", "v"]}),
    (PruneChoices, {"level": 0, "less": ["w"], "pruned": ["v"], "refitted": True}),
    (ChannelChoices, {"removed": {"Conv -> a": [0, 3], "Gemm -> b": [1]}}),
    (NearChoices, {"near": 3}),
    (FoldChoices, {"tolerance": 0.05}),
    (RefitChoices, {"fitted": True}),
]


@pytest.mark.parametrize(("kind", "values"), WRITTEN)
def test_what_reports_hold_is_read_and_written_alike(kind, values):
    choices = kind.from_json(values, "report")
    assert choices.to_json() == values
    assert kind.from_json(choices.to_json(), "report") == choices


@pytest.mark.parametrize(("kind", "values"), WRITTEN)
def test_a_changed_key_is_named(kind, values):
    for key, value in values.items():
        changed = {**{name: other for name, other in values.items() if name != key}, f"{key}s": value}
        with pytest.raises(UsageError, match=f"^report: no key '{key}s'; did you mean '{key}'"):
            kind.from_json(changed, "report")
        with pytest.raises(UsageError, match=f"^report:{key}: "):
            kind.from_json({**values, key: object()}, "report")


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match=r"^report: the key 'level' is missing$"):
        ClusterChoices.from_json({"wide": []}, "report")
    with pytest.raises(UsageError, match=r"^report: \[1\] is no object"):
        ClusterChoices.from_json([1], "report")


@dataclass(frozen=True)
class Nested(Choices):
    places: Mapping[str, tuple[int, ...]]


def test_context_hands_back_choices_of_the_type_of_the_pass_alone():
    assert Context(None).replayed(Nested) is None
    nested = Nested({"a": (1,)})
    assert Context(None, choices=nested).replayed(Nested) is nested
    with pytest.raises(TypeError, match="choices are NearChoices, the pass has Nested"):
        Context(None, choices=NearChoices(1)).replayed(Nested)
