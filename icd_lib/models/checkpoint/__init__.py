"""Checkpoints: found, checked, loaded, saved."""
