"""Linear quantization of weights and activations."""
