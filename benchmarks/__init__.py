"""Benchmarks: jemtrack against reference loops, and the cost of its parts."""
