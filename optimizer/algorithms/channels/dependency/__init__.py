"""The dependency graph of channels, operator by operator, and their removal."""
