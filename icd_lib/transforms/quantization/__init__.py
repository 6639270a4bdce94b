"""Q: int8 weights and activations that runtimes compute as such, and weights stored in eight bits."""
