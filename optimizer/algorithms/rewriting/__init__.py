"""The rewrite engine, and what rules share: affine operators, clipping, CSE, dead code, names, layouts.

Imports no other algorithm.
"""
