"""Weights stored as integers, computed with in floats or by MatMulNBits.

Of ``quantization`` it may import weight_rows, rows and linear.
"""
