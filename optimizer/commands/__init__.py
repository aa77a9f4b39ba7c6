"""One file a verb of the command line, and of the Python face: optimize, compare, inspect, list the passes."""
