"""A model that leaves the project: with its probabilities, its threshold and its papers."""
