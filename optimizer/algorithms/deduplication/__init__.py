"""Equal, reshaped, transposed and nearly equal constants stored once.

Of the other algorithms it may import ``rewriting`` and ``search``.
"""
