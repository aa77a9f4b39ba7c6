"""Rewrite rules of `simplify`, one idea a file; each file lists its rules in ``RULES``."""
