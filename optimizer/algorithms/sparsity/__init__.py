"""Zeros in weights: by magnitude, by pattern, by what their loss costs."""
