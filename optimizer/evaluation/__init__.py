"""The measuring side: everything that runs a model. Rewrites nothing, and nothing that rewrites imports it.

May import ``optimizer.contract`` and what is below that, and never ``optimizer.algorithms``. From top to bottom:
validation, calibration, neither of which imports the other; feeds; runtime.
"""
