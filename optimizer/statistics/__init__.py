"""Statistics of tensors in constant memory: ranges, histograms, second moments of the inputs of layers."""
