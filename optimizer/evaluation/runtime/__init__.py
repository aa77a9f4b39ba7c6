"""ONNX Runtime: sessions, runs, paired timing, which kernels really run.

The only package that imports onnxruntime. Imports no other part of the evaluation.
"""
