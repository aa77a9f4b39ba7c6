"""Cross-layer equalization and SmoothQuant."""
