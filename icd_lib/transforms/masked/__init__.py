"""Models that were pruned elsewhere: what their zeros make dead is found and removed, and the rest is counted."""
