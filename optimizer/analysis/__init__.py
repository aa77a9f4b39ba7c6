"""What is known of a model without running it: shapes, symbolic dimensions, MACs, facts.

May import ``optimizer.io`` and what is below that; not ``optimizer.statistics``.
"""
