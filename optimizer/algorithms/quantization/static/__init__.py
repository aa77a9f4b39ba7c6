"""QDQ: which nodes run in int8, where pairs go, and what ONNX Runtime fuses.

Of ``quantization`` it may import weight_rows, rows and linear.
"""
