"""A pass written over ``gs.Graph``: a GraphSurgeon script under the manager's checks.

The model becomes a graph, ``edit`` changes it in place, and the graph becomes a model again, without losing what
GraphSurgeon has no place for. Nodes may be appended in any order: they are sorted on the way back. Keep away from
``fold_constants``, ``toposort``, ``layer`` and ``copy`` of GraphSurgeon, which give wrong results or lose attributes.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.contract.passes import Pass, PassResult
from optimizer.io.surgeon import from_graph, to_graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_graphsurgeon as gs
    import onnx_ir as ir

    from optimizer.contract.passes import Context


@dataclass(frozen=True)
class SurgeonPass(Pass):
    """Base of passes over ``gs.Graph``; a subclass writes ``edit`` instead of ``run``."""

    @abstractmethod
    def edit(self, graph: gs.Graph, context: Context) -> Mapping[str, int]:
        """Change ``graph`` in place.

        Returns:
            Real changes by kind, ``{"nodes removed": 3}``. If nothing is counted, nothing is kept.
        """

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Edit ``model`` as a GraphSurgeon graph.

        Raises:
            PreconditionError: If GraphSurgeon cannot hold the model, or the edited graph is not a model.
        """
        graph = to_graph(model)
        with redirect_stdout(sys.stderr):  # GraphSurgeon and scripts print; standard output may be JSON
            edited = self.edit(graph, context)
        changes = {change: count for change, count in edited.items() if count}
        return PassResult(from_graph(graph) if changes else model, changes)
