"""Text to passes: specs, presets, TOML recipes, and the registry of installed passes."""
