"""Whole channels: which depend on each other, which are redundant, which can be pruned.

Of the other algorithms it may import ``rewriting`` and ``search``. Inside, from top to bottom:
pruning; redundancy; dependency; homogeneous; axes, widths.
"""
