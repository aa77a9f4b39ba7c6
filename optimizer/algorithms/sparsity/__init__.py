"""Zeros in weights: by magnitude, by pattern, by what their loss costs.

Of the other algorithms it may import all but ``clustering``.
"""
