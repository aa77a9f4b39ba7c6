"""The benchmark over onnx's backend tests finds what is wrong with a result."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import backend_exact
from backend_cases import Case, frozen
from optimizer import optimize

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2, 4] x, float[4] w) => (float[2, 4] y)
{ h = Add(x, w)  y = Relu(h) }
"""
FEED = {"x": np.arange(-4, 4, dtype=np.float32).reshape(2, 4), "w": np.ones(4, np.float32)}


def data(text: str = TEXT) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


@dataclass
class Given:
    """Stands for the result of a run whose passes do something wrong."""

    model: bytes
    report: object = field(default_factory=lambda: type("Nothing", (), {"stages": ()}))


@pytest.fixture
def gives(monkeypatch):
    def set_to(text):
        def replaced(source, run=True, **options):
            return Given(data(text)) if run else optimize(source, run=False, **options)

        monkeypatch.setattr(backend_exact, "optimize", replaced)

    return set_to


def test_what_is_right_is_unchanged_or_improved():
    assert backend_exact.examine("m", data(), [FEED]).outcome == "unchanged"
    case = frozen(Case("m", onnx.parser.parse_model(TEXT), (FEED,)), "all")
    found = backend_exact.examine("m", case.model.SerializeToString(), case.feeds)
    assert (found.outcome, found.compared) == ("improved", "ONNX Runtime")
    assert found.changes["fold-constants"] == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Relu(h)", "Neg(h)", "output 'y' has a relative error of"),
        ("Relu(h)", "Log(h)", "differs in NaN or infinity"),
        ("Relu(h)", "ReduceMax(h)", "output 'y' is float32[1, 1] instead of float32[2, 4]"),
        ("y = Relu", "z = Neg(h) i = Identity(i0) i0 = Identity(h) y = Relu", "onnx.checker: Nodes in a graph must be"),
        ("float[2, 4] y", "float[2, b] y", "the outputs are others"),
        ("y = Relu(h)", "i = Identity(h) y = Relu(i)", "grew from"),
        ("y = Relu(h)", "i = Identity(h) y = Relu(i)", "a second run changes it again"),
    ],
)
def test_what_is_wrong_is_found(old, new, reason, gives):
    gives(TEXT.replace(old, new))
    found = backend_exact.examine("m", data(), [FEED])
    assert found.outcome == "failed"
    assert reason in found.reason


def test_refused_models_say_why():
    found = backend_exact.examine("m", data(TEXT.replace("Relu", "Nonsense")), [FEED])
    assert found.outcome == "refused"
    assert "Nonsense does not exist" in found.reason
