"""Shape arithmetic with symbols for what is dynamic.

May import what ``optimizer.analysis`` may.
"""
