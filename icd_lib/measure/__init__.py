"""Measurements: latency, energy, memory, quality, environment and the statistics that judge them."""
