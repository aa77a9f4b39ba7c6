"""One kernel on several inputs runs once, on a batch of them.

Of the other algorithms it may import ``rewriting`` and ``search``.
"""
