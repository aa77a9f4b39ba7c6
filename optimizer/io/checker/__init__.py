"""Whether a model is well formed.

Of ``optimizer.io`` it may import protos and what is below that.
"""
