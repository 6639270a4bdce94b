"""Measuring: latency, statistics, energy, L2, memory, quality, runtimes. Nothing here knows modes or transforms."""
