"""A model: its axes are laid out, its quality is judged on text."""
