"""Single nodes in a newer version of the operator set.

Of the other algorithms it may import ``rewriting`` and ``search``.
"""
