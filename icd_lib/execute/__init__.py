"""Executing the notebooks of a run, each in a fresh kernel, and their HTML."""
