"""Single nodes in a newer version of the operator set."""
