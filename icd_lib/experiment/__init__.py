"""What is compared: arms, comparisons, metrics and gates."""
