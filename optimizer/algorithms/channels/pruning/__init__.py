"""Which channels go, in which order, and how what reads them is repaired.

May import all of ``channels``.
"""
