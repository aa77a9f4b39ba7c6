"""Candidate against reference on the same feeds: errors, tolerances, budgets, verdicts."""
