"""Raise the version of the standard operator set, so that other passes may use what newer ones offer.

Quantization by channel needs opset 13, 4-bit types and blocks need 21. Functions are inlined first. Each node whose
operator has another definition in the new version is converted on its own
(``optimizer.algorithms.version_conversion.operators``), and all else of the model stays as it is: names, metadata, doc
strings, annotations, other domains. The version is never lowered.

The IR version rises to the first that has the operator set. It does not where that would turn weights into inputs that
a caller may override: before IR version 4, each initializer is listed as an input and is constant all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from optimizer.algorithms.rewriting.names import name_values
from optimizer.algorithms.version_conversion.operators import Upgrade, since
from optimizer.algorithms.version_conversion.splicing import Splicer
from optimizer.analysis.annotation import annotated
from optimizer.contract.options import between
from optimizer.contract.passes import Gain, Note, Pass, PassResult
from optimizer.errors import PreconditionError
from optimizer.graph import queries, traversal
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.contract.passes import Context

NEWEST = onnx.defs.onnx_opset_version()
_NAMELESS = "onnxhone.nameless"  # on the meta of a function's value: it is an output that nobody wants
_FREE_INITIALIZERS = 4  # the first IR version in which an initializer need not be an input

RAISED, CONVERTED, INLINED = "opset versions raised", "operators converted", "functions inlined"


@dataclass(frozen=True)
class UpgradeOpset(Pass):
    """Raise the version of the standard operator set.

    Attributes:
        version: The version to reach; models that are as new already stay as they are.
    """

    name: ClassVar[str] = "upgrade-opset"
    summary: ClassVar[str] = "raise the operator set to a newer version; functions are inlined, nothing is lost"
    gain: ClassVar[Gain] = Gain.ENABLING

    version: Annotated[int, between(1, NEWEST)] = 13  # what the installed onnx knows

    def run(self, model: ir.Model, context: Context) -> PassResult:  # noqa: ARG002 - no choice to be made
        """Raise the operator set of ``model`` to ``version``.

        Raises:
            PreconditionError: With the operator and the reason, if one cannot be converted; nothing is changed then.
        """
        current = queries.opset_version(model)
        if not 0 < current < self.version:
            return PassResult(model, {})
        work, inlined = _inlined(model)
        plans = _plans(work, current, self.version)
        notes = (*_raise_ir_version(work, self.version), *_unknown(work, current, self.version))
        splicer = Splicer.of(work, self.version)
        for node, made in plans.items():
            splicer.splice(node, made)
        for domain in queries.STANDARD_DOMAINS:
            if domain in work.opset_imports:
                work.opset_imports[domain] = self.version
        changes = {RAISED: self.version - current, CONVERTED: len(plans), INLINED: inlined}
        return PassResult(work, {kind: count for kind, count in changes.items() if count}, notes)


def _plans(model: ir.Model, source: int, target: int) -> dict[ir.Node, onnx.GraphProto]:
    """What stands for each node that cannot stay as it is."""
    values = (value for node in traversal.nodes(model) for value in node.outputs)
    upgrade = Upgrade(source, target, {value: value.shape for value in values if value.shape is not None})
    concerned = [node for node in traversal.nodes(model) if upgrade.concerns(node)]
    if not concerned:
        return {}
    with annotated(model):
        made = {node: upgrade.convert(node) for node in concerned}
    return {node: proto for node, proto in made.items() if proto is not None}


def _inlined(model: ir.Model) -> tuple[ir.Model, int]:
    """``model``, or a copy in which the bodies of its functions stand for the calls, and the number of functions."""
    if not model.functions:
        return model, 0
    work = clone(model)
    for function in work.functions.values():
        for node in function.all_nodes():
            for value in node.outputs:
                value.meta[_NAMELESS] = not value.name
    try:
        InlinePass()(work)
    except (ValueError, KeyError, ir.passes.PassError) as error:
        raise PreconditionError(f"functions cannot be inlined, which a newer opset needs: {_cause(error)}") from error
    work.functions.clear()  # those that are left are called by nobody
    for node in traversal.nodes(work):
        for value in node.outputs:
            if value.meta.pop(_NAMELESS, False):
                value.name = None  # inlining gives it a name, as if the output were wanted
    name_values(work)  # inlined values may hide others in subgraphs
    return work, len(model.functions)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _raise_ir_version(model: ir.Model, version: int) -> Iterator[Note]:
    needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", version)], ignore_unknown=True)
    if model.ir_version >= needed:
        return
    if model.ir_version < _FREE_INITIALIZERS and any(queries.is_overridable(value) for value in model.graph.inputs):
        yield Note(f"IR version {model.ir_version}", "stays, since newer ones let a caller override the weights")
        return
    model.ir_version = needed


def _unknown(model: ir.Model, source: int, target: int) -> Iterator[Note]:
    """Notes on operators that the old version of the operator set does not have, such as ONNX Runtime's own."""
    names = {
        node.op_type for node in traversal.nodes(model) if queries.is_standard(node) and not since(node.op_type, source)
    }
    for name in sorted(names):
        yield Note(name, f"is no operator of opset {source}; left as it is for opset {target}")
