"""Langevin chains: their starts, their steps, and the replay buffer."""
