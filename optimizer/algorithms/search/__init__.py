"""Which units to change inside an error budget, by measurement.

Imports no other algorithm.
"""
