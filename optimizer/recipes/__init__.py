"""Text to passes: specs, presets, TOML recipes, and the registry of installed passes.

May import ``optimizer.contract`` and what is below that; loads passes by their entry points, and imports none.
"""
