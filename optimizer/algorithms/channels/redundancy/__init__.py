"""Channels that are constant, parallel to others or unused, found and folded."""
