"""Trackers: they show or store what happens in a training, and change nothing about it."""
