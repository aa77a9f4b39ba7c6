"""Layer-wise least squares: fitting weights, biases and codebooks to the reference's outputs; GPTQ.

Of the other algorithms it may import ``rewriting`` and ``search``.
"""
