"""Sweeps over the calibration feeds that collect statistics of values inside a model."""
