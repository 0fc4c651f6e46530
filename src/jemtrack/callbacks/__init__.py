"""Callbacks, a file for each: they see every event of a training and may change its course."""
