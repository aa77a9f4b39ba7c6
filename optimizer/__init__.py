"""onnxhone: optimizes ONNX models before deployment, and proves what it did."""
