"""Rewrite rules of `simplify`, one idea a file; each file lists its rules in ``RULES``.

A rule may import what a pass may, and no other rule.
"""
