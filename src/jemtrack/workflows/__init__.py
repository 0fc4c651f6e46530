"""The graphs, each on one screen."""
