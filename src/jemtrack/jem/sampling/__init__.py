"""Langevin chains: where they start, how they run, where they are kept."""
