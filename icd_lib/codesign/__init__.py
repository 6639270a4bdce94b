"""The co-design loop: permute, transform, re-permute, judge, accept or roll back."""
