"""Models: where checkpoints come from, how they are loaded, and one adapter per family."""
