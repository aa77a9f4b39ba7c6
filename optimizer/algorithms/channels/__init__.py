"""Whole channels: which depend on each other, which are redundant, which can be pruned."""
