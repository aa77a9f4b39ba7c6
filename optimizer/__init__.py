"""onnxhone: optimizes ONNX models before deployment, and proves what it did.

    result = optimizer.optimize("model.onnx", "out.onnx")
    print(result.report.to_text())

Everything public is named in ``__all__`` and loaded on first use, so that ``import optimizer`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.rewriter import Rewriter
    from optimizer.algorithms.rewriting.rules import APPLIED, NO_MATCH, Applied, Rule
    from optimizer.commands.optimize import Result, optimize
    from optimizer.contract.choices import Choices
    from optimizer.contract.node_filter import NodeFilter, NodeFilterOptions
    from optimizer.contract.passes import Context, Gain, Note, Pass, PassResult, Sites, Step
    from optimizer.contract.refusal import Refusal
    from optimizer.contract.skipped import SkippedNodes
    from optimizer.contract.surgeon_pass import SurgeonPass
    from optimizer.engine.report import Report
    from optimizer.errors import (
        CheckFailedError,
        DataError,
        ModelError,
        OnnxhoneError,
        PreconditionError,
        ReferenceRunError,
        UsageError,
    )
    from optimizer.io.model import load, save
    from optimizer.testing import check_pass

_HOMES = {
    "errors": (
        "CheckFailedError",
        "DataError",
        "ModelError",
        "OnnxhoneError",
        "PreconditionError",
        "ReferenceRunError",
        "UsageError",
    ),
    "io.model": ("load", "save"),
    "algorithms.rewriting.rewriter": ("Rewriter",),
    "algorithms.rewriting.rules": ("APPLIED", "NO_MATCH", "Applied", "Rule"),
    "commands.optimize": ("Result", "optimize"),
    "contract.choices": ("Choices",),
    "contract.node_filter": ("NodeFilter", "NodeFilterOptions"),
    "contract.passes": ("Context", "Gain", "Note", "Pass", "PassResult", "Sites", "Step"),
    "contract.refusal": ("Refusal",),
    "contract.skipped": ("SkippedNodes",),
    "contract.surgeon_pass": ("SurgeonPass",),
    "engine.report": ("Report",),
    "testing": ("check_pass",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "APPLIED",
    "NO_MATCH",
    "Applied",
    "CheckFailedError",
    "Choices",
    "Context",
    "DataError",
    "Gain",
    "ModelError",
    "NodeFilter",
    "NodeFilterOptions",
    "Note",
    "OnnxhoneError",
    "Pass",
    "PassResult",
    "PreconditionError",
    "ReferenceRunError",
    "Refusal",
    "Report",
    "Result",
    "Rewriter",
    "Rule",
    "Sites",
    "SkippedNodes",
    "Step",
    "SurgeonPass",
    "UsageError",
    "check_pass",
    "load",
    "optimize",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optimizer' has no attribute {name!r}")
    return getattr(import_module(f"optimizer.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
