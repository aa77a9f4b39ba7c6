"""Equal, reshaped, transposed and nearly equal constants stored once."""
