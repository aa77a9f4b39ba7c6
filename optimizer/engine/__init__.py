"""Runs stages of passes on a model, judges each by the measuring side, keeps or undoes it, and reports.

The two sides meet here. May import ``optimizer.recipes`` and what is below that, so both the algorithms and the
evaluation; never a pass.
"""
