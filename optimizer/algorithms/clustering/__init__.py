"""Weights as indices into codebooks: k-means, product quantization, their storage.

Of the other algorithms it may import all but ``sparsity``.
"""
