"""A run: its options, its folder, its lock, and records of what its stages read and wrote."""
