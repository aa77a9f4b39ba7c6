"""Moving Transposes to where the fewest are needed, by a minimum cut.

Of the algorithms it may import ``rewriting``.
"""
