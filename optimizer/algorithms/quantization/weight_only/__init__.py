"""Weights stored as integers, computed with in floats or by MatMulNBits."""
