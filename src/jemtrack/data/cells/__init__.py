"""Counts of single cells: where they come from, how they are prepared."""
