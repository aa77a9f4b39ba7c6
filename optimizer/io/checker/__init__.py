"""Whether a model is well formed."""
