"""Layer-wise least squares: fitting weights, biases and codebooks to the reference's outputs; GPTQ."""
