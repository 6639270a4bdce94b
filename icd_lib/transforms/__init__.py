"""What changes a model: sparsity, smaller heads, distillation."""
