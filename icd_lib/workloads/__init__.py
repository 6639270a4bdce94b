"""What is laid out, run and judged: a model, or a table of rows."""
