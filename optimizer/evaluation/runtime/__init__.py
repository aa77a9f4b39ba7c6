"""ONNX Runtime: sessions, runs, paired timing, which kernels really run."""
