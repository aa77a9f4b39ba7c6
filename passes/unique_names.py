"""Names that stand for one thing, as tools that find nodes and values by name need them.

Every node gets a name, and no two nodes of the model share one, in subgraphs and functions too. No value of a subgraph
hides an outer one of the same name, nor shares its name with one of another branch. Inputs and outputs of the model
keep their names, and so does all that is unique already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.names import name_nodes, name_values
from optimizer.contract.passes import Gain, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.contract.passes import Context


@dataclass(frozen=True)
class UniqueNames(Pass):
    """Give every node and value a name of its own."""

    name: ClassVar[str] = "unique-names"
    summary: ClassVar[str] = "a name for every node, none twice, and no value that hides another of its name"
    gain: ClassVar[Gain] = Gain.ENABLING

    def run(self, model: ir.Model, context: Context) -> PassResult:  # noqa: ARG002 - no choice to be made
        """Name what has no name of its own in ``model``."""
        values = name_values(model)  # first, since nodes are named after their outputs
        return PassResult(model, dict(name_nodes(model) + values))
