"""Linear quantization of weights and activations.

Of the other algorithms it may import all but ``clustering`` and ``sparsity``. Inside, from top to bottom:
static, dynamic, weight_only, rescaling, none of which imports another; dynamic_candidates, weight_rows; rows; linear.
"""
