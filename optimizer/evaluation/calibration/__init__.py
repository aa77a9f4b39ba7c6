"""Sweeps over the calibration feeds that collect statistics of values inside a model.

Of the evaluation it may import ``feeds`` and ``runtime``.
"""
