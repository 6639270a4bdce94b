"""Q of weights alone: codes of 3, 4 or 8 bits in groups of columns, whose order is folded into the model."""
