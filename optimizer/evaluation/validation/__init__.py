"""Candidate against reference on the same feeds: errors, tolerances, budgets, verdicts.

Of the evaluation it may import ``feeds`` and ``runtime``.
"""
