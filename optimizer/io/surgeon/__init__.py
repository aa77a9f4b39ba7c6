"""The GraphSurgeon edge: ``gs.Graph`` in, ``gs.Graph`` out, and nothing of the model is lost in between.

GraphSurgeon's own importer and exporter drop or reject a part of what ONNX models hold: metadata, doc strings,
overloads of functions, annotations, denotations, odd types, initializers that are inputs. These two do not use them.
They build the objects of one library from those of the other, and hang on each what it came from. Weights are shared
until ``.values`` is read, and still if they are not changed then.

Of ``optimizer.io`` it may import ``checker`` and what is below that.
"""

from __future__ import annotations

from optimizer.io.surgeon.from_surgeon import from_graph
from optimizer.io.surgeon.to_surgeon import to_graph

__all__ = ["from_graph", "to_graph"]
