"""The stages of the scenarios without a model: a real table of rows, laid out by π and read by a stream of accesses."""
