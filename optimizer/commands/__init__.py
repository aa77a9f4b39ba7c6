"""One file a verb of the command line, and of the Python face: optimize, compare, inspect, list the passes.

May import ``optimizer.engine`` and what is below that: everything but ``optimizer.cli`` and ``optimizer.testing``.
"""
