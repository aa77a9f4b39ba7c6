"""Cross-layer equalization and SmoothQuant.

Of ``quantization`` it may import weight_rows, rows and linear.
"""
