"""Runs stages of passes on a model, judges each by the measuring side, keeps or undoes it, and reports."""
