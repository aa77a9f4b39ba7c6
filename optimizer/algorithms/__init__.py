"""What several passes share: algorithms over the graph, free of any one pass's options.

The rewriting side. May import ``optimizer.contract`` and what is below that, and never ``optimizer.evaluation``:
nothing here runs a model. From top to bottom: clustering, sparsity; quantization; channels, deduplication,
horizontal_fusion, reconstruction, version_conversion; rewriting, search.
"""
