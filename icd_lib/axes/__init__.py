"""What can be permuted: axes as data, and the operations on them. Plain permutations need no torch."""
