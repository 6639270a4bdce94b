"""S: structured sparsity by optimal brain surgeon."""
