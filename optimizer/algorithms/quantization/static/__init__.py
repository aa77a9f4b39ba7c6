"""QDQ: which nodes run in int8, where pairs go, and what ONNX Runtime fuses."""
