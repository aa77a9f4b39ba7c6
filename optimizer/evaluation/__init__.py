"""The measuring side: everything that runs a model. Rewrites nothing, and nothing that rewrites imports it."""
