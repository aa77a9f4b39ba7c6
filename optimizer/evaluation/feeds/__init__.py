"""Inputs of a model: read from files, taken from Python, or generated from the graph.

Of the evaluation it may import ``runtime``.
"""
