"""Statistics of tensors in constant memory: ranges, histograms, second moments of the inputs of layers.

May import ``optimizer.io`` and what is below that; not ``optimizer.analysis``.
"""
