"""The dependency graph of channels, operator by operator, and their removal.

Of ``channels`` it may import homogeneous, axes and widths.
"""
