"""Weights as indices into codebooks: k-means, product quantization, their storage."""
