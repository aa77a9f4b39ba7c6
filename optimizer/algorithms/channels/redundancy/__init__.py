"""Channels that are constant, parallel to others or unused, found and folded.

May import all of ``channels`` but pruning.
"""
